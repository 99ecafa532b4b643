"""Whole evaluations: from the command to the report, stopped and gone on with, and on data that are not as they should
be.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluations import settings, tiny_encoder
from PIL import Image
from safetensors.torch import load_file

import layerlock
from layerlock import cli, show
from layerlock.api import run_evaluation
from layerlock.data import ClipConfig, collate, crop_and_flip, open_source
from layerlock.data.decode.video import UnreadableVideo
from layerlock.data.folder import FolderSource
from layerlock.data.synth import SynthConfig, depth_path, write_videos
from layerlock.encoders.checks import fingerprint
from layerlock.errors import ConfigError, LayerlockError
from layerlock.evaluation import score as scoring
from layerlock.evaluation import words
from layerlock.evaluation.config import EvaluateConfig
from layerlock.evaluation.intervals import Interval
from layerlock.evaluation.results import Evaluation, Row
from layerlock.evaluation.run import evaluate
from layerlock.evaluation.sweep import Sweep
from layerlock.evaluation.tasks.retrieval import RetrievalTask
from layerlock.features.clips import SpreadViews
from layerlock.features.store import Array
from layerlock.lock import FolderLock
from layerlock.model.encoder import Encoder
from layerlock.report.evaluation import write_evaluation


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty videos of the synthetic world, with depth."""
    out = tmp_path_factory.mktemp("world")
    write_videos(out, SynthConfig(videos=60, size=32, frames=12), workers=1)
    return out


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder().save_pretrained(tmp_path_factory.mktemp("encoder") / "tiny")


def run(out: Path, data: Path, encoder: Path, *, resume: bool = False, **changes: Any) -> Evaluation:
    return evaluate(settings(out, data=str(data), encoder=str(encoder), **changes), resume=resume, quiet=True)


def figures(found: Evaluation) -> Any:
    return found.rows, found.sweep, found.best, found.confusion, found.left_out


def test_the_command_evaluates_actions_and_writes_a_report(
    tmp_path: Path, world: Path, encoder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(show, "WIDEST", 400)  # the head of the table in one line
    out = tmp_path / "out"
    arguments = f"evaluate {encoder} --task action --data {world} --out {out} --depths 0.5,1.0 --lrs 1e-3,3e-3"
    arguments += " --channels 16 --heads 2 --examples 48 --batch 8 --workers 0 --device cpu --precision fp32"
    with pytest.raises(SystemExit) as end:
        cli.main(arguments.split())
    said = capsys.readouterr().out
    assert end.value.code == 0
    baselines = ("random weights", "raw pixels", "frame differences", "motion statistics", "most frequent class")
    for name in (*baselines, "attention", "linear", "solved"):
        assert name in said
    results = json.loads((out / "results.json").read_text())
    assert len(results["rows"]) == 4 * 3 + 1 + 1
    assert len(results["sweep"]) == 2 * (4 + 4 + 2 + 2) + (2 + 2 + 1 + 1) + 1
    mean = {(row["encoder"], row["kind"]): row["metrics"]["top-1"]["mean"] for row in results["rows"]}
    for row in results["rows"]:
        rivals = [name for name in baselines if name != "motion statistics" or row["kind"] == "solved"]
        assert list(row["ahead"]) == ([] if row["baseline"] else rivals)
        for rival, lead in row["ahead"].items():
            kind = "constant" if rival == rivals[-1] else row["kind"]
            assert lead["mean"] == pytest.approx(mean[row["encoder"], row["kind"]] - mean[rival, kind])
            assert (rival in row["not_above"]) == (lead["low"] <= 0)
            assert not row["undecided"]
            includes = lead["low"] <= 0 <= lead["high"]
            word = "different from" if includes else "better than" if lead["low"] > 0 else "worse than"
            verdict = f"interval (of all leads at once) {'includes' if includes else 'excludes'} zero."
            assert verdict in " ".join(said.split())
            assert re.search(rf"\({row['kind']}\): top-1 (not )?significantly {word} [^\n]*{rival} \(by ", said)
    _, by_block = said.split("top-1 of the test split by block\n")
    head, *lines = (re.split(r"  +", line.strip()) for line in by_block.splitlines()[:3])
    assert head[0] == "block"
    assert [line[0] for line in lines] == ["3", "6"]
    column = {kind: head.index(f"random weights, {kind}") for kind in ("attention", "linear", "solved")}
    for one in results["sweep"]:
        if one["metrics"] and one["encoder"] == "random weights":
            mean, low, high = (100 * one["metrics"]["top-1"][end] for end in ("mean", "low", "high"))
            line = lines[(3, 6).index(one["block"])]
            assert line[column[one["kind"]]] == f"{mean:.1f} [{low:.1f}, {high:.1f}]"
    assert sum(results["data"]["videos"].values()) == 60
    assert results["data"]["groups"] == results["data"]["videos"]
    assert "Groups: none: videos are treated as independent" in said.replace("\n", " ")
    page = (out / "report.html").read_text()
    assert page.count("<img") >= 8 + 2 + 1 + 2
    assert "By depth" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    with pytest.raises(SystemExit) as again:
        cli.main(arguments.split())
    assert again.value.code == 2
    assert "an evaluation is there already" in capsys.readouterr().err


def test_the_best_rate_of_every_block_on_the_validation_split_is_tested(
    tmp_path: Path, world: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, tuple[str, ...]] = {}
    original = scoring.score_readouts

    def watched(setup: Any, sweep: Sweep, members: Any, role: str) -> scoring.Scores:
        told[role] = tuple(map(str, members))
        return original(setup, sweep, members, role)

    monkeypatch.setattr("layerlock.evaluation.run.score_readouts", watched)
    found = run(tmp_path / "out", world, encoder, baselines="no")
    validation = load_file(tmp_path / "out" / "validation.safetensors")
    for row in (row for row in found.rows if not row.baseline):
        group = [name for name in told["validation"] if f"/{row.kind}/" in name]
        count = found.data["videos"]["validation"]
        score = {name: validation[f"score:{name}"][:count, 0].mean().item() for name in group}
        assert row.validation == max(score.values()) == score[f"encoder/{row.kind}/{row.block}/{row.lr or 0:g}"]
    assert len(told["validation"]) == 8 + 2
    best = {(one.kind, one.block): one for one in sorted(found.sweep, key=lambda one: (one.score, -(one.lr or 0)))}
    assert len(best) == 4 + 2
    assert set(told["test"]) == {f"encoder/{one.kind}/{one.block}/{one.lr or 0:g}" for one in best.values()}
    test = load_file(tmp_path / "out" / "test.safetensors")
    for one in found.sweep:
        if one is best[one.kind, one.block]:
            score_v = test[f"score:encoder/{one.kind}/{one.block}/{one.lr or 0:g}"][: found.data["videos"]["test"], 0]
            assert one.metrics["top-1"].mean == pytest.approx(score_v.mean().item())
        else:
            assert not one.metrics
    for row in found.rows[:-1]:
        (same,) = (one for one in found.sweep if one.metrics and (one.kind, one.block) == (row.kind, row.block))
        assert row.metrics == same.metrics
    assert found.rows[-1].encoder == "most frequent class"


@pytest.mark.parametrize("at", [2, 4, 5], ids=["before a checkpoint", "at one", "after one"])
def test_an_evaluation_that_dies_goes_on_exactly(
    tmp_path: Path, world: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    changes: dict[str, Any] = {"checkpoint_every": 2, "readout": "attention", "baselines": "no", "task": "depth"}
    whole = run(tmp_path / "whole", world, encoder, **changes)
    original = Sweep.train_step

    def dying(self: Sweep, *given: Any) -> Any:
        if self.step == at:
            raise KeyboardInterrupt
        return original(self, *given)

    monkeypatch.setattr(Sweep, "train_step", dying)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", world, encoder, **changes)
    monkeypatch.undo()
    gone_on = run(tmp_path / "cut", world, encoder, resume=True, **changes)
    assert figures(gone_on) == figures(whole)
    a, b = (load_file(tmp_path / name / "readouts.safetensors") for name in ("whole", "cut"))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_signal_saves_and_ends_with_its_number_and_done_splits_are_not_repeated(
    tmp_path: Path, world: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Sweep.train_step

    def signalled(self: Sweep, *given: Any) -> Any:
        if self.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *given)

    monkeypatch.setattr(Sweep, "train_step", signalled)
    stopped = run(tmp_path / "out", world, encoder, baselines="no")
    assert stopped.signal == signal.SIGTERM
    assert not (tmp_path / "out" / "results.json").exists()
    monkeypatch.undo()
    steps: list[int] = []
    monkeypatch.setattr(Sweep, "train_step", lambda self, *given: steps.append(self.step) or original(self, *given))
    done = run(tmp_path / "out", world, encoder, baselines="no", resume=True)
    assert steps == [3, 4, 5]
    again = run(tmp_path / "out", world, encoder, baselines="no", resume=True)
    assert len(steps) == 3
    assert figures(again) == figures(done)


def test_a_scoring_that_dies_goes_on_from_its_batches(
    tmp_path: Path, world: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "SAVE_EVERY", 1)
    whole = run(tmp_path / "whole", world, encoder, baselines="no", batch=4)
    original, scored = scoring._score, list[int]()

    def dying(*given: Any) -> Any:
        scored.append(1)
        if len(scored) == 3:
            raise KeyboardInterrupt
        return original(*given)

    monkeypatch.setattr(scoring, "_score", dying)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", world, encoder, baselines="no", batch=4)
    assert figures(run(tmp_path / "cut", world, encoder, baselines="no", batch=4, resume=True)) == figures(whole)
    splits = whole.data["videos"]
    assert len(scored) == -(-splits["validation"] // 4) + -(-splits["test"] // 4) + 1


def test_a_second_evaluation_of_a_folder_is_refused_by_the_name_of_the_first(
    tmp_path: Path, world: Path, encoder: Path
) -> None:
    run(tmp_path, world, encoder, baselines="no")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with FolderLock(tmp_path):
        for how in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(LayerlockError, match=rf"in use by .*process {os.getpid()}, since"):
                evaluate(settings(tmp_path, data=str(world), encoder=str(encoder), baselines="no"), quiet=True, **how)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_evaluation_goes_on_where_its_data_and_its_encoder_were_moved(
    tmp_path: Path, world: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole", world, encoder, baselines="no", readout="linear")
    original = Sweep.train_step

    def dying(self: Sweep, *given: Any) -> Any:
        if self.step == 3:
            raise KeyboardInterrupt
        return original(self, *given)

    monkeypatch.setattr(Sweep, "train_step", dying)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", world, encoder, baselines="no", readout="linear", checkpoint_every=2)
    monkeypatch.undo()
    shutil.copytree(world, tmp_path / "moved")
    shutil.copytree(encoder, tmp_path / "encoder")
    (next((tmp_path / "moved").rglob("*.mp4"))).unlink()
    readouts = (tmp_path / "cut" / "readouts.safetensors").read_bytes()
    how = {"baselines": "no", "readout": "linear", "resume": True}
    with pytest.raises(ConfigError, match="videos of the data: it was"):
        run(tmp_path / "cut", tmp_path / "moved", tmp_path / "encoder", **how)
    assert (tmp_path / "cut" / "readouts.safetensors").read_bytes() == readouts
    shutil.copytree(world, tmp_path / "moved", dirs_exist_ok=True)
    again = run(tmp_path / "cut", tmp_path / "moved", tmp_path / "encoder", **how)
    assert again.sweep == whole.sweep
    assert [row.metrics for row in again.rows] == [row.metrics for row in whole.rows]
    second = run(tmp_path / "whole", tmp_path / "moved", encoder, **how)
    assert second.sweep == whole.sweep
    assert all(clip.name.startswith(str(tmp_path / "moved")) for clip in second.best)


def test_cached_features_give_what_decoding_gives_and_are_used_again(
    tmp_path: Path, world: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = run(tmp_path / "plain", world, encoder, augment="no")
    cached = run(tmp_path / "cached", world, encoder, augment="no", cache=True)
    assert figures(cached) == figures(plain)

    def never(*given: Any) -> None:
        raise AssertionError("a feature was computed again")

    monkeypatch.setattr(Array, "put", never)
    longer = run(tmp_path / "longer", world, encoder, augment="no", cache=True, examples=64)
    assert longer.sweep != cached.sweep
    other = tiny_encoder(seed=9)
    with pytest.raises(AssertionError, match="computed again"):
        evaluate(settings(tmp_path / "other", data=str(world), augment="no", cache=True), other, quiet=True)


def test_cached_features_stay_as_they_are_when_more_are_asked_for(
    tmp_path: Path, world: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {"augment": "no", "cache": True, "baselines": "no", "readout": "linear", "seed": 3}
    monkeypatch.setenv("LAYERLOCK_CACHE", str(tmp_path / "cache"))
    gone = run(tmp_path / "first", world, encoder, depths=(0.5,), **changes)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").glob("features/*/rows.npy")}
    assert len(before) == 2
    run(tmp_path / "second", world, encoder, depths=(0.5, 1.0), **changes)
    after = {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").glob("features/*/rows.npy")}
    assert len(after) == 3
    assert before.items() <= after.items()
    assert gone.left_out == ()
    small = {
        **changes,
        "seed": 4,
        "depths": (0.5,),
    }  # other splits, so other features, with room for one set
    kept = {file: file.stat().st_size for file in (tmp_path / "cache").glob("features/*/*")}
    run(tmp_path / "third", world, encoder, cache_gb=1.2 * sum(kept.values()) / 1e9, **small)
    assert not set(kept) <= set((tmp_path / "cache").glob("features/*/*")), "those of the first evaluations made room"
    with pytest.raises(LayerlockError, match=r"more than --cache-gb 1e-09"):
        run(tmp_path / "fourth", world, encoder, cache_gb=1e-9, **{**small, "seed": 5})


def test_cached_features_are_of_these_pictures(tmp_path: Path, encoder: Path) -> None:
    changes: dict[str, Any] = {"task": "depth", "readout": "linear", "baselines": "no", "augment": "no"}
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        scene = write_scene(tmp_path / place / "room", range(0))
        if place == "b":
            for picture in scene.glob("*.color.png"):
                Image.fromarray(np.full((24, 32, 3), (200, 0, 90), np.uint8)).save(picture)
        cached = run(tmp_path / f"{place} cached", tmp_path / place, encoder, cache=True, **changes)
        assert figures(cached) == figures(run(tmp_path / f"{place} plain", tmp_path / place, encoder, **changes))


def test_what_a_cache_lacks_is_named_by_later_runs_too(tmp_path: Path, encoder: Path) -> None:
    paths = write_videos(tmp_path / "world", SynthConfig(videos=30, size=32, frames=12), workers=1)
    for path in paths[::2]:
        depth_path(path).unlink()
    changes: dict[str, Any] = {"task": "depth", "readout": "linear", "baselines": "no", "augment": "no"}
    first, second = (
        run(tmp_path / name, tmp_path / "world", encoder, cache=True, **changes) for name in ("first", "second")
    )
    assert len(first.left_out) == 15
    assert second.left_out == first.left_out


def test_weights_alone_do_not_make_an_encoder() -> None:
    encoder = tiny_encoder()
    config = encoder.vit.config
    other = Encoder(replace(config, mean=(0.5, 0.5, 0.5)), encoder.clip)
    other.load_state_dict(encoder.state_dict())
    assert fingerprint(other) != fingerprint(encoder)
    assert fingerprint(tiny_encoder()) == fingerprint(encoder)


def test_data_that_cannot_be_read_cost_no_results(tmp_path: Path, world: Path, encoder: Path) -> None:
    out, changes = tmp_path / "out", {"encoder": str(encoder), "readout": "linear", "baselines": "no"}
    wrong, right = settings(out, **changes), settings(out, data=str(world), **changes)
    with pytest.raises(LayerlockError, match="nowhere"):
        evaluate(wrong, quiet=True)
    evaluate(right, quiet=True)
    with pytest.raises(LayerlockError, match="nowhere"):
        evaluate(wrong, overwrite=True, quiet=True)
    assert (out / "results.json").exists()


def test_depth_of_the_synthetic_world(tmp_path: Path, world: Path, encoder: Path) -> None:
    config = vars(settings(examples=80, task="depth", out=tmp_path / "out"))
    chosen = {name: config[name] for name in ("task", "out", "depths", "lrs", "channels", "heads", "workers", "batch")}
    chosen |= {"out": tmp_path / "out", "depths": list(chosen["depths"])}
    found = layerlock.evaluate(encoder, world, examples=80, device="cpu", quiet=True, **chosen)
    assert [row.encoder for row in found.rows][-1] == "mean depth image"
    assert found.metric == "AbsRel"
    assert not found.higher_is_better
    for row in found.rows[:2]:
        own = [swept.score for swept in found.sweep if (swept.encoder, swept.kind) == ("encoder", row.kind)]
        assert row.validation == min(own)
    shown = load_file(tmp_path / "out" / "gallery.safetensors")
    assert shown["predicted"].shape == shown["true"].shape == (8, 4, 24, 24)
    page = (tmp_path / "out" / "report.html").read_text()
    for said in ("measured", "predicted"):
        assert re.search(rf"{said} depth, bright [\d.]+ to dark [\d.]+ m\b", page)


def write_scene(folder: Path, unmeasured: range) -> Path:
    """Sixty frames of colour and depth."""
    folder.mkdir()
    for number in range(60):
        Image.fromarray(np.full((24, 32, 3), 4 * number, np.uint8)).save(folder / f"frame-{number:06d}.color.png")
        depth = np.full((12, 16), 0 if number in unmeasured else 1000 + 10 * number, np.uint16)
        Image.fromarray(depth).save(folder / f"frame-{number:06d}.depth.png")
    return folder


def test_one_scene_of_colour_and_depth_is_cut_in_time(tmp_path: Path, encoder: Path) -> None:
    changes: dict[str, Any] = {"task": "depth", "readout": "linear", "baselines": "no", "test_share": 0.28}
    found = run(tmp_path / "out", write_scene(tmp_path / "part", range(43, 51)), encoder, **changes)
    assert "cut in time" in found.data["splits"]
    assert found.data["videos"] == {"train": 1, "validation": 1, "test": 2}
    assert found.left_out == (
        (f"{tmp_path / 'part'}, frames 43 to 50", "nothing to measure: its clip has no known target"),
    )
    assert {clip.video for clip in (*found.best, *found.worst)} == {1}
    with pytest.raises(LayerlockError, match=r"none of 2 videos of the test split could be scored.*nothing to measure"):
        run(tmp_path / "none", write_scene(tmp_path / "whole", range(43, 60)), encoder, **changes)


@pytest.mark.parametrize("augment", ["yes", "no"])
def test_a_training_split_without_depth_teaches_nothing(tmp_path: Path, encoder: Path, augment: str) -> None:
    for split, empty in (("train", range(60)), ("val", range(0)), ("test", range(0))):
        (tmp_path / "data" / split).mkdir(parents=True)
        write_scene(tmp_path / "data" / split / "room", empty)
    with pytest.raises(LayerlockError, match="no clip of the training split has a known depth"):
        run(
            tmp_path / "out",
            tmp_path / "data",
            encoder,
            task="depth",
            readout="linear",
            baselines="no",
            augment=augment,
        )


def test_an_evaluation_that_failed_before_its_first_checkpoint_is_not_in_the_way(
    tmp_path: Path, world: Path, encoder: Path
) -> None:
    for split in ("train", "val", "test"):
        (tmp_path / "data" / split).mkdir(parents=True)
        write_scene(tmp_path / "data" / split / "room", range(60) if split == "train" else range(0))
    out, changes = tmp_path / "out", {"readout": "linear", "baselines": "no"}
    for _ in range(2):
        with pytest.raises(LayerlockError, match="no clip of the training split has a known depth"):
            run(out, tmp_path / "data", encoder, task="depth", **changes)
    assert (out / "evaluation.json").exists()
    assert run(out, world, encoder, task="action", **changes).rows
    with pytest.raises(LayerlockError, match="is there already"):
        run(out, world, encoder, task="action", **changes)


def test_few_test_clips_prove_nothing(tmp_path: Path, encoder: Path) -> None:
    scene = write_scene(tmp_path / "scene", range(0))
    found = run(tmp_path / "out", scene, encoder, task="depth", readout="linear", baselines="no", examples=160)
    assert found.data["videos"]["test"] == 1
    assert any("could be scored: 1; fewer than 10 are too few for a verdict" in note for note in found.data["notes"])
    read, constant = found.rows
    assert read.not_above == read.undecided == ("mean depth image",)
    assert not read.metrics["AbsRel"].known
    assert "[no interval]" in words.table(found)[1][0][-3]
    assert ": fewer than 10 groups of test videos." in words.verdicts(found)[0]
    told = json.loads(found.save().read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert told["rows"][0]["metrics"]["AbsRel"]["low"] is None
    lead = read.ahead["mean depth image"].mean
    assert lead == pytest.approx(constant.metrics["AbsRel"].mean - read.metrics["AbsRel"].mean)
    assert lead > 0, "a smaller error is a lead"


def test_leads_are_told_apart_in_words() -> None:
    leads = {
        "random weights": Interval(0.094, 0.056, 0.131),
        "raw pixels": Interval(-0.05, -0.09, 0.001),
        "frame differences": Interval(-0.05, -0.09, -0.001),
    }
    figures_of = {"metrics": {"top-1": Interval(0.48, 0.44, 0.52)}, "validation": 0.5}
    ours = Row(encoder="encoder", kind="linear", baseline=False, ahead=leads, not_above=tuple(leads)[1:], **figures_of)
    other = Row(encoder="random weights", kind="linear", baseline=True, **figures_of)
    counts = {"train": 3, "validation": 2, "test": 1}
    data = {"layout": "l", "splits": "p", "videos": counts, "grouping": "g", "groups": counts, "notes": []}
    found = Evaluation(
        out="", encoder="mine", task="action", metric="top-1", higher_is_better=True, percent=("top-1",), data=data
    )
    mine = "mine (linear): top-1"
    assert words.verdicts(replace(found, rows=(ours, other))) == [
        f"! {mine} significantly worse than frame differences (by -5.0 [-9.0, -0.1]): the 95 % interval excludes zero.",
        f"! {mine} not significantly different from raw pixels (by -5.0 [-9.0, 0.1]): the 95 % interval includes zero.",
        f"{mine} significantly better than random weights (by 9.4 [5.6, 13.1]): the 95 % interval excludes zero.",
    ]
    assert words.table(replace(found, rows=(ours, other)))[1][0][0] == "mine !"
    few = words.verdicts(replace(found, rows=(replace(ours, undecided=tuple(leads)), other)))
    assert len(few) == 1
    assert few[0].startswith(
        "! mine (linear): top-1 no verdict on the lead over random weights (by 9.4 [5.6, 13.1]), raw pixels"
    )
    several = words.verdicts(replace(found, compared=3, rows=(ours, other)))
    assert all("the 95 % interval (of all leads at once)" in said for said in several)
    assert "leads over baselines" in words.sentences(replace(found, rows=(ours, other)))[1]
    assert "leads" not in words.sentences(replace(found, rows=(other,)))[1]


def test_groups_are_cut_whole_and_stand_in_the_results(tmp_path: Path, world: Path, encoder: Path) -> None:
    videos = sorted(world.glob("*/*.mp4"))[:48]
    for number, video in enumerate(videos):
        name = "Ab"[number % 2]
        (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
        place = tmp_path / "data" / name / f"v_{name}_g{number // 8:02d}_c{number % 8:02d}.mp4"
        place.symlink_to(video)
    changes: dict[str, Any] = {"readout": "linear", "baselines": "no", "lrs": (1e-3,)}
    found = run(tmp_path / "out", tmp_path / "data", encoder, **changes)
    assert found.data["grouping"] == "names as in UCF101"
    assert found.data["videos"] == {"train": 32, "validation": 8, "test": 8}
    assert found.data["groups"] == {"train": 8, "validation": 2, "test": 2}
    assert "Groups: names as in UCF101; 8 train, 2 validation, 2 test." in words.sentences(found)
    each = run(tmp_path / "each", tmp_path / "data", encoder, group=".+", **changes)
    assert each.data["groups"] == each.data["videos"]
    for bad, message in (
        ("(", r"group: '\(' is not a valid regular expression"),
        ("nothing", "group: 'nothing' is in none of 48"),
    ):
        with pytest.raises(LayerlockError, match=message):
            run(tmp_path / "bad", tmp_path / "data", encoder, group=bad, **changes)
    shutil.copytree(tmp_path / "data", tmp_path / "other")
    for name in "Ab":
        for place in (tmp_path / "other" / name).glob("v_*_g0[0-4]_*"):
            place.unlink()
        for place in (tmp_path / "data" / name).glob("v_*_g05_c0[4-7]*"):
            place.unlink()
        for place in (tmp_path / "other" / name).glob("v_*_g05_c0[0-3]*"):
            place.unlink()
    changes |= {"test_data": str(tmp_path / "other")}
    with pytest.raises(LayerlockError, match=r"2 of 12 groups are in several splits: v_A_g05 \(test and train\)"):
        run(tmp_path / "leak", tmp_path / "data", encoder, **changes)
    allowed = run(tmp_path / "leak", tmp_path / "data", encoder, shared_groups="allow", **changes)
    assert any("2 of 12 groups are in several splits" in note for note in allowed.data["notes"])


def test_videos_that_are_shorter_than_a_clip_are_named(tmp_path: Path, world: Path, encoder: Path) -> None:
    found = run(tmp_path / "out", world, encoder, readout="linear", baselines="no", stride=2)
    (note,) = found.data["notes"]
    assert note.startswith("60 of 60 videos are shorter than a clip")
    assert not run(tmp_path / "fits", world, encoder, readout="linear", baselines="no").data["notes"]


def test_retrieval_names_videos_that_have_no_other_of_their_class(tmp_path: Path, world: Path, encoder: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(world, data, ignore=shutil.ignore_patterns("depth"))
    first = next(folder for folder in sorted(data.iterdir()) if folder.is_dir())
    lone = min(first.glob("*.mp4"))
    (data / "lone").mkdir()
    lone.rename(data / "lone" / "lone.mp4")
    found = run(tmp_path / "out", data, encoder, task="retrieval", test_share=0.5, baselines="no")
    assert (str(data / "lone" / "lone.mp4"), RetrievalTask.left_out) in found.left_out


def test_lists_may_stand_elsewhere_than_their_videos(tmp_path: Path, world: Path, encoder: Path) -> None:
    shutil.copy(world / "labels.csv", tmp_path / "list.csv")
    changes = {"task": "retrieval", "test_share": 0.5, "baselines": "no"}
    found = run(tmp_path / "out", tmp_path / "list.csv", encoder, data_root=str(world), **changes)
    assert found.rows == run(tmp_path / "beside", world / "labels.csv", encoder, **changes).rows


def test_retrieval_without_pairs_is_refused_before_old_results_go(tmp_path: Path, world: Path, encoder: Path) -> None:
    out, changes = tmp_path / "out", {"encoder": str(encoder), "data": str(world), "baselines": "no"}
    evaluate(settings(out, task="retrieval", test_share=0.5, **changes), quiet=True)
    with pytest.raises(LayerlockError, match=r"nothing to retrieve among 13 videos of the test split.*--test-share"):
        evaluate(settings(out, task="retrieval", test_share=0.01, **changes), overwrite=True, quiet=True)
    assert (out / "results.json").exists()


@pytest.mark.parametrize("place", ["file/below", "x" * 300], ids=["below a file", "a long name"])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, world: Path, encoder: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LayerlockError, match="cannot be written"):
        run(tmp_path / place, world, encoder, readout="linear", baselines="no")


def test_retrieval_chooses_a_depth_and_trains_nothing(tmp_path: Path, world: Path, encoder: Path) -> None:
    found = run(tmp_path / "out", world, encoder, task="retrieval", test_share=0.5)
    names = ["encoder", "random weights", "raw pixels", "frame differences"]
    assert [(row.encoder, row.kind) for row in found.rows] == [
        (name, kind) for name in names for kind in ("cosine", "whitened")
    ]
    row, whitened = found.rows[:2]
    for one in (row, whitened):
        assert one.validation == max(
            each.score for each in found.sweep if (each.encoder, each.kind) == ("encoder", one.kind)
        )
    assert set(row.metrics) == {"mAP", "top-1", "top-5"}
    assert row.metrics["mAP"] != whitened.metrics["mAP"]
    assert all(set(one.metrics) == {"mAP", "top-1", "top-5"} for one in found.sweep)
    assert "The block was chosen by mAP on the train and validation split" in words.sentences(found)[1]
    assert not (tmp_path / "out" / "readouts.safetensors").exists()
    assert figures(run(tmp_path / "out", world, encoder, task="retrieval", test_share=0.5, resume=True)) == figures(
        found
    )


def test_retrieval_cut_in_time_finds_other_clips_and_never_one_twice(
    tmp_path: Path, world: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[SpreadViews] = []
    pooled = scoring._pooled

    def noted(opened: Any, found: Any, views: SpreadViews, file: Path) -> Any:
        asked.append(views)
        return pooled(opened, found, views, file)

    write_videos(tmp_path / "long", SynthConfig(videos=20, size=32, frames=44), workers=1)
    monkeypatch.setattr(scoring, "_pooled", noted)
    run(tmp_path / "out", tmp_path / "long", encoder, task="retrieval", split_by="time", baselines="no")
    for views in asked:
        clips = [(video.path, views.folder._room(row)[0]) for row, video in enumerate(views.folder.index.videos)]
        assert len(clips) == len(set(clips))
        assert views.folder.stretches is not None


@pytest.mark.parametrize("task", ["retrieval", "action"])
def test_a_window_that_cannot_be_decoded_leaves_the_others_of_its_video(
    tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    paths = write_videos(tmp_path / "long", SynthConfig(videos=26, size=32, frames=72), workers=1)
    view = FolderSource.view

    def torn(source: FolderSource, video: int, at: float = 0.5) -> Any:
        path = source.index.videos[video].path
        if (path, source._room(video)[0]) == (str(paths[0]), 56):
            raise UnreadableVideo(path, "torn")
        return view(source, video, at)

    monkeypatch.setattr(FolderSource, "view", torn)
    found = run(
        tmp_path / "out", tmp_path / "long", encoder, task=task, split_by="time", test_share=0.33, baselines="no"
    )
    name = f"{paths[0]}, frames 56 to 63"
    assert [entry for entry in found.left_out if entry[0].startswith(str(paths[0]))] == [(name, "torn")]
    shown = {clip.name for clip in (*found.best, *found.worst)}
    windows = {f"{path}, frames {at} to {at + 7}" for path in paths for at in (48, 56, 64)}
    assert shown
    assert shown <= windows - {name}


def test_clips_that_cannot_be_used_are_left_out_and_named(tmp_path: Path, encoder: Path) -> None:
    paths = write_videos(tmp_path / "world", SynthConfig(videos=30, size=32, frames=12), workers=1)
    for path in paths[::2]:
        depth_path(path).unlink()
    np.savez(depth_path(paths[1]), depth_mm=np.zeros((12, 32, 32), np.uint16))
    found = run(tmp_path / "out", tmp_path / "world", encoder, task="depth", readout="linear", baselines="no")
    reasons = {reason.split(":")[0] for _, reason in found.left_out}
    assert "it has no depth" in reasons
    assert {path for path, _ in found.left_out} <= {str(path) for path in (*paths[::2], paths[1])}


def test_something_something_is_tested_on_its_validation_list(tmp_path: Path, world: Path, encoder: Path) -> None:
    videos = sorted(world.glob("*/*.mp4"))[:24]
    (tmp_path / "videos").mkdir()
    lists: dict[str, list[dict[str, str]]] = {"train": [], "validation": [], "test": []}
    for number, video in enumerate(videos):
        (tmp_path / "videos" / f"{number}.mp4").symlink_to(video)
        entry = {"id": str(number), "template": f"Doing [something] {number % 2}"}
        lists["train" if number < 16 else "validation"].append(entry)
    lists["train"].append({"id": "999", "template": "Doing [something] 0"})
    lists["test"] = [{"id": "3"}]
    for name, entries in lists.items():
        (tmp_path / f"something-something-v2-{name}.json").write_text(json.dumps(entries))
    found = run(tmp_path / "out", tmp_path, encoder, readout="linear", baselines="no")
    assert found.data["layout"] == "Something-Something v2"
    assert found.data["videos"] == {"train": 14, "validation": 2, "test": 8}
    ((missing, reason),) = found.left_out
    assert missing.endswith("999.webm")
    assert "no such file" in reason


def test_encoders_go_by_name_and_other_clips_of_theirs(tmp_path: Path, world: Path, encoder: Path) -> None:
    found = run(tmp_path / "out", world, Path(f"random:{encoder}"), readout="linear", baselines="no", lrs=(1e-3,))
    assert found.encoder == f"random:{encoder}"
    with pytest.raises(LayerlockError, match="'nowhere' is no encoder"):
        run(tmp_path / "none", world, Path("nowhere"))
    assert not (tmp_path / "none").exists()


def test_several_clips_of_a_video_are_equally_spaced(world: Path) -> None:
    clip = ClipConfig(frames=8, stride=1, size=24, resize=1.0, flip=False)
    source = open_source(str(world), clip, 0, workers=1)
    assert isinstance(source, FolderSource)
    whole = open_source(str(world), replace(clip, frames=12), 0, workers=1)
    views = SpreadViews(source, 3, [4, 7])
    assert len(views) == 6
    for at, (video, start) in enumerate((video, start) for video in (4, 7) for start in (0, 2, 4)):
        (sample,) = views.samples(at)
        assert (sample.index, sample.name) == (at, source.video_name(video))
        assert sample.video_tchw.equal(whole.view(video).video_tchw[start : start + 8])


def test_several_clips_of_a_video_are_one_figure(tmp_path: Path, world: Path, encoder: Path) -> None:
    found = run(tmp_path / "out", world, encoder, readout="linear", baselines="no", views=3)
    rows = load_file(tmp_path / "out" / "test.safetensors")["row"].tolist()
    count = found.data["videos"]["test"]
    assert rows[:count] == list(range(count))
    assert len(rows) == -(-count // 2) * 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depths": (0.0,), "lrs": ()}, r"2 problems:\n.*depths.*\n.*lrs"),
        ({"channels": 10, "heads": 3}, "heads: 3 heads do not divide 10 channels"),
        ({"channels": 200, "heads": None}, "heads: 3 heads do not divide 200 channels"),
        ({"task": "depth", "views": 3}, "views: not used by --task depth, only by action"),
        ({"readout": "linear", "channels": 8}, "channels: only used by attention readouts"),
        (
            {"augment": "no", "jitter": 0.5, "flip": "yes"},
            r"2 problems:\n.*flip.*only used with --augment yes\n.*jitter",
        ),
        ({"query_patch": (2, 4, 4)}, "query_patch: not used by --task action, only by depth"),
        (
            {"task": "retrieval", "cache": True, "lrs": (1e-2,)},
            r"2 problems:\n.*cache.*\n.*lrs.*not used by --task retrieval, only by action, depth",
        ),
        ({"task": "retrieval", "readout": "linear"}, "readout: 'linear' is not one of cosine, whitened, all"),
        ({"examples": 3}, "examples: 3 is less than one batch of 8"),
        ({"cache": True}, "cache: needs --augment no"),
        ({"shots": ("all",)}, "shots: all alone is no curve"),
        ({"task": "segmentation"}, "task: 'segmentation' is not one of action, depth, regression, retrieval"),
        ({"data": ""}, "data: empty"),
        ({"validation_share": 0.5, "test_share": 0.5}, "leave too little"),
        ({"readout": "linear", "appearance": "no"}, "appearance: only used by solved readouts"),
        ({"task": "depth", "appearance": "no"}, "appearance: not used by --task depth"),
        ({"task": "depth", "queries": 4}, "queries: not used by --task depth, only by action, regression"),
        ({"readout": "linear", "queries": 4, "dropout": 0.1}, r"2 problems:\n.*dropout: only used by .*\n.*queries"),
        ({"queries": 4}, "heads: not used with --queries"),
        ({"queries": 0, "heads": None}, "queries: 0 is not positive"),
        ({"queries": 3, "heads": None}, "queries: 3 queries do not divide 16 channels"),
        ({"dropout": 1.0}, "dropout: 1.0 is not a share, from 0 to below 1"),
        ({"jitter": 1.5, "resize": 0.5}, r"2 problems:\n.*jitter.*\n.*resize"),
        ({"task": "depth", "warmup": 2.0, "end_lr": -1.0}, r"2 problems:\n.*warmup.*\n.*end_lr"),
        ({"task": "depth", "workers": -1, "batch": 0, "query_patch": (0, 1, 1)}, "3 problems"),
    ],
)
def test_a_config_that_cannot_be_lists_its_problems(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(**changes).check()


def test_what_a_resume_may_not_change_is_named(tmp_path: Path, world: Path, encoder: Path) -> None:
    run(tmp_path / "out", world, encoder, readout="linear", baselines="no")
    with pytest.raises(ConfigError, match=r"lrs: the evaluation to resume has \[0\.001, 0\.003\], now \[0\.001\]"):
        run(tmp_path / "out", world, encoder, readout="linear", baselines="no", lrs=(1e-3,), resume=True)
    config = settings(tmp_path / "out", data=str(world), encoder=str(encoder), readout="linear", baselines="no")
    with pytest.raises(ConfigError, match="encoder: it was"):
        evaluate(config, tiny_encoder(seed=8), resume=True, quiet=True)
    (tmp_path / "out" / "readouts.safetensors").write_bytes(b"torn")
    with pytest.raises(LayerlockError, match=r"readouts\.safetensors: damaged"):
        evaluate(config, resume=True, quiet=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(LayerlockError, match="there, and not an evaluation"):
        run(tmp_path / "mine", world, encoder)


def test_an_encoder_that_is_not_what_it_says_is_refused(tmp_path: Path, world: Path) -> None:
    class Odd:
        name, clip, grid, depth, width = "odd", tiny_encoder().clip, (4, 3, 3), 6, 25

        def prepare(self, device: Any, compute: Any) -> Odd:
            return self

        def forward_intermediates(self, video: torch.Tensor, indices: Any) -> list[torch.Tensor]:
            return [torch.zeros(len(video), 36, 24) for _ in indices]

    with pytest.raises(LayerlockError, match=r"features of one clip are \[1, 36, 24\].*width 25"):
        evaluate(settings(tmp_path / "out", data=str(world), baselines="no"), Odd(), quiet=True)


def test_features_that_are_not_finite_are_no_results(tmp_path: Path, world: Path) -> None:
    encoder = tiny_encoder()
    with torch.no_grad():
        encoder.vit.blocks[5].fc1.weight[0, 0] = torch.nan
    for task in ("retrieval", "action"):
        with pytest.raises(LayerlockError, match="features of a black clip are not finite"):
            evaluate(settings(tmp_path / "out", data=str(world), baselines="no", task=task), encoder, quiet=True)


def diverging(monkeypatch: pytest.MonkeyPatch, lr: float, step: int) -> None:
    """The readouts of one learning rate are no longer finite after a step."""
    original = Sweep.train_step

    def stepped(self: Sweep, *given: Any) -> Any:
        found = original(self, *given)
        if self.step == step:
            for setting, readout in self.readouts.items():
                if setting.lr == lr:
                    with torch.no_grad():
                        readout.out.weight.fill_(torch.nan)
        return found

    monkeypatch.setattr(Sweep, "train_step", stepped)


@pytest.mark.parametrize(("task", "step"), [("action", 3), ("action", 6), ("depth", 6)])
def test_a_readout_that_is_not_finite_is_dropped_and_costs_no_video(
    tmp_path: Path, world: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch, task: str, step: int
) -> None:
    changes: dict[str, Any] = {"readout": "linear", "task": task}
    alone = run(tmp_path / "alone", world, encoder, lrs=(1e-3,), **changes)
    diverging(monkeypatch, 3e-3, step)
    found = run(tmp_path / "out", world, encoder, **changes)
    assert found.left_out == ()
    assert figures(found)[:3] == figures(alone)[:3]
    assert len(found.dropped) == 6
    name = "encoder/linear/3/0.003"
    reason = f"its loss is not finite at step {step}" if step < 6 else "its predictions on the validation split are not"
    assert dict(found.dropped)[name].startswith(reason)
    assert any("Readouts that were dropped: 6; encoder/linear/" in said for said in words.sentences(found))
    assert json.loads((tmp_path / "out" / "results.json").read_text())["dropped"]
    assert run(tmp_path / "out", world, encoder, resume=True, **changes).dropped == found.dropped
    write_evaluation(found)
    changes |= {"lrs": (3e-3,), "baselines": "no"}
    with pytest.raises(LayerlockError, match=r"no readout of .* gave finite figures|all 2 readouts were dropped"):
        run(tmp_path / "none", world, encoder, **changes)


@pytest.mark.parametrize("task", ["action", "retrieval"])
@pytest.mark.parametrize("augment", ["yes", "no"])
def test_a_clip_whose_features_are_not_finite_is_left_out_and_named(
    tmp_path: Path, world: Path, task: str, augment: str
) -> None:
    class Brittle:
        """Gives infinite features of clips whose first pixel is bright."""

        name, depth, width = "brittle", 6, tiny_encoder().width
        clip, grid = tiny_encoder().clip, tiny_encoder().grid

        def __init__(self) -> None:
            self.inside = tiny_encoder()

        def prepare(self, device: Any, compute: Any) -> Brittle:
            return self

        def forward_intermediates(self, video: torch.Tensor, indices: Any) -> list[torch.Tensor]:
            bad = video.float().mean((1, 2, 3, 4)) > BRIGHT
            found = self.inside.forward_intermediates(video, indices)
            return [x.masked_fill(bad[:, None, None], torch.inf) for x in found]

    clip = ClipConfig(frames=8, stride=1, size=24, resize=239 / 224, flip=False)
    source = open_source(str(world), clip, 0, workers=1)
    assert isinstance(source, FolderSource)
    light = {
        source.video_name(row): float(crop_and_flip(collate([source.view(row)], 24)).float().mean())
        for row in range(60)
    }
    BRIGHT = sorted(light.values())[-8]
    changes: dict[str, Any] = {"baselines": "no", "task": task}
    changes |= {"readout": "linear", "augment": augment} if task == "action" else {"test_share": 0.5}
    found = evaluate(settings(tmp_path / "out", data=str(world), **changes), Brittle(), quiet=True)
    blamed = {name for name, reason in found.left_out if "not finite" in reason}
    scored_bad = {name for name, mean in light.items() if mean > BRIGHT}
    assert len(scored_bad) == 7
    assert blamed
    assert blamed <= set(light) if augment == "yes" else blamed <= scored_bad
    shown = {clip.name for clip in (*found.best, *found.worst)}
    assert not shown & scored_bad
    assert found.dropped == ()


def test_readouts_of_several_seeds_are_one_row_and_their_spread_is_in_its_interval(
    tmp_path: Path, world: Path, encoder: Path
) -> None:
    changes: dict[str, Any] = {"baselines": "no", "readout": "attention", "lrs": (1e-2,), "depths": (1.0,)}
    one, three = (run(tmp_path / str(n), world, encoder, readout_seeds=n, **changes) for n in (1, 3))
    kept = load_file(tmp_path / "3" / "test.safetensors")
    names = [f"score:encoder/attention/6/0.01{suffix}" for suffix in ("", "/seed 1", "/seed 2")]
    count = three.data["videos"]["test"]
    score_sv = torch.stack([kept[name][:count, 0] for name in names])
    assert len({tuple(row.tolist()) for row in score_sv}) > 1
    assert [row.kind for row in three.rows] == ["attention", "constant"]
    assert three.rows[0].metrics["top-1"].mean == pytest.approx(float(score_sv.mean()))
    assert len(three.sweep) == len(one.sweep) == 1
    assert torch.equal(load_file(tmp_path / "1" / "test.safetensors")[names[0]], kept[names[0]])
    assert "over its videos and 3 readout seeds" in words.sentences(three)[1]
    assert figures(run(tmp_path / "3", world, encoder, readout_seeds=3, resume=True, **changes)) == figures(three)


@pytest.mark.parametrize("resize", [239 / 224, 1.0])
def test_embeddings_are_the_features_that_an_evaluation_reads(
    tmp_path: Path, world: Path, encoder: Path, resize: float
) -> None:
    changes: dict[str, Any] = {"task": "retrieval", "baselines": "no", "test_share": 0.5, "depths": (0.5,)}
    run(tmp_path / "out", world, encoder, resize=resize, **changes)
    kept = load_file(tmp_path / "out" / "test.safetensors")["encoder/3"]
    found = layerlock.embed(encoder, world, depth=3, whiten=False, workers=1, device="cpu")
    assert len(found.features) == 60
    rows = {tuple(row.tolist()) for row in torch.from_numpy(found.features)}
    same = [tuple(row.tolist()) in rows for row in kept]
    assert all(same) == any(same) == (resize != 1.0)


def test_an_encoder_that_is_no_module_is_told_by_its_features(tmp_path: Path, world: Path) -> None:
    class Pixels:
        name, clip, grid, depth, width = "pixels", tiny_encoder().clip, (4, 3, 3), 1, 24

        def __init__(self, gain: float) -> None:
            self.gain = gain

        def prepare(self, device: Any, compute: Any) -> Pixels:
            return self

        def forward_intermediates(self, video: torch.Tensor, indices: Any) -> list[torch.Tensor]:
            return [video.float().reshape(len(video), 36, -1)[..., :24] * self.gain for _ in indices]

    config = settings(tmp_path / "out", data=str(world), baselines="no", readout="linear", depths=(1.0,))
    evaluate(config, Pixels(1.0), quiet=True)
    evaluate(config, Pixels(1.0), quiet=True, resume=True)
    with pytest.raises(ConfigError, match="encoder: it was"):
        evaluate(config, Pixels(2.0), quiet=True, resume=True)


def test_depth_that_was_changed_is_other_data(tmp_path: Path, encoder: Path) -> None:
    paths = write_videos(tmp_path / "world", SynthConfig(videos=30, size=32, frames=12), workers=1)
    changes: dict[str, Any] = {"task": "depth", "readout": "linear", "baselines": "no"}
    run(tmp_path / "out", tmp_path / "world", encoder, **changes)
    np.savez(depth_path(paths[1]), depth_mm=np.full((12, 32, 32), 900, np.uint16))
    with pytest.raises(ConfigError, match="- targets of the data: it was") as refused:
        run(tmp_path / "out", tmp_path / "world", encoder, **changes, resume=True)
    assert "videos of the data" not in str(refused.value)


def test_a_depth_picture_that_was_overwritten_in_its_place_is_another_target(tmp_path: Path, encoder: Path) -> None:
    changes: dict[str, Any] = {"task": "depth", "readout": "linear", "baselines": "no", "augment": "no"}
    scene = write_scene(tmp_path / "scene", range(0))
    first = run(tmp_path / "out", scene, encoder, cache=True, **changes)
    for number in range(60):
        with (scene / f"frame-{number:06d}.depth.png").open("r+b") as file:
            Image.fromarray(np.full((12, 16), 5000 - 9 * number, np.uint16)).save(file, format="png")
            file.truncate()
    with pytest.raises(ConfigError, match="- targets of the data: it was"):
        run(tmp_path / "out", scene, encoder, cache=True, resume=True, **changes)
    cached = run(tmp_path / "cached", scene, encoder, cache=True, **changes)
    assert figures(cached) == figures(run(tmp_path / "plain", scene, encoder, **changes))
    assert figures(cached) != figures(first)


@pytest.mark.parametrize("column", ["label", "group"])
def test_a_list_with_other_labels_or_groups_is_not_resumed_and_its_cached_targets_are_not_used(
    tmp_path: Path, world: Path, encoder: Path, column: str
) -> None:
    videos = sorted(world.glob("*/*.mp4"))

    def write(shift: int) -> Path:
        label, group = (shift if column == name else 0 for name in ("label", "group"))
        lines = [f"{video},{'abc'[(n + label) % 3]},{(n + group) // 4}" for n, video in enumerate(videos)]
        (tmp_path / "list.csv").write_text("\n".join(["file_name,label,group", *lines]))
        return tmp_path / "list.csv"

    changes: dict[str, Any] = {"readout": "linear", "baselines": "no", "augment": "no"}
    run(tmp_path / "out", write(0), encoder, cache=True, **changes)
    with pytest.raises(ConfigError, match=rf"- {'targets' if column == 'label' else 'groups'} of the data: it was"):
        run(tmp_path / "out", write(1), encoder, cache=True, resume=True, **changes)
    cached = run(tmp_path / "cached", write(1), encoder, cache=True, **changes)
    assert figures(cached) == figures(run(tmp_path / "plain", write(1), encoder, **changes))


def test_defaults_are_the_papers() -> None:
    config = EvaluateConfig(encoder="e", data="d")
    config.check()
    assert config.steps == 40_000
    assert round(config.warmup * config.steps) == 1_000
    assert len(config.depths) * len(config.lrs) == 18
    optim = config.optim(3e-4)
    assert (optim.lr, optim.end_lr, optim.start_lr) == (3e-4, 1e-7, 0.0)
    assert replace(config, readout="linear").kinds == ("linear",)


@pytest.mark.parametrize(
    ("changes", "videos", "readout"),
    [
        ({}, 4_999, "solved"),
        ({}, 5_000, "all"),
        ({"task": "regression", "appearance": "no", "shots": (5,)}, 10, "solved"),
        ({"task": "depth"}, 10, "all"),
        ({"task": "retrieval"}, 10, "all"),
        ({"examples": 64_000}, 10, "all"),
        ({"cache": True, "augment": "no"}, 10, "all"),
        ({"cache": True}, 10, "solved"),
        ({"checkpoint_every": 7}, 10, "all"),
        ({"readout": "linear"}, 10, "linear"),
        ({"readout": "solved"}, 9_000, "solved"),
        ({"readout": "all"}, 10, "all"),
    ],
)
def test_readouts_of_few_videos_are_solved_unless_others_are_asked_for(
    changes: dict[str, Any], videos: int, readout: str
) -> None:
    config = EvaluateConfig(encoder="e", data="d", **changes)
    config.check()
    assert config.fitting(videos).readout == readout
    config.fitting(videos).check()


def test_the_default_of_few_videos_is_said_and_resumed(tmp_path: Path, world: Path, encoder: Path) -> None:
    changes: dict[str, Any] = {"readout": "solved", "baselines": "no"}
    plain = run(tmp_path / "plain", world, encoder, **changes)
    out = replace(settings(tmp_path / "out", data=str(world), encoder=str(encoder), **changes), readout=None)
    found = evaluate(out, quiet=True)
    assert found.rows == plain.rows
    assert found.settings["config"]["readout"] == "solved"
    said = "Readouts are solved, the default below 5,000 training videos; --readout all trains others."
    assert said in words.sentences(found)
    assert said not in words.sentences(plain)
    assert figures(evaluate(out, quiet=True, resume=True)) == figures(found)


@pytest.mark.parametrize("task", ["action", "retrieval"])
@pytest.mark.parametrize("fault", ["clips", "page"])
def test_no_picture_can_lose_the_results(
    tmp_path: Path,
    world: Path,
    encoder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    task: str,
    fault: str,
) -> None:
    def fails(*_: Any) -> None:
        raise ValueError("cannot be drawn")

    place = {"clips": "evaluation.run.save_gallery"}
    monkeypatch.setattr(f"layerlock.{place.get(fault, 'report.evaluation.write_evaluation')}", fails)
    changes = {"test_share": 0.5} if task == "retrieval" else {}
    config = settings(tmp_path / "out", data=str(world), encoder=str(encoder), task=task, baselines="no", **changes)
    found = run_evaluation(config, quiet=True)
    assert found.rows
    assert json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    words = {"clips": "test clips for report.html were not saved", "page": "report.html was not written"}[fault]
    assert f"{words}: ValueError: cannot be drawn" in capsys.readouterr().out
    assert (tmp_path / "out" / "report.html").exists() == (fault == "clips")
