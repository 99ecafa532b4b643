"""Studies: what they train, how figures of several seeds become one, and that a stopped one goes on."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

import layerlock
from layerlock import api, cli
from layerlock.analyze.depth import DepthConfig
from layerlock.errors import LayerlockError
from layerlock.learn.plan import timeline
from layerlock.recipes import recipe
from layerlock.studies import study
from layerlock.studies.blockwise import BASELINE, PARTS, arms
from layerlock.studies.study import RANDOM, StudyConfig, run_study, summary_of


@pytest.mark.parametrize("scale", PARTS)
def test_arms_are_the_regimes_with_the_same_passes_over_the_data_but_for_the_papers_sequential_one(scale: str) -> None:
    base = replace(recipe(f"blockwise-{scale}"), steps=120)
    found = arms(base, PARTS[scale])
    assert len(found) == 1 + 4 * len(PARTS[scale])
    for name, config in found.items():
        stages = timeline(config.check(None), config.steps)
        parts = int(name.split(", ")[1].split()[0]) if "," in name else 1
        whole = name.startswith("sequential") and "matched" not in name
        assert config.steps == 120 * (parts if whole else 1)
        assert len(stages) == (parts if name.startswith("sequential") else 1)
        depths = [tap.depth for _, stage in stages for tap in stage.taps]
        assert depths == sorted(set(depths))
        assert depths[-1] == base.model.depth
        assert len(depths) == parts
        last = stages[-1][1]
        assert all(tap.detach for tap in last.taps) == name.startswith("simultaneous")
        warm_up = config.optim.warmup * config.steps / (1 if len(stages) == 1 else parts)
        if whole:
            assert warm_up == pytest.approx(base.optim.warmup * base.steps / parts)


def figures(**value_of: float | None) -> dict[str, Any]:
    """Those of one seed, at depths 0 and 1."""
    return {
        "data": "videos",
        "clips": 8,
        "classes": 2,
        "skipped": [],
        "encoders": [{"name": name, "depths": [0, 1]} for name in value_of],
        "metrics": [{"name": "probe", "better": "higher"}, {"name": "rank", "better": None}],
        "values": [
            {"encoder": name, "depth": depth, "metric": metric, "value": value and value + depth, "why": "no classes"}
            for name, value in value_of.items()
            for depth in (0, 1)
            for metric in ("probe", "rank")
        ],
        "maps": [
            {"name": "CKA", "about": "", "rows": name, "columns": name, "values": [[1.0, value], [None, value]]}
            for name, value in value_of.items()
        ],
    }


def test_figures_of_seeds_become_their_mean_and_range_and_leads_are_within_a_seed() -> None:
    other = "sequential, 2 parts"
    seeds = [figures(**{BASELINE: 0.25, other: 0.5}), figures(**{BASELINE: 0.5, other: 0.25})]
    seeds.append(figures(**{BASELINE: 1.0, other: None}))
    found = summary_of(seeds)
    value_of = {(one["encoder"], one["depth"], one["metric"]): one for one in found["values"]}
    assert len(value_of) == len(found["values"]) == 8
    base, behind = value_of[BASELINE, 1, "probe"], value_of[other, 0, "rank"]
    assert (base["value"], base["low"], base["high"]) == (pytest.approx(4.75 / 3), 1.25, 2.0)
    assert (behind["value"], behind["low"], behind["high"]) == (0.375, 0.25, 0.5)
    assert (base["seeds"], base["why"]) == (3, "")
    assert (behind["seeds"], behind["why"]) == (2, "of 2 of 3 seeds: no classes")
    assert found["leads"] == [{"arm": other, "metric": "probe", "mean": 0.0, "leads": [0.25, -0.25]}]
    (first, second) = found["maps"]
    assert first["values"] == [[1.0, pytest.approx(1.75 / 3)], [None, pytest.approx(1.75 / 3)]]
    assert second["values"] == [[1.0, 0.375], [None, 0.375]]
    one_seed = summary_of([figures(**{BASELINE: None}), figures(**{BASELINE: 0.5})])["values"][0]
    assert (one_seed["value"], one_seed["low"], one_seed["high"], one_seed["why"]) == (
        0.5,
        0.5,
        0.5,
        "of 1 of 2 seeds: no classes",
    )
    unknown = summary_of([figures(**{BASELINE: None})])["values"][0]
    assert (unknown["value"], unknown["low"], unknown["high"], unknown["why"]) == (None, None, None, "no classes")


@pytest.mark.usefixtures("threads")
def test_a_study_trains_compares_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "_report", lambda outcome: None)  # a page of each run, which takes longer than all else
    world = tmp_path / "world"
    layerlock.synth(world, videos=26, seed=3, size=40, frames=16, workers=1)
    out = tmp_path / "study"
    config = StudyConfig(
        data=str(world),
        probe=str(world),
        out=str(out),
        seeds=(0,),
        steps=2,
        parts=(2,),
        device="cpu",
        workers=0,
        threads=1,
    )
    found = run_study(config, quiet=True)
    assert found["signal"] is None
    assert [one["name"] for one in found["encoders"]] == [RANDOM, *arms(recipe("blockwise-nano"), (2,))]
    rows = list(csv.DictReader((out / "study.csv").read_text().splitlines()))
    assert {row["arm"] for row in rows} == {one["name"] for one in found["encoders"]}
    assert all(math.isfinite(float(row["value"])) for row in rows if row["metric"] == "linear probe")
    assert "the range over 1 seeds" in (out / "report.html").read_text()
    before = {path: path.stat().st_mtime_ns for path in out.glob("seed-0/*/checkpoints/*/*")}
    assert before
    with pytest.raises(SystemExit) as ended:
        cli.main(
            f"study blockwise --data {world} --probe {world} --out {out} --seeds 0 --steps 2 --parts 2 --device cpu "
            "--workers 0 --threads 1".split()
        )
    assert ended.value.code == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("seed-0/*/checkpoints/*/*")} == before
    assert json.loads((out / "study.json").read_text())["values"] == found["values"]
    printed = capsys.readouterr().out
    assert "deep supervision, 2 parts" in printed
    assert "linear probe" in printed


def test_the_band_of_a_mean_over_heads_is_that_of_the_heads() -> None:
    def attention(*heads: float) -> dict[str, Any]:
        found = figures(**{BASELINE: sum(heads) / 2})
        return found | {"values": [one | {"heads": list(heads)} for one in found["values"][:1]]}

    (value,) = summary_of([attention(1.0, 5.0), attention(3.0, 9.0)])["values"]
    assert (value["heads"], value["low"], value["value"], value["high"]) == ([2.0, 7.0], 2.0, 4.5, 7.0)


def test_encoders_are_compared_again_where_one_or_the_videos_are_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []

    def analysed(config: DepthConfig, *, quiet: bool) -> dict[str, Any]:
        Path(config.out).mkdir(parents=True, exist_ok=True)
        found: dict[str, Any] = {"encoders": [], "values": [], "maps": []}
        (Path(config.out) / "depth.json").write_text(json.dumps(found))
        compared.append(config.seed)
        return found

    monkeypatch.setattr(api, "pretrain", lambda config, **_: SimpleNamespace(signal=None))
    monkeypatch.setattr(api, "run_analysis", analysed)
    index, videos = MagicMock(), SimpleNamespace(fingerprint="videos", target_fingerprint="classes")
    index.__len__.return_value = 8
    monkeypatch.setattr(study, "build_index", lambda *_, **__: index)
    monkeypatch.setattr(study, "FolderSource", lambda *_, **__: videos)
    monkeypatch.setattr(study, "summary_of", lambda found: {})
    monkeypatch.setattr(study, "_write", lambda summary, folder: None)
    config = StudyConfig(data="synthetic", probe="videos", out=str(tmp_path), seeds=(0, 1))
    run_study(config, quiet=True)
    run_study(config, quiet=True)
    assert compared == [0, 1, 0, 1]
    monkeypatch.setattr(study, "_train", lambda config, quiet: None)
    run_study(config, quiet=True)
    assert compared == [0, 1, 0, 1], "nothing was trained"
    videos.target_fingerprint = "other classes"
    run_study(config, quiet=True)
    assert compared == [0, 1] * 3


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"seeds": ()}, "seeds: empty"),
        ({"seeds": (1, 1)}, "seeds: one is named twice"),
        ({"probe": ""}, "probe: empty"),
        ({"parts": (1,)}, "parts: 1 of 8 blocks"),
        ({"parts": (9,)}, "parts: 9 of 8 blocks"),
        ({"steps": 0}, "steps: 0 is not positive"),
        ({"steps": 2, "parts": (2, 3)}, r"optim\.cycles: 3 do not fit in 2 steps"),
        ({"clips": 4}, "clips: 4 are too few"),
        ({"ladder": -1}, "ladder: -1 is negative"),
        ({}, "videos: there is no such folder"),
    ],
)
def test_what_cannot_be_studied_is_said_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    config = StudyConfig(**{"data": "synthetic", "probe": "videos", "out": str(tmp_path / "out")} | changes)
    with pytest.raises(LayerlockError, match=problem):
        run_study(config, quiet=True)
    assert not (tmp_path / "out").exists()
