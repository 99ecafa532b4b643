"""The analysis by depth: figures of one pass are those of their definitions, and what is odd is told."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import CLIP, MODEL, config, run_config
from torch import Tensor

import layerlock
from layerlock.analyze.labelled import MEAN, ONE_PATCH, Labelled
from layerlock.analyze.metrics import LABELLED, POOLED
from layerlock.errors import ConfigError, LayerlockError
from layerlock.evaluation.intervals import Interval
from layerlock.features.neighbours import leave_one_out
from layerlock.measures.dimension import intrinsic_dimension
from layerlock.measures.similarity import Alignment
from layerlock.model.encoder import ClipShape, Encoder
from layerlock.train.loop import train

VIDEOS = 26
SHAPE = ClipShape(frames=8, stride=1, size=24)


def tiny_encoder(seed: int = 2) -> Encoder:
    """Six blocks, 36 tokens."""
    return Encoder.random(MODEL, SHAPE, seed=seed)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of each of the synthetic world's classes."""
    folder = tmp_path_factory.mktemp("world")
    layerlock.synth(folder, videos=VIDEOS, size=24, frames=10, workers=1)
    return folder


def analyze(encoders: Any, data: Path, out: Path, **changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"workers": 0, "device": "cpu", "precision": "fp32", "batch": 8, "quiet": True} | changes
    return layerlock.analyze_depth(encoders, data, out=out, **settings)


def values(found: dict[str, Any], metric: str, encoder: str | None = None) -> list[Any]:
    """Of one encoder, by depth."""
    encoder = encoder or found["encoders"][0]["name"]
    return [each["value"] for each in found["values"] if (each["metric"], each["encoder"]) == (metric, encoder)]


def a_map(found: dict[str, Any], name: str, rows: str, columns: str) -> np.ndarray:
    (only,) = [each for each in found["maps"] if (each["name"], each["rows"], each["columns"]) == (name, rows, columns)]
    return np.array(only["values"], dtype=float)


def pooled(encoder: Encoder, data: Path, depth: int) -> Tensor:
    return torch.from_numpy(layerlock.embed(encoder, data, depth=depth, whiten=False, workers=0, device="cpu").features)


def test_figures_are_those_of_their_definitions(world: Path, tmp_path: Path) -> None:
    encoder = tiny_encoder()
    found = analyze(encoder, world, tmp_path, batch=VIDEOS)
    name = found["encoders"][0]["name"]
    x, y = pooled(encoder, world, 3).double(), pooled(encoder, world, 4).double()
    share = np.linalg.eigvalsh(np.cov(x.numpy().T, bias=True)).clip(1e-15)
    share = share / share.sum()
    assert values(found, "effective rank")[3] == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-3)
    for map_name, unbiased in (("CKA", False), ("CKA, unbiased", True)):
        alike = a_map(found, map_name, name, name)
        alignment = Alignment(unbiased=unbiased)
        alignment.add([x, y])
        assert alike[3, 4] == pytest.approx(float(alignment.cka()[0, 1]), abs=1e-5)
        assert np.diag(alike) == pytest.approx(1)
    assert values(found, "CKA to the depth before")[4] == pytest.approx(alike[3, 4])
    for metric in ("CKA to the depth before", "displacement"):
        assert [value is None for value in values(found, metric)] == [True, *[False] * encoder.depth]
    labels = torch.tensor(layerlock.index(world).targets["label"].values).long()
    precision = leave_one_out(x.float(), labels).average_precision_q.mean()
    assert values(found, "retrieval mAP")[3] == pytest.approx(float(precision), abs=1e-6)
    assert found["clips"] == VIDEOS
    assert found["classes"] == 13


def test_ranks_do_not_depend_on_batches_or_on_other_encoders(world: Path, tmp_path: Path) -> None:
    one, other = tiny_encoder(), tiny_encoder(seed=3)
    one.name, other.name = "one", "other"
    together = analyze([one, other], world, tmp_path / "a", batch=5)
    alone = analyze(one, world, tmp_path / "b", batch=9)
    for metric in POOLED:
        assert values(together, metric.name, "one") == pytest.approx(values(alone, metric.name), rel=1e-6)
    assert values(together, "retrieval mAP", "one") == pytest.approx(values(alone, "retrieval mAP"))


def test_encoders_with_clips_of_their_own_are_compared(world: Path, tmp_path: Path) -> None:
    one = tiny_encoder()
    other = Encoder.random(one.vit.config, ClipShape(frames=4, stride=2, size=32), seed=1)
    one.name, other.name = "one", "other"
    found = analyze([one, other], world, tmp_path, clips=16)
    assert found["encoders"][0]["tokens"] != found["encoders"][1]["tokens"]
    assert a_map(found, "CKA", "one", "other").shape == (one.depth + 1, other.depth + 1)
    assert 0 < a_map(found, "CKA", "one", "other").min() <= 1
    assert found["clips"] == 16


def test_views_and_neighbours_have_their_figures(world: Path, tmp_path: Path) -> None:
    encoder = tiny_encoder()
    found = analyze(encoder, world, tmp_path, views=3, batch=9)
    assert all(1 <= value <= MODEL.width for value in values(found, "LiDAR"))
    dimension = intrinsic_dimension(pooled(encoder, world, 3))
    assert values(found, "intrinsic dimension")[3] == pytest.approx(dimension, rel=1e-3)
    assert "LiDAR" not in {metric["name"] for metric in analyze(encoder, world, tmp_path, clips=8)["metrics"]}


class Lit(Encoder):
    """An encoder whose features tell how much of a clip is not black, with a little of what it shows."""

    def forward_intermediates(self, video_btchw: Tensor, indices: Sequence[int], **options: Any) -> list[Tensor]:
        lit_b = (video_btchw != 0).flatten(1).float().mean(1)
        return [lit_b[:, None, None] + 0.01 * x for x in super().forward_intermediates(video_btchw, indices, **options)]


def test_occlusion_is_read_from_clips_of_one_patch(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patched = list[Tensor]()

    def drop(videos: Labelled) -> Interval:
        assert videos.features[MEAN].mean() > 0.9
        patched.append(videos.features[ONE_PATCH])
        return Interval(0.5)

    (metric,) = [each for each in LABELLED if each.name == "OccDrop"]
    monkeypatch.setitem(LABELLED, metric, (LABELLED[metric][0], drop))
    found = analyze(Lit.random(MODEL, SHAPE, seed=2), world, tmp_path, occlusion=True, clips=20)
    assert values(found, "OccDrop") == [0.5] * len(patched)
    assert [len(x_vd) for x_vd in patched] == [20] * (MODEL.depth + 1)
    assert float(patched[0].mean()) == pytest.approx(1 / 64, abs=0.02)
    assert "OccDrop" not in {metric["name"] for metric in analyze(tiny_encoder(), world, tmp_path)["metrics"]}


def test_the_files_hold_all_figures(world: Path, tmp_path: Path) -> None:
    found = analyze(tiny_encoder(), world, tmp_path, clips=12)
    assert json.loads((tmp_path / "depth.json").read_text()) == found
    rows = list(csv.DictReader((tmp_path / "depth.csv").read_text().splitlines()))
    cells = sum(len(row) for each in found["maps"] for row in each["values"])
    heads = sum(len(each.get("heads", ())) for each in found["values"])
    assert heads == 2 * MODEL.depth * MODEL.heads
    assert len(rows) == len(found["values"]) + heads + cells
    assert {row["metric"] for row in rows} >= {metric["name"] for metric in found["metrics"]}


class Constant:
    """An encoder whose features say nothing, as after a collapse."""

    name, clip, grid, depth, width = "constant", SHAPE, (2, 3, 3), 2, 5

    def prepare(self, device: object, compute: object) -> Constant:
        return self

    def forward_intermediates(self, video_btchw: Tensor, indices: list[int]) -> list[Tensor]:
        return [torch.ones(len(video_btchw), 18, 5) for _ in indices]


@pytest.mark.usefixtures("noise")
def test_checkpoints_of_a_run_are_analyzed_by_step(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train(config(Path("run"), clip=replace(CLIP, resize=1.0), run=run_config(keep=9)), quiet=True)
    found = analyze(["run", "random:run"], world, tmp_path / "out", steps="all", clips=8)
    moments = {one["name"]: (one["run"], one["step"]) for one in found["encoders"]}
    by_step = {f"run@{step}": ("run", step) for step in (4, 8, 12)}
    assert moments == by_step | {"random:run": (None, None)}
    assert len({tuple(values(found, "RankMe", name)) for name in moments}) == 4
    last = analyze("run", world, tmp_path / "last", clips=8)
    assert values(last, "RankMe") == pytest.approx(values(found, "RankMe", "run@12"))
    rows = list(csv.DictReader((tmp_path / "out" / "depth.csv").read_text().splitlines()))
    assert {(row["encoder"], row["step"]) for row in rows} == {(name, str(s or "")) for name, (_, s) in moments.items()}
    assert '<section id="steps">' in (tmp_path / "out" / "report.html").read_text()
    chosen = analyze("run", world, tmp_path / "chosen", steps=[8, 12], clips=8)
    assert [one["step"] for one in chosen["encoders"]] == [8, 12]
    with pytest.raises(LayerlockError, match="run: no checkpoint of step 5; there are those of steps 4, 8, 12"):
        analyze("run", world, tmp_path / "none", steps=[4, 5])


def test_of_constant_features_there_are_no_figures_but_reasons(world: Path, tmp_path: Path) -> None:
    found = analyze(Constant(), world, tmp_path, views=2)
    undefined = ("effective rank", "participation ratio", "alpha-ReQ", "intrinsic dimension", "LiDAR", "retrieval mAP")
    for metric in (*undefined, "CKA to the depth before"):
        each = [one for one in found["values"] if one["metric"] == metric]
        assert [one["value"] for one in each] == [None] * len(each)
        assert all(one["why"] for one in each)
    assert np.isnan(a_map(found, "explained", "constant", "constant")).all()
    reasons = [one["why"] for one in found["values"] if one["metric"] == "attention distance in frames"]
    assert reasons == ["there is no depth before", *["this encoder does not give its attention"] * 2]
    assert all(isinstance(value, float) for value in values(found, "token cosine"))


class Broken(Encoder):
    """An encoder whose features of some clips are not finite at one depth."""

    def forward_intermediates(self, video_btchw: Tensor, indices: Sequence[int], **options: Any) -> list[Tensor]:
        features = super().forward_intermediates(video_btchw, indices, **options)
        features[1:2] = [x_bnd.index_fill(0, torch.tensor([2]), torch.nan) for x_bnd in features[1:2]]
        return features


def test_a_clip_whose_features_are_not_finite_is_listed_and_does_not_count(world: Path, tmp_path: Path) -> None:
    encoder = Broken.random(MODEL, SHAPE, seed=2)
    found = analyze(encoder, world, tmp_path, batch=13)
    assert found["clips"] == VIDEOS - 2
    assert [why for _, why in found["skipped"]] == [f"the features of {encoder.name} after block 1 are not finite"] * 2
    assert None not in values(found, "effective rank")


class BrokenInTheDark(Encoder):
    """An encoder whose features of a clip that is black but for a patch are not finite."""

    def forward_intermediates(self, video_btchw: Tensor, indices: Sequence[int], **options: Any) -> list[Tensor]:
        black_b = (video_btchw == 0).flatten(1).float().mean(1)
        dark_b = (black_b > 0.9) & (black_b < 1)
        features = super().forward_intermediates(video_btchw, indices, **options)
        return [torch.where(dark_b[:, None, None], torch.nan, x_bnd) for x_bnd in features]


def test_a_clip_of_which_one_patch_gives_nothing_finite_does_not_count(world: Path, tmp_path: Path) -> None:
    dark = BrokenInTheDark.random(MODEL, SHAPE, seed=2)
    dark.name = "dark"
    assert analyze(dark, world, tmp_path / "whole")["clips"] == VIDEOS
    with pytest.raises(LayerlockError, match=r"0 of 26 videos could be used.*the features of dark after block 6"):
        analyze(dark, world, tmp_path / "one patch", occlusion=True)


def test_videos_without_a_class_are_no_class(world: Path, tmp_path: Path) -> None:
    videos = sorted(world.rglob("*.mp4"))[:12]
    rows = [f"{video},{'ab'[number % 2] if number < 8 else ''}" for number, video in enumerate(videos)]
    (tmp_path / "list.csv").write_text("\n".join(["file_name,label", *rows]))
    assert analyze(tiny_encoder(), tmp_path / "list.csv", tmp_path / "out")["classes"] == 2


def test_encoders_of_one_name_are_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is named twice"):
        analyze([tiny_encoder(), tiny_encoder()], world, tmp_path)


def test_a_file_that_cannot_be_decoded_is_listed_and_does_not_count(world: Path, tmp_path: Path) -> None:
    paths = sorted(world.rglob("*.mp4"))
    data = tmp_path / "data"
    for number, path in enumerate(paths[:12]):
        copy = data / f"{number:02}.mp4"
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes() if number else path.read_bytes()[: path.stat().st_size // 2])
    found = analyze(tiny_encoder(), data, tmp_path / "out")
    assert found["clips"] == 11
    assert found["classes"] is None
    assert "linear probe" not in {metric["name"] for metric in found["metrics"]}


def test_one_class_has_no_probe_and_says_why(world: Path, tmp_path: Path) -> None:
    videos = sorted(world.rglob("*.mp4"))[:8]
    rows = [f"{video},same" for video in videos]
    (tmp_path / "list.csv").write_text("\n".join(["file_name,label", *rows]))
    found = analyze(tiny_encoder(), tmp_path / "list.csv", tmp_path / "out")
    (why,) = {each["why"] for each in found["values"] if each["metric"] == "linear probe"}
    assert why == "a probe needs two classes and two groups of videos"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoders": ()}, "encoders: none is named"),
        ({"encoders": ("random:nano", "random:nano")}, "encoders: random:nano is named twice"),
        ({"clips": 7}, "clips: 7 are too few"),
        ({"views": 1}, "views: 1: LiDAR needs two views"),
        ({"ladder": -1}, "ladder: -1 is negative"),
        ({"batch": 3, "workers": -1}, r"2 problems:\n.*batch: 3.*\n.*workers: -1 is negative"),
        ({"precision": "int8"}, "precision: 'int8'"),
        ({"data": ""}, "data: empty"),
        ({"steps": ()}, "steps: none is named"),
        ({"steps": "last"}, "steps: 'last' is not"),
        ({"steps": "all"}, "steps: none of the encoders is a run folder with checkpoints"),
        ({"depths": 3}, "an analysis by depth has no field depths"),
        ({"encoders": ("nowhere",)}, "'nowhere' is no encoder"),
    ],
)
def test_what_cannot_be_analyzed_is_said(world: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    settings: dict[str, Any] = {
        "encoders": ("random:nano",),
        "data": world,
        "out": tmp_path,
        "device": "cpu",
        "quiet": True,
    } | changes
    with pytest.raises((ConfigError, LayerlockError), match=message):
        layerlock.analyze_depth(**settings)


def test_few_videos_are_too_few(world: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for path in sorted(world.rglob("*.mp4"))[:3]:
        (data / path.name).write_bytes(path.read_bytes())
    with pytest.raises(LayerlockError, match="3 videos are too few"):
        analyze(tiny_encoder(), data, tmp_path / "out")
