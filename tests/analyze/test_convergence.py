"""Which blocks have converged when: branches, deviations, signals, and that a stopped analysis goes on."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import DECODING, MODEL, Noise, config, run_config

import layerlock
from layerlock import api, cli
from layerlock.analyze.convergence import figures, moments, runs
from layerlock.analyze.convergence.cells import Cells, baseline, branch_of
from layerlock.analyze.convergence.moments import Moment, open_probe, read_moment
from layerlock.analyze.convergence.signals import SIGNALS, At
from layerlock.config import Config, OptimConfig
from layerlock.errors import ConfigError, LayerlockError
from layerlock.learn.plans import JointEmbedding, Progressive
from layerlock.report.convergence import best_signal, sentences, write_convergence
from layerlock.train import checkpoint, finished
from layerlock.train.folder import RunFolder
from layerlock.train.loop import Run, train

CELLS = Cells(layers=(0, 1, 3), times=(0.25, 0.5), seeds=(0, 1, 2), branched=1, final=0.2, probe_clips=16)


def four_blocks(out: Path, **changes: Any) -> Config:
    """Of four blocks one decodes; 40 updates, a log line every 2."""
    fields: dict[str, Any] = {
        "model": replace(MODEL, depth=4),
        "decoder": replace(DECODING, blocks=1),
        "steps": 40,
        "optim": OptimConfig(lr=3e-3, warmup=0.1),
        "plan": Progressive(),
        "run": run_config(threads=1, log_every=2, checkpoint_every=1_000, keep=1),
    }
    return config(out, **(fields | changes))


@pytest.fixture
def few(noise: Noise, threads: None, monkeypatch: pytest.MonkeyPatch) -> Noise:
    """Runs and the probe take their clips from noise."""
    for module in (moments, finished):
        monkeypatch.setattr(module, "open_source", lambda *args, **kwargs: noise)
    return noise


def files_of(out: Path) -> dict[str, int]:
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in out.glob("seed-*/*/*") if path.is_file()}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name != "timing"} for line in RunFolder(folder).lines()]


def test_the_whole(tmp_path: Path, few: Noise, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, update = list[int](), Run.update
    monkeypatch.setattr(Run, "update", lambda self, *a, **k: steps.append(self.step) or update(self, *a, **k))
    out = tmp_path / "out"
    found = api.run_convergence(four_blocks(out), CELLS, quiet=True)
    assert found["signal"] is None
    assert len(steps) == 3 * 40 + 3 * (30 + 20), "a branch costs its own steps alone"
    cells = {(cell["layer"], cell["step"]): cell for cell in found["cells"]}
    assert set(cells) == {(layer, step) for layer in (0, 1, 3) for step in (10, 20)}
    base = out / "seed-0" / "baseline"
    for (layer, step), cell in cells.items():
        branch = out / "seed-0" / f"freeze-{layer}-at-{step}"
        assert lines(branch)[: step // 2] == lines(base)[: step // 2]
        assert (lines(branch) == lines(base)) == (layer == 0)
        assert {line["frozen"] for line in lines(branch)} == {0, layer}
        final = [line["loss"] for line in lines(branch) if line["step"] > 32]
        assert cell["loss"] == pytest.approx(sum(final) / 4, rel=1e-12)
        assert cell["deviation"] == pytest.approx(100 * (cell["loss"] / found["baselines"][0]["final loss"] - 1))
        assert (cell["deviation"] == 0) == (layer == 0)
        assert cell["low"] == cell["deviation"] == cell["high"]
        assert cell["within"] == (cell["deviation"] <= found["band"]["high"])
    finals = [one["final loss"] for one in found["baselines"]]
    assert found["band"]["high"] == pytest.approx(100 * (max(finals) / (sum(finals) / 3) - 1))
    assert found["pairs"] == 2, "of the control none"
    check_signals(found)
    check_files(out, found)
    before = files_of(out)
    again = layerlock.analyze_convergence(
        four_blocks(out), quiet=True, layers=[0, 1, 3], times=[0.25, 0.5], branched=1, final=0.2, probe_clips=16
    )
    assert again == found
    assert files_of(out) == before
    steps.clear()
    more = api.run_convergence(four_blocks(out), replace(CELLS, layers=(2,), times=(0.35,)), quiet=True)
    assert len(steps) == 40 - 10, "from the latest checkpoint before"
    assert lines(out / "seed-0" / "freeze-2-at-14")[:7] == lines(base)[:7]
    (drift,) = (one for one in more["signals"] if one["name"] == "drift")
    assert drift["values"] == [None]
    assert "trained for other times, has no checkpoint of the step" in drift["why"]


def check_signals(found: Mapping[str, Any]) -> None:
    by_name = {one["name"]: one for one in found["signals"]}
    assert set(by_name) == set(SIGNALS)
    for one in by_name.values():
        assert all(value is not None and value >= 0 for value in one["values"]), one
        assert one["about"].endswith((".", ")")), one
        assert one["why"] == ""
        assert -1 <= one["spearman"] <= 1
    assert by_name["depth"]["values"] == [1, 3, 1, 3]
    assert by_name["time left"]["values"] == [0.75, 0.75, 0.5, 0.5]
    known = [one["spearman"] for one in found["signals"] if one["known"] == "at once"]
    best = best_signal(found)
    assert best is not None
    assert best["spearman"] == max(known)
    assert [one["spearman"] for one in found["signals"]] == sorted(
        (one["spearman"] for one in found["signals"]), reverse=True
    )


def check_files(out: Path, found: Mapping[str, Any]) -> None:
    assert json.loads((out / "convergence.json").read_text()) == {k: v for k, v in found.items() if k != "signal"}
    rows = list(csv.DictReader((out / "convergence.csv").read_text().splitlines()))
    off = {(row["layer"], row["step"]): float(row["value"]) for row in rows if row["figure"] == "deviation, %"}
    assert off == {(str(cell["layer"]), str(cell["step"])): cell["deviation"] for cell in found["cells"]}
    assert {row["figure"] for row in rows} >= {*SIGNALS, "noise band, %", "final loss", "Spearman, drift"}
    assert (out / "convergence.svg").read_bytes().startswith(b"<?xml")
    page = (out / "report.html").read_text()
    assert "weight norm change over the rate" in page
    assert "Baselines of 3 seeds differ from their mean by" in page
    above = sum(cell["layer"] > 0 and cell["within"] for cell in found["cells"])
    assert f"{above} of 4 cells that freeze something are not above that." in page, "controls do not count"


def test_a_stopped_analysis_goes_on(tmp_path: Path, few: Noise, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = replace(CELLS, layers=(1, 3), times=(0.5,), seeds=(0, 1))
    whole = api.run_convergence(four_blocks(tmp_path / "whole"), cells, quiet=True)
    update, done = Run.update, list[int]()

    def stopping(self: Run, *args: Any, **kwargs: Any) -> Any:
        done.append(self.step)
        if len(done) in (25, 50, 90):
            os.kill(os.getpid(), signal.SIGTERM)
        if len(done) == 112:
            raise KeyboardInterrupt
        return update(self, *args, **kwargs)

    monkeypatch.setattr(Run, "update", stopping)
    settings = four_blocks(tmp_path / "cut")
    for _ in range(3):
        assert api.run_convergence(settings, cells, quiet=True) == {"signal": signal.SIGTERM}
    with pytest.raises(KeyboardInterrupt):  # as a kill does, this saves nothing
        api.run_convergence(settings, cells, quiet=True)
    assert api.run_convergence(settings, cells, quiet=True) == whole
    assert len(done) <= 2 * 40 + 2 * 20 + 4 + 20


def test_a_baseline_that_does_not_learn_ends_it(tmp_path: Path, few: Noise) -> None:
    still = four_blocks(tmp_path, optim=OptimConfig(lr=1e-12, warmup=0.1))
    with pytest.raises(
        LayerlockError, match=r"seed-0/baseline: the loss of the baseline did not fall: .* Train longer"
    ):
        api.run_convergence(still, CELLS, quiet=True)
    assert not list(tmp_path.glob("seed-*/freeze*"))
    with pytest.raises(ConfigError, match=r"run\.log_every: .*seed-0/baseline was trained with 2, now 4"):
        api.run_convergence(replace(still, run=replace(still.run, log_every=4)), CELLS, quiet=True)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"layers": ()}, "layers: empty"),
        ({"layers": (4,)}, "layers: 4 of 3 encoder blocks (of 4 blocks 1 decode)"),
        ({"layers": (5,)}, "layers: 5 of 3 encoder blocks"),
        ({"layers": (-1,)}, "layers: -1 of 3"),
        ({"layers": (1, 1)}, "layers: one is named twice"),
        ({"times": ()}, "times: empty"),
        ({"times": (1.5,)}, "times: 1.5 must be above 0 and below 1, a fraction of the run"),
        ({"times": (1.0,)}, "times: 1.0 must be"),
        ({"times": (0.0,)}, "times: 0.0 must be"),
        ({"times": (0.02,)}, "times: 0.02 is before the first log line; there is a log line every 2 steps (run.log_"),
        ({"times": (0.9,)}, "times: 0.9 is step 36 of 40; losses after step 32 are the final loss"),
        ({"times": (0.25, 0.26)}, "times: two are the same log line; there is a log line every 2 steps"),
        ({"seeds": ()}, "seeds: empty"),
        ({"branched": 4}, "branched: 4 of 3 seeds"),
        ({"final": 0.6}, "final: 0.6 must be above 0"),
        ({"probe_clips": 4}, "probe_clips: 4 are too few"),
        ({"layers": (1.5,)}, "layers: (1.5,) is not"),
    ],
)
def test_cells_that_cannot_be_are_named(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        api.run_convergence(four_blocks(tmp_path / "out"), replace(CELLS, **changes), quiet=True)
    assert any(each.startswith(problem) for each in raised.value.problems), raised.value
    assert not (tmp_path / "out").exists()


def test_all_that_is_wrong_with_cells_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        api.run_convergence(four_blocks(tmp_path), replace(CELLS, layers=(9,), times=(0.99,), branched=7), quiet=True)
    assert [problem.partition(":")[0] for problem in raised.value.problems] == ["layers", "branched", "times"]


def test_a_run_folder_is_not_written_over(tmp_path: Path) -> None:
    RunFolder(tmp_path).begin(four_blocks(tmp_path), resume=False, overwrite=False)
    with pytest.raises(ConfigError, match=f"out: {tmp_path} is a run folder, whose report would be replaced"):
        api.run_convergence(four_blocks(tmp_path), CELLS, quiet=True)


@pytest.mark.parametrize("name", ["device", "precision", "threads"])
def test_runs_that_were_carried_out_in_another_way_are_refused(tmp_path: Path, few: Noise, name: str) -> None:
    cells = Cells(layers=(1,), times=(0.5,), seeds=(0,), final=0.2, probe_clips=16)
    settings = four_blocks(tmp_path, optim=OptimConfig(lr=1e-12, warmup=0.1))
    with pytest.raises(LayerlockError, match="did not fall"):
        api.run_convergence(settings, cells, quiet=True)
    facts = tmp_path / "seed-0" / "baseline" / "checkpoints" / "step-00000040" / "state.json"
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {name: "other"}))
    with pytest.raises(ConfigError, match=rf"run\.{name}: .*seed-0/baseline was trained with 'other', now"):
        api.run_convergence(settings, cells, quiet=True)


def test_plans_that_do_not_predict_patches_and_unknown_fields_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="plan: JointEmbedding does not train by patches alone"):
        api.run_convergence(four_blocks(tmp_path, plan=JointEmbedding()), CELLS, quiet=True)
    with pytest.raises(LayerlockError, match="an analysis of convergence has no field layer"):
        layerlock.analyze_convergence("mae-nano", layer=3)
    with pytest.raises(ConfigError, match=r"plan\.frozen: 2 blocks are frozen from the start, 1 at the first"):
        api.run_convergence(four_blocks(tmp_path, plan=Progressive(frozen=2)), CELLS, quiet=True)


def test_the_runs_of_a_recipe_are_its_own_patches_without_its_freezing() -> None:
    lock = layerlock.recipe("layerlock-nano", out="a")
    base = baseline(lock, Cells(layers=(2,), times=(0.1,)), seed=5)
    assert isinstance(base.plan, Progressive)
    assert (base.plan.target, base.plan.patches, base.plan.masked) == ("pixels", "motion", True)
    assert (base.plan.schedule(), base.seed, base.optim.mini_warmup, base.out) == ([], 5, 0.0, "a/seed-5/baseline")
    assert base.run.keep_at == (240, 300)
    made = branch_of(base, 2, 300)
    assert isinstance(made.plan, Progressive)
    assert made.plan.freezes == ((0.1, 2),)
    assert (made.out, made.run.keep_at) == ("a/seed-5/freeze-2-at-300", ())
    assert branch_of(base, 0, 300).plan == base.plan


def test_the_final_loss_counts_each_line_as_often_as_it_has_updates() -> None:
    logged = [{"step": 4, "loss": 9.0}, {"step": 8, "loss": 5.0}, {"step": 10, "loss": 2.0}]
    assert runs.mean_loss(logged, 4, 10) == pytest.approx((4 * 5 + 2 * 2) / 6)
    assert runs.mean_loss(logged, 3, 10) == pytest.approx(4.0), "a line of other steps too does not count"
    with pytest.raises(LayerlockError, match="no log line is of the steps 9 to 10"):
        runs.mean_loss(logged, 9, 10)


@pytest.mark.parametrize(("steps", "every", "expected"), [(40, 2, 8), (41, 2, 9), (45, 10, 15), (40, 30, 40)])
def test_the_final_steps_are_whole_log_lines(tmp_path: Path, steps: int, every: int, expected: int) -> None:
    made = four_blocks(tmp_path, steps=steps, run=run_config(log_every=every))
    window = CELLS.final_steps(made)
    assert window == expected
    ends = [*range(every, steps, every), steps]
    logged = [{"step": end, "loss": sum(range(begin, end)) / (end - begin)} for begin, end in pairwise([0, *ends])]
    of_each = range(steps - window, steps)
    assert runs.mean_loss(logged, steps - window, steps) == pytest.approx(sum(of_each) / window), (
        "its updates, no other"
    )


def test_without_three_seeds_there_is_no_band_and_ranks_need_cells_that_differ() -> None:
    losses = {(0, 0, 0): 1.0, (1, 0, 0): 1.1, (0, 1, 5): 1.02, (1, 1, 5): 1.1}
    assert figures.band_of(losses, (0, 1)) is None
    (cell,) = figures.cells_of(losses, (0, 1), (1,), {0.5: 5}, None)
    assert cell["deviation"] == pytest.approx(1.0)
    assert (cell["low"], cell["high"], cell["within"]) == (0.0, pytest.approx(2.0), None)
    cells = [{"deviation": value} for value in (0.1, 0.5, 0.4, 2.0)]
    assert figures.ranks([1.0, 3.0, 2.0, 9.0], cells) == (pytest.approx(1.0), "")
    assert figures.ranks([9.0, 2.0, 3.0, None], cells) == (pytest.approx(-1.0), "of 3 of 4 cells")
    assert figures.ranks([1.0, None, None, 2.0], cells) == (None, "2 cells are too few")
    assert figures.ranks([1.0] * 4, cells) == (None, "it is the same in all cells, or the deviation is")
    assert figures.mean_of_known([math.nan, 2.0]) == 2.0


def test_the_page_of_one_seed_and_of_controls_alone_says_what_is_missing(tmp_path: Path, few: Noise) -> None:
    found = api.run_convergence(four_blocks(tmp_path), Cells(layers=(0,), times=(0.5,), seeds=(3,)), quiet=True)
    assert (found["band"], found["signals"], found["cells"][0]["deviation"]) == (None, [], 0.0)
    said = " ".join(sentences(found))
    assert "There is no noise band: 1 seed is too few, 3 are needed." in said
    page = write_convergence(found, tmp_path).read_text()
    assert "No branch freezes anything." in page


def test_signals_are_what_their_docstrings_say(tmp_path: Path, few: Noise) -> None:
    made = four_blocks(
        tmp_path / "run", steps=8, optim=OptimConfig(lr=1e-2, warmup=0.5, end_lr=1e-2, betas=(0.9, 0.95))
    )
    made = replace(made, run=replace(made.run, keep_at=(4, 6)))
    train(made, quiet=True)
    probe = open_probe(made, 12)
    assert probe.video_btchw.shape == (12, 8, 3, 24, 24)
    now, before, end = (
        read_moment(tmp_path / "run", step, probe, [1, 3], betas=(0.9, 0.95), device=torch.device("cpu"))
        for step in (6, 4, 8)
    )
    learned = next(line["weight_norms"] for line in RunFolder(tmp_path / "run").lines() if line["step"] == 6)
    assert [math.sqrt(square) for square in now.weights] == pytest.approx(learned, rel=1e-5)
    state = checkpoint.read(tmp_path / "run" / "checkpoints" / "step-00000006").tensors
    first = ("vit.embed.", "vit.blocks.0.")
    moments_of = {n: state[f"optim/{n[6:]}/exp_avg_sq"] for n in state if n[6:].startswith(first) and n[:6] == "model/"}
    square = torch.cat([value.flatten() for value in moments_of.values()]) / (1 - 0.95**6)
    target = torch.zeros(12, 36, 3)
    at = At(config=made, now=now, before=before, end=end, target_bsp=target)
    value = {name: compute(at, 1) for name, (compute, _) in SIGNALS.items() if name != "unexplained share"}
    assert value["gradient size"] == pytest.approx(float(square.mean().sqrt()), rel=1e-5)
    assert value["update / weight"] == pytest.approx(1e-2 * value["update / weight over the rate"])
    assert value["weight norm change over the rate"] == pytest.approx(value["weight norm change"]), "the full rate"
    assert value["drift"] == pytest.approx(value["drift over the rate"])
    x, y = (moment.features[1] for moment in (now, before))
    assert value["drift"] == pytest.approx(float((x - y).norm() / (x - x.flatten(0, 1).mean(0)).norm()), rel=1e-5)
    assert 0 < value["1 - CKA to the end"] < 0.5
    halved = replace(made, optim=OptimConfig(lr=2e-2, warmup=0.0, end_lr=1e-2, decay=1.0), steps=1_000_000)
    assert At(config=halved, now=now, before=before, end=end, target_bsp=target).rate() == pytest.approx(1.0, rel=1e-3)
    linear = x @ torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
    assert SIGNALS["unexplained share"][0](replace(at, target_bsp=linear), 1) < 0.01
    noise = torch.randn(12, 36, 3, generator=torch.Generator().manual_seed(1))
    assert SIGNALS["unexplained share"][0](replace(at, target_bsp=noise), 1) > 0.9
    with pytest.raises(ValueError, match="no checkpoint shortly before"):
        SIGNALS["drift"][0](replace(at, before=None), 1)
    with pytest.raises(ValueError, match="only AdamW"):
        SIGNALS["gradient size"][0](replace(at, now=replace_moment(now)), 1)


def replace_moment(moment: Moment) -> Moment:
    return replace(moment, updates=(), gradients=())


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[tuple[Config, Cells]]()
    found: dict[str, Any] = {"cells": [], "signals": [], "band": None, "signal": None}
    monkeypatch.setattr(api, "run_convergence", lambda config, cells: asked.append((config, cells)) or found)
    with pytest.raises(SystemExit) as ended:
        cli.main(["analyze", "convergence", "mae-nano", "--data", "d", "--layers", "2", "3", "--times", "0.1", "0.5"])
    assert ended.value.code == 0
    ((made, cells),) = asked
    assert (made.recipe, made.data, made.out) == ("mae-nano", "d", "runs/convergence-mae-nano")
    assert cells == Cells(layers=(2, 3), times=(0.1, 0.5))
    assert "no noise band: fewer than 3 seeds" in capsys.readouterr().out
    found["signal"] = 15
    with pytest.raises(SystemExit) as ended:
        cli.main(["analyze", "convergence", "mae-nano", "--out", str(tmp_path), "--seeds", "4", "--steps", "60"])
    assert ended.value.code == 128 + 15
    assert (asked[1][0].out, asked[1][0].steps, asked[1][1].seeds) == (str(tmp_path), 60, (4,))
    for wrong, words in ((["mae-nano", "--resume"], "resumed by the same command"), (["nothing"], "nothing")):
        with pytest.raises(SystemExit) as ended:
            cli.main(["analyze", "convergence", *wrong])
        assert ended.value.code == 2
        assert words in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        cli.main(["analyze", "convergence"])
    assert ended.value.code == 2
    assert "analyze convergence RECIPE --data PATH" in capsys.readouterr().err
