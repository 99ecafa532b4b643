"""A run is resumed by the plan that it began with, or not at all; what the plan asks for is checked as it comes."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import PIXEL_STAGE, Noise, config, lock_stage, run_config

from layerlock.config import Config
from layerlock.errors import ConfigError
from layerlock.learn.plan import FixedPlan, Plan, Stage, SwitchLog, Tap
from layerlock.learn.plans import LiveLatents, Progressive
from layerlock.learn.targets import FeatureTarget
from layerlock.train import checkpoint, loop
from layerlock.train.loop import train
from layerlock.train.same_plan import differences, plan_facts

LIVE = Stage(frozen=0, last=6, taps=(Tap(depth=4), Tap(depth=4, target=FeatureTarget((1,), live=True))))


class Halfway:
    """Freezes `blocks` at step `half`; counts how often it is asked, which is no setting."""

    def __init__(self, config: Config, half: int = 6, blocks: int = 1, weight: float = 1.0) -> None:
        self.config, self.half, self.blocks, self.weight = config, half, blocks, weight
        self.asked: list[int] = []

    def stage(self, step: int, log: SwitchLog) -> Stage:
        self.asked.append(step)
        return lock_stage(self.blocks) if step >= self.half else PIXEL_STAGE

    def weights(self, step: int, log: SwitchLog) -> dict[str, float]:
        return {f"h{self.blocks}": self.weight} if step >= self.half else {}


class Other(Halfway):
    """The same stages from another class."""


@dataclass(frozen=True)
class Waiting:
    """Freezes a block `patience` steps after the last switch: it reads the log. `name` changes no stage."""

    patience: int = 5
    name: str = "a"

    def stage(self, step: int, log: SwitchLog) -> Stage:
        since = step - (log[-1].step if log else 0)
        frozen = min(len(log) + (since >= self.patience), 2)
        return lock_stage(frozen) if frozen else PIXEL_STAGE


def settings(out: Path, **changes: Any) -> Config:
    return config(out, **({"plan": Progressive(), "run": run_config(keep=9)} | changes))


def cut(out: Path, step: int) -> None:
    """Takes back all checkpoints after `step`."""
    for place in (out / "checkpoints").glob("step-*"):
        if int(place.name[5:]) > step:
            shutil.rmtree(place)


MADE = settings(Path("run"))


@pytest.mark.usefixtures("noise")
@pytest.mark.parametrize("stopped", [0, 4])
@pytest.mark.parametrize(
    ("began", "now", "word"),
    [
        (Halfway(MADE), None, r"its class: Halfway, now FixedPlan"),
        (Halfway(MADE), Other(MADE), r"its class: Halfway, now Other"),
        (None, Halfway(MADE), r"its class: FixedPlan, now Halfway"),
        (Halfway(MADE), Halfway(MADE, half=8), r"half: 6, now 8"),
        (Halfway(MADE), Halfway(MADE, blocks=2), r"its stage from step 6: frozen 1, now 2"),
        (Halfway(MADE), Halfway(MADE, weight=0.5), r"its factors of losses: step 6\.h1: 1\.0, now 0\.5"),
        (Waiting(5), Waiting(6), r"patience: 5, now 6"),
        (Waiting(name="a"), Waiting(name="b"), r"name: \"a\", now \"b\""),
        (
            FixedPlan(((0, PIXEL_STAGE), (8, lock_stage(1)))),
            FixedPlan(((0, PIXEL_STAGE), (9, lock_stage(1)))),
            r"its stages: one begins at step 8 there alone",
        ),
        (
            FixedPlan(((0, PIXEL_STAGE), (8, lock_stage(1)))),
            FixedPlan(((0, PIXEL_STAGE), (8, lock_stage(1, fraction=0.5)))),
            r"its stage from step 8: taps\[0\]\.fraction 1\.0, now 0\.5",
        ),
        (FixedPlan(((0, PIXEL_STAGE), (8, lock_stage(1)))), FixedPlan(((0, PIXEL_STAGE),)), "step 8 there alone"),
    ],
)
def test_a_run_is_not_resumed_by_another_plan_even_before_the_two_part(
    tmp_path: Path, began: Plan | None, now: Plan | None, word: str, stopped: int
) -> None:
    train(settings(tmp_path), began, quiet=True)
    cut(tmp_path, stopped)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=f"another plan; .*{word}"):
        train(settings(tmp_path), now, resume=True, quiet=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.usefixtures("noise")
def test_the_same_plan_goes_on_whatever_it_has_been_asked_and_however_the_run_is_carried_out(tmp_path: Path) -> None:
    used = Halfway(settings(tmp_path))
    train(settings(tmp_path), used, quiet=True)
    whole = (tmp_path / "metrics.jsonl").read_text().count("\n")
    for plan in (used, Halfway(settings(tmp_path / "elsewhere", run=run_config(log_every=2)))):
        cut(tmp_path, 8)
        assert train(settings(tmp_path), plan, resume=True, quiet=True).step == 12
        assert (tmp_path / "metrics.jsonl").read_text().count("\n") == whole


def test_a_weight_that_rises_otherwise_is_another_plan() -> None:
    """Neither at its beginning nor at its end does the ramp differ from itself at another length."""
    rising = [LiveLatents(layers=(1,), ramp=ramp).build(1_000, 4, 6) for ramp in ("constant", "cosine")]
    facts = [plan_facts(plan, 1_000, 10) for plan in rising]
    assert differences(facts[0], facts[0]) == []
    found = differences(*facts)
    assert any('ramp: "constant", now "cosine"' in line for line in found)
    assert any("step 0.h1: 1.0, now 0.0" in line for line in found)
    assert len(json.dumps(facts[1])) < 5_000, "a checkpoint holds no thousand factors"


def test_arrays_sets_functions_and_configs_are_settings_by_what_they_are() -> None:
    @dataclass(eq=False)
    class Odd:
        table: torch.Tensor
        names: frozenset[str]
        limit: float
        config: Config
        choose: Any = max

        def stage(self, step: int, log: SwitchLog) -> Stage:
            return PIXEL_STAGE

    def odd(**changes: Any) -> dict[str, Any]:
        fields = {"table": torch.eye(2), "names": frozenset("ab"), "limit": float("inf"), "config": MADE}
        return plan_facts(Odd(**(fields | changes)), 4, 1)

    assert differences(odd(), odd(config=replace(MADE, out="elsewhere"))) == []
    for changes in ({"table": torch.zeros(2, 2)}, {"names": frozenset("abc")}, {"config": replace(MADE, seed=5)}):
        (line,) = differences(odd(), odd(**changes))
        assert next(iter(changes)) in line


# --- what is asked for on the way ------------------------------------------------------------------------------------


class Surprising:
    """Foretells pixels throughout, and does something else once it is trained by."""

    def __init__(self, stage: Stage, weights: dict[str, float] | None = None) -> None:
        self.later, self.factors, self.training = stage, weights or {}, False

    def stage(self, step: int, log: SwitchLog) -> Stage:
        if not self.training or step < 3:
            return PIXEL_STAGE
        return lock_stage(2) if step < 5 else self.later

    def weights(self, step: int, log: SwitchLog) -> dict[str, float]:
        return self.factors if self.training and step >= 3 else {}


TAPS = PIXEL_STAGE.taps


@pytest.mark.parametrize(
    ("stage", "word"),
    [
        (Stage(frozen=9, last=9, taps=TAPS), r"step 5: stage\.frozen: 9 frozen blocks"),
        (Stage(frozen=1, last=6, taps=TAPS), r"step 5: stage\.frozen: 2 blocks are frozen already"),
        (Stage(frozen=2, last=3, taps=TAPS), r"step 5: stage\.taps\[0\]\.depth: a loss at depth 4, above block 3"),
        (lock_stage(3, frozen=2), r"step 5: stage\.taps\[0\]\.target: predicts h3 with 2 blocks frozen"),
        (Stage(frozen=2, last=6, taps=()), r"step 5: stage\.taps: a stage without a loss"),
        (replace(lock_stage(2), taps=(Tap(depth=4, masked=True),)), r"step 5: stage\.taps: losses at masked positions"),
    ],
)
def test_every_stage_is_checked_when_it_is_entered(
    tmp_path: Path, noise: Noise, monkeypatch: pytest.MonkeyPatch, stage: Stage, word: str
) -> None:
    plan = Surprising(stage)
    go = loop.Run.go

    def going(self: loop.Run, *args: Any) -> Any:
        plan.training = True
        return go(self, *args)

    monkeypatch.setattr(loop.Run, "go", going)
    with pytest.raises(ConfigError, match=word):
        train(settings(tmp_path), plan, quiet=True)
    assert "error: the plan cannot be followed: step 5: stage" in (tmp_path / "events.log").read_text()
    newest = checkpoint.latest(tmp_path / "checkpoints")
    assert newest is not None
    assert newest.name == "step-00000004"


@pytest.mark.parametrize("weights", [{"h3": 2.0}, {"h2": float("nan")}, {"h2@4": 1.0}])
def test_factors_are_checked_at_every_step(
    tmp_path: Path, noise: Noise, monkeypatch: pytest.MonkeyPatch, weights: dict[str, float]
) -> None:
    plan = Surprising(lock_stage(2), weights)
    go = loop.Run.go

    def going(self: loop.Run, *args: Any) -> Any:
        plan.training = True
        return go(self, *args)

    monkeypatch.setattr(loop.Run, "go", going)
    with pytest.raises(ConfigError, match=r"step 3: plan\.weights"):
        train(settings(tmp_path), plan, quiet=True)


@pytest.mark.parametrize(
    ("weights", "word"),
    [
        ({"h2": 0.5}, r"step 0: plan\.weights: no loss is called 'h2'; those of the stage in force: pixels, h1"),
        ({"pixel": 0.5}, "no loss is called 'pixel'"),
        ({"h1@4": 0.5}, "no loss is called 'h1@4'"),
        ({"h1": float("inf")}, "inf of h1 is not a number"),
        ({"h1": None}, "None of h1 is not a number"),
    ],
)
def test_misspelt_factors_are_refused_before_anything_is_written(
    tmp_path: Path, weights: dict[str, Any], word: str
) -> None:
    class Weighted(FixedPlan):
        def weights(self, step: int, log: SwitchLog) -> dict[str, Any]:
            return weights

    with pytest.raises(ConfigError, match=word):
        train(settings(tmp_path / "run"), Weighted(((0, LIVE),)), quiet=True)
    assert not (tmp_path / "run").exists()


def test_factors_of_another_stages_losses_wait_for_it_and_one_in_the_middle_is_found(tmp_path: Path) -> None:
    class Weighted(FixedPlan):
        late = "h1"

        def weights(self, step: int, log: SwitchLog) -> dict[str, float]:
            return {"pixels": 1.0, self.late if log and step == 7 else "h1": 2.0}

    plan = Weighted(((0, PIXEL_STAGE), (5, lock_stage(1))))
    settings(tmp_path).check(plan)
    plan.__class__.late = "h2"
    with pytest.raises(ConfigError, match=r"step 7: plan\.weights: no loss is called 'h2'"):
        settings(tmp_path).check(plan)


# --- what it is computed in ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("noise")
def test_a_run_is_not_resumed_in_another_precision_and_auto_is_what_it_was_resolved_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = settings(tmp_path, run=run_config(precision="auto"))
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    train(made, quiet=True)
    assert json.loads((tmp_path / "config.json").read_text())["resolved"] == {"device": "cpu", "precision": "fp32"}
    cut(tmp_path, 8)
    before = (tmp_path / "config.json").read_text()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    with pytest.raises(ConfigError, match=r"computes in fp32, now auto is bf16 on cpu; say --run.precision fp32"):
        train(made, resume=True, quiet=True)
    with pytest.raises(ConfigError, match=r"run\.precision"):
        train(settings(tmp_path, run=run_config(precision="bf16")), resume=True, quiet=True)
    assert (tmp_path / "config.json").read_text() == before
    assert train(settings(tmp_path, run=run_config(precision="fp32")), resume=True, quiet=True).step == 12


@pytest.mark.usefixtures("noise", "threads")
def test_another_number_of_threads_is_said(tmp_path: Path) -> None:
    train(settings(tmp_path, run=run_config(threads=1)), quiet=True)
    cut(tmp_path, 8)
    train(settings(tmp_path, run=run_config(threads=1)), resume=True, quiet=True)
    assert "rounding" not in (tmp_path / "events.log").read_text()
    cut(tmp_path, 8)
    assert train(settings(tmp_path, run=run_config(threads=2)), resume=True, quiet=True).step == 12
    told = "on 2 threads, before on 1: from here on the same only up to rounding; --run.threads sets their number"
    assert told in (tmp_path / "events.log").read_text()


@pytest.mark.usefixtures("noise")
def test_another_device_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(settings(tmp_path), quiet=True)
    cut(tmp_path, 8)
    monkeypatch.setattr(loop, "resolved", lambda *_: {"device": "cuda (H100)", "precision": "fp32"})
    assert train(settings(tmp_path), resume=True, quiet=True).step == 12
    assert (
        "on cuda (H100), before on cpu: from here on the same only up to rounding"
        in (tmp_path / "events.log").read_text()
    )
