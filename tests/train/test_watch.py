"""Figures of every depth during training: as defined, the same after a kill, and of no consequence for the run."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import GRID, config, run_config

import layerlock
from layerlock.config import Config
from layerlock.data.index import build_index
from layerlock.errors import ConfigError, LayerlockError
from layerlock.features.probe import probe_hits
from layerlock.measures.similarity import Alignment
from layerlock.model.readout import over_time, standardized
from layerlock.report.charts import chart_section
from layerlock.report.history import read_history
from layerlock.train.folder import RunFolder
from layerlock.train.loop import Run, train
from layerlock.train.meter import Clock
from layerlock.train.watch import Reference, Watch, open_watch

VIDEOS, DEPTHS = 26, 7


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of each of 13 classes."""
    folder = tmp_path_factory.mktemp("world")
    layerlock.synth(folder, videos=VIDEOS, size=24, frames=10, workers=1)
    return folder


@pytest.fixture(scope="module")
def few(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of eight of them, of two classes."""
    rows = [f"{video},{'ab'[number % 2]}" for number, video in enumerate(sorted(world.rglob("*.mp4"))[:8])]
    path = tmp_path_factory.mktemp("few") / "list.csv"
    path.write_text("\n".join(["file_name,label", *rows]))
    return path


def watched(out: Path, data: Path | str | None, **changes: Any) -> Config:
    where = None if data is None else str(data)
    return config(out, run=run_config(**{"log_every": 2, "watch": where, "watch_every": 3} | changes))


def lines_of(out: Path, log: str = "watch") -> list[dict[str, Any]]:
    lines = [json.loads(text) for text in (out / f"{log}.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "timing"} for line in lines]


def tensors_of(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "checkpoints" / "step-00000012" / "state.safetensors")


def assert_same_run(a: Path, b: Path) -> None:
    """All metrics but timing and the last checkpoint, bit for bit."""
    assert lines_of(a, "metrics") == lines_of(b, "metrics")
    first, second = tensors_of(a), tensors_of(b)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.usefixtures("noise", "threads")
@pytest.mark.parametrize("threads_of_torch", [1, 2])
def test_no_bit_of_a_run_depends_on_being_watched(tmp_path: Path, few: Path, threads_of_torch: int) -> None:
    for name, data in (("alone", None), ("watched", few)):
        train(watched(tmp_path / name, data, threads=threads_of_torch), quiet=True)
    assert_same_run(tmp_path / "alone", tmp_path / "watched")
    assert not (tmp_path / "alone" / "watch.jsonl").exists()
    found = lines_of(tmp_path / "watched")
    assert [line["step"] for line in found] == [0, 3, 4, 6, 7, 9, 12]
    assert [line["against"] for line in found] == [None, 0, 3, 4, 4, 7, 7]


@pytest.mark.usefixtures("noise")
@pytest.mark.parametrize("stop", [2, 3, 4, 7])
def test_a_watched_run_cut_short_and_resumed_has_the_same_figures(
    tmp_path: Path, few: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """Cut right at a look, at a switch, and between them."""
    run = {"checkpoint_every": stop, "keep": 1}
    train(watched(tmp_path / "whole", few, **run), quiet=True)
    update = Run.update

    def cut(self: Run, *args: Any, **kwargs: Any) -> Any:
        if self.step == stop + 1:
            raise KeyboardInterrupt
        return update(self, *args, **kwargs)

    monkeypatch.setattr(Run, "update", cut)
    with pytest.raises(KeyboardInterrupt):
        train(watched(tmp_path / "cut", few, **run), quiet=True)
    monkeypatch.setattr(Run, "update", update)
    with (tmp_path / "cut" / "watch.jsonl").open("a") as log:
        log.write('{"step": 9, "cut short')
    train(watched(tmp_path / "cut", few, **run), resume=True, quiet=True)
    assert_same_run(tmp_path / "cut", tmp_path / "whole")
    assert lines_of(tmp_path / "cut") == lines_of(tmp_path / "whole")


@pytest.mark.usefixtures("noise")
def test_a_run_killed_between_a_line_and_its_features_writes_what_is_missing(
    tmp_path: Path, few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(watched(tmp_path / "whole", few), quiet=True)
    keep = Watch._keep

    def cut(self: Watch, reference: Reference) -> None:
        if reference.step == 4:
            raise KeyboardInterrupt
        keep(self, reference)

    monkeypatch.setattr(Watch, "_keep", cut)
    with pytest.raises(KeyboardInterrupt):
        train(watched(tmp_path / "cut", few), quiet=True)
    assert lines_of(tmp_path / "cut")[-1]["step"] == 4
    monkeypatch.setattr(Watch, "_keep", keep)
    train(watched(tmp_path / "cut", few), resume=True, quiet=True)
    assert_same_run(tmp_path / "cut", tmp_path / "whole")
    assert lines_of(tmp_path / "cut") == lines_of(tmp_path / "whole")


def test_the_time_of_a_look_is_no_time_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0.0, 1.0, 101.0, 102.0, 102.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(moments))
    clock = Clock()
    clock.clips = 8
    with clock.paused():
        pass
    assert clock.figures(4) == {"clips_per_s": 4.0, "data_wait": 0.0, "seconds_left": 1.0}


@pytest.mark.usefixtures("noise")
def test_figures_are_those_of_their_definitions(tmp_path: Path, world: Path) -> None:
    train(watched(tmp_path, world, checkpoint_every=1, keep=99), quiet=True)
    (line,) = [line for line in lines_of(tmp_path) if line["step"] == 9]
    assert (line["clips"], line["against"], line["why"]) == (VIDEOS, 7, {})
    index = build_index(world, 1)
    labels, groups = torch.tensor(index.labels), torch.tensor(index.group_numbers)
    for depth in (0, 4, 6):
        tokens, before = (
            torch.tensor(
                layerlock.embed(f"{tmp_path}@{step}", world, depth=depth, per="token", whiten=False, workers=0).features
            )
            for step in (9, 7)
        )
        now, then = tokens.mean(1), before.mean(1)
        share = np.linalg.svd(now.double().numpy(), compute_uv=False)
        share = share / share.sum()
        assert line["rankme"][depth] == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-3)
        alignment = Alignment(unbiased=True)
        alignment.add([now, then])
        assert line["cka"][depth] == pytest.approx(float(alignment.cka()[0, 1]), abs=1e-4)
        assert line["probe"][depth] == pytest.approx(
            float(probe_hits(over_time(standardized(tokens), GRID[0]), labels, groups).mean()), abs=0.06
        )
    assert line["cka"][0] == pytest.approx(1), "frozen at the switch"
    assert line["cka"][6] < 1


@pytest.mark.usefixtures("noise")
def test_references_that_no_checkpoint_needs_are_removed(tmp_path: Path, few: Path) -> None:
    train(watched(tmp_path, few, watch_every=1, checkpoint_every=2, keep=2), quiet=True)
    kept = sorted(path.name for path in (tmp_path / "watch").iterdir())
    assert kept == ["step-00000004.safetensors", "step-00000007.safetensors"], "at the last switch one was for step 6"


@pytest.mark.usefixtures("noise")
def test_an_error_in_the_figures_costs_them_alone(tmp_path: Path, few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no memory left")

    train(watched(tmp_path / "alone", None), quiet=True)
    monkeypatch.setattr(Watch, "figures", fail)
    train(watched(tmp_path / "watched", few), quiet=True)
    assert_same_run(tmp_path / "alone", tmp_path / "watched")
    warning = "warning: no figures of depths were computed: RuntimeError: no memory left"
    assert (tmp_path / "watched" / "events.log").read_text().count(warning) == 1


@pytest.mark.usefixtures("noise")
@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (None, "the videos have no classes"),
        ("a" * 8, "a probe needs two classes and two groups of videos"),
        ("a" * 7 + "b", "all videos that a probe would be fitted to are of one class"),
    ],
)
def test_without_two_classes_there_is_no_probe_but_a_reason(
    tmp_path: Path, world: Path, labels: str | None, why: str
) -> None:
    videos = sorted(world.rglob("*.mp4"))[:8]
    rows = [f"{video},{label}" for video, label in zip(videos, labels, strict=True)] if labels else map(str, videos)
    head = "file_name,label" if labels else "file_name"
    (tmp_path / "list.csv").write_text("\n".join([head, *rows]))
    train(watched(tmp_path / "run", tmp_path / "list.csv", watch_every=12), quiet=True)
    last = lines_of(tmp_path / "run")[-1]
    assert last["probe"] == [None] * DEPTHS
    assert last["why"] == {"probe": f"depth 0: {why}"}
    assert all(math.isfinite(value) for value in last["rankme"])


def test_of_features_that_do_not_vary_or_are_not_finite_there_are_reasons(tmp_path: Path, world: Path) -> None:
    watch = open_watch(watched(tmp_path, world), RunFolder(tmp_path), quiet=True)
    assert watch is not None
    x_vd = torch.randn(VIDEOS, 4, generator=torch.Generator().manual_seed(0))
    broken_vd = x_vd.index_fill(0, torch.tensor([3]), torch.nan)
    before = Reference(step=4, moment="switch", videos=watch.videos, features=[x_vd, x_vd, x_vd])
    features = [torch.zeros(VIDEOS, 4), broken_vd, x_vd]
    found = watch.figures(features, features, before)
    assert [value is None for value in found["cka"]] == [True, True, False]
    assert [value is None for value in found["rankme"]] == [True, True, False]
    assert found["why"]["cka"] == "depth 0: features do not vary"
    other = watch.figures([x_vd] * 3, [x_vd] * 3, replace(before, videos="others"))
    assert (other["cka"], other["why"]["cka"]) == ([None] * 3, "depth 0: other videos were watched before")


@pytest.mark.usefixtures("noise")
@pytest.mark.parametrize(
    ("count", "message"),
    [(0, r"run\.watch: .*no video"), (7, r"run\.watch: .*: 7 videos are too few; 8 are needed")],
)
def test_too_few_videos_are_refused_before_anything_is_written(
    tmp_path: Path, world: Path, count: int, message: str
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for video in sorted(world.rglob("*.mp4"))[:count]:
        (data / video.name).write_bytes(video.read_bytes())
    with pytest.raises(LayerlockError, match=message):
        train(watched(tmp_path / "run", data), quiet=True)
    assert not (tmp_path / "run" / "config.json").exists()
    with pytest.raises(LayerlockError, match=r"run\.watch: .*nowhere"):
        train(watched(tmp_path / "run", tmp_path / "nowhere"), quiet=True)
    with pytest.raises(ConfigError, match=r"run\.watch_every: 0 is not positive"):
        train(watched(tmp_path / "run", data, watch_every=0), quiet=True)


@pytest.mark.usefixtures("noise")
def test_the_report_draws_every_depth_over_steps(tmp_path: Path, few: Path) -> None:
    train(watched(tmp_path, few), quiet=True)
    page = "".join(chart_section(read_history(RunFolder(tmp_path), watched(tmp_path, few), {})))
    for title in ("RankMe of the features", "CKA to earlier features", "probe over time, %"):
        assert f"Chart of {title} over steps: input from" in page
    assert "No value (depth 0: there is no look before)." in page
