"""Plans that decide by what a run logs: recorded with a reason, resumed exactly, told as unknown before."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_loop import learned, same, weights
from test_same_plan import cut
from tiny import PIXEL_STAGE, config, lock_stage, run_config

import layerlock
from layerlock.config import Config
from layerlock.errors import ConfigError, LayerlockError
from layerlock.learn.observed import UNKNOWN, followed
from layerlock.learn.plan import Decision, Stage, Switch, SwitchLog
from layerlock.learn.plans import Auto, Plans, Plateau, Progressive
from layerlock.report.history import read_history
from layerlock.train import checkpoint, loop
from layerlock.train.folder import RunFolder
from layerlock.train.loop import Run, train

PLATEAU = Plateau(target="frozen", last=2, lines=1, patience=1, threshold=0.5, shortest=0.25, longest=0.5)
"""at one line each update: no loss halves from one to the next, so that every switch comes as early as it can"""

AUTO = Auto(target="frozen", last=2, lines=1, patience=1, threshold=0.98, earliest=0.2)
"""at one line each update: no norm grows as fast as ever for long"""


class Falling:
    """Freezes a block more whenever the mean of the losses so far is above the last one; remembers their sum."""

    def __init__(self, most: int = 2) -> None:
        self.most, self.frozen = most, 0
        self.total, self.count = 0.0, 0

    def stage(self, step: int, log: SwitchLog) -> Stage:
        return log[-1].stage if log else PIXEL_STAGE

    def observe(self, step: int, figures: Mapping[str, Any]) -> Decision | None:
        assert "timing" not in figures
        assert figures["step"] == step
        self.total, self.count = self.total + figures["loss"], self.count + 1
        if self.count < 3 or self.frozen == self.most or self.total / self.count < figures["loss"]:
            return None
        self.frozen, mean = self.frozen + 1, self.total / self.count
        self.total, self.count = 0.0, 0
        return Decision(lock_stage(self.frozen), f"{figures['loss']} is below the mean, {mean}")


def settings(out: Path, **changes: Any) -> Config:
    return config(out, **({"plan": Progressive(), "run": run_config(keep=9)} | changes))


def log_of(out: Path) -> SwitchLog:
    newest = checkpoint.latest(out / "checkpoints")
    assert newest is not None
    return checkpoint.read(newest).log


@pytest.mark.usefixtures("noise")
def test_what_is_decided_comes_at_the_next_update_and_is_told_with_its_reason(tmp_path: Path) -> None:
    outcome = layerlock.pretrain(config(tmp_path, plan=PLATEAU), quiet=True)
    assert outcome.step == 12
    found = learned(tmp_path)
    assert [line["frozen"] for line in found] == [0] * 3 + [1] * 3 + [2] * 6
    assert [line["targets"] for line in found] == ["pixels"] * 3 + ["h1"] * 3 + ["h2"] * 6
    log = log_of(tmp_path)
    assert [(switch.step, switch.stage.frozen) for switch in log] == [(3, 1), (6, 2)]
    assert all("lines in a row it fell by less than 50.00%" in switch.reason for switch in log)
    events = (tmp_path / "events.log").read_text()
    page = (tmp_path / "report.html").read_text()
    for switch in log:
        told = f"step {switch.step} switch: {switch.stage.frozen} blocks frozen, target h{switch.stage.frozen}: "
        assert told + switch.reason in events
        assert switch.reason in page
    assert "why it began" in page


@pytest.mark.usefixtures("noise")
@pytest.mark.parametrize(
    ("stop", "log_every", "make", "plan"),
    [
        (stop, log_every, make, plan)
        for make, plan in ((Falling, Progressive()), (None, replace(PLATEAU, shortest=0.1)), (None, AUTO))
        for stop, log_every in ((2, 1), (3, 1), (5, 1), (6, 2), (9, 1), (9, 2))
        if plan is not AUTO or log_every == 1  # six lines are too few for it
    ],
)
def test_a_run_killed_between_decisions_and_resumed_is_the_undisturbed_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop: int,
    log_every: int,
    make: Callable[[], Falling] | None,
    plan: Plans,
) -> None:
    run = run_config(log_every=log_every, checkpoint_every=stop)
    train(config(tmp_path / "whole", run=run, plan=plan), make and make(), quiet=True)
    update = Run.update

    def killed(self: Run, *args: Any, **kwargs: Any) -> Any:
        if self.step == stop + 2:
            raise KeyboardInterrupt
        return update(self, *args, **kwargs)

    monkeypatch.setattr(Run, "update", killed)
    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path / "cut", run=run, plan=plan), make and make(), quiet=True)
    monkeypatch.setattr(Run, "update", update)
    train(config(tmp_path / "cut", run=run, plan=plan), make and make(), resume=True, quiet=True)
    assert learned(tmp_path / "cut") == learned(tmp_path / "whole")
    assert same(weights(tmp_path / "cut"), weights(tmp_path / "whole"))
    assert log_of(tmp_path / "cut") == log_of(tmp_path / "whole")
    assert len({line["frozen"] for line in learned(tmp_path / "whole")}) > 1, "something was decided"


@pytest.mark.usefixtures("noise")
def test_what_goes_wrong_with_a_conclusion_does_not_cost_the_encoder(tmp_path: Path) -> None:
    class Odd(Falling):
        def conclusion(self) -> str:
            raise KeyError("count")

    train(settings(tmp_path), Odd(), quiet=True)
    assert (tmp_path / "encoder").exists()
    events = (tmp_path / "events.log").read_text()
    assert "step 12 warning: the plan's conclusion is missing: KeyError: 'count'" in events
    assert "step 12 end:" in events


@pytest.mark.usefixtures("noise")
def test_the_plan_that_was_given_remembers_nothing_and_can_be_given_again(tmp_path: Path) -> None:
    plan = Falling()
    for name in ("a", "b"):
        train(settings(tmp_path / name), plan, quiet=True)
    assert (plan.total, plan.count, plan.frozen) == (0.0, 0, 0)
    assert learned(tmp_path / "a") == learned(tmp_path / "b")
    cut(tmp_path / "a", 8)
    train(settings(tmp_path / "a"), plan, resume=True, quiet=True)
    assert learned(tmp_path / "a") == learned(tmp_path / "b")


@pytest.mark.usefixtures("noise")
@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda lines: lines[1:], "the line of step 1 is missing"),
        (lambda lines: [line | {"loss": line["loss"] * 1e3 ** line["step"]} for line in lines], "decides otherwise"),
    ],
)
def test_lines_that_are_gone_or_changed_are_noticed(
    tmp_path: Path, damage: Callable[[list[dict[str, Any]]], list[dict[str, Any]]], word: str
) -> None:
    train(settings(tmp_path), Falling(), quiet=True)
    cut(tmp_path, 8)
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("".join(json.dumps(line) + "\n" for line in damage(list(RunFolder(tmp_path).lines()))))
    before = metrics.read_text()
    with pytest.raises(LayerlockError, match=rf"metrics\.jsonl: .*{word}"):
        train(settings(tmp_path), Falling(), resume=True, quiet=True)
    assert metrics.read_text() == before


@pytest.mark.usefixtures("noise")
def test_another_plan_or_other_lines_to_observe_are_refused(tmp_path: Path) -> None:
    train(settings(tmp_path), Falling(), quiet=True)
    cut(tmp_path, 8)
    with pytest.raises(ConfigError, match="most: 2, now 1"):
        train(settings(tmp_path), Falling(most=1), resume=True, quiet=True)
    with pytest.raises(ConfigError, match=r"run\.log_every: 1, now 2"):
        train(settings(tmp_path, run=run_config(log_every=2)), Falling(), resume=True, quiet=True)


@pytest.mark.usefixtures("noise")
@pytest.mark.parametrize(
    ("answer", "follow", "word"),
    [
        (lambda: math.log(0), True, r"step 2: plan Odd: observe: it fails with ValueError"),
        (lambda: "freeze", True, "it gives 'freeze', not one Decision or None"),
        (lambda: [Decision(lock_stage(1), "a"), Decision(lock_stage(2), "b")], True, "not one Decision or None"),
        (lambda: Decision(lock_stage(1), " "), True, "a Decision has a Stage and a reason"),
        (lambda: Decision(PIXEL_STAGE, "why not"), True, "for the stage that is in force already"),
        (lambda: Decision(lock_stage(2), "why not"), False, r"for 2 frozen blocks, target h2, but stage\(step, log\)"),
        (lambda: Decision(lock_stage(9), "why not"), True, r"step 2: stage\.frozen: 9 frozen blocks"),
    ],
)
def test_a_decision_that_cannot_be_is_told_with_plan_and_step(
    tmp_path: Path, answer: Callable[[], Any], follow: bool, word: str
) -> None:
    class Odd:
        def stage(self, step: int, log: SwitchLog) -> Stage:
            return log[-1].stage if log and follow else PIXEL_STAGE

        def observe(self, step: int, figures: Mapping[str, Any]) -> Any:
            return answer() if step == 2 else None

    with pytest.raises(ConfigError, match=word):
        train(settings(tmp_path), Odd(), quiet=True)
    assert "step 2 error: the plan cannot be followed: step 2: " in (tmp_path / "events.log").read_text()


class Thawing(Falling):
    """Freezes two blocks, and then wants one of them back."""

    def observe(self, step: int, figures: Mapping[str, Any]) -> Decision | None:
        return {2: Decision(lock_stage(2), "freeze"), 6: Decision(lock_stage(1), "thaw")}.get(step)


@pytest.mark.usefixtures("noise")
def test_thawing_is_refused_before_it_is_recorded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"step 6: stage\.frozen: 2 blocks are frozen already; 1 would unfreeze some"):
        train(settings(tmp_path), Thawing(), quiet=True)
    newest = checkpoint.latest(tmp_path / "checkpoints")
    assert newest is not None
    assert [switch.step for switch in checkpoint.read(newest).log] == [2]


@pytest.mark.usefixtures("noise")
def test_a_decision_at_a_step_that_has_a_switch_already_is_refused(tmp_path: Path) -> None:
    class Both(Falling):
        """Switches at step 5, and decides for something else at the same step."""

        def stage(self, step: int, log: SwitchLog) -> Stage:
            return log[-1].stage if log else lock_stage(1) if step >= 5 else PIXEL_STAGE

        def observe(self, step: int, figures: Mapping[str, Any]) -> Decision | None:
            return Decision(lock_stage(2), "now") if step == 5 else None

    with pytest.raises(ConfigError, match="step 5: plan Both: observe: it decides, and there is another switch"):
        train(settings(tmp_path), Both(), quiet=True)


@pytest.mark.usefixtures("noise")
def test_stages_by_schedule_and_by_decision_go_together(tmp_path: Path) -> None:
    class Both(Falling):
        """A block by the schedule at step 3, another by decision four lines later."""

        def stage(self, step: int, log: SwitchLog) -> Stage:
            return log[-1].stage if log else lock_stage(1) if step >= 3 else PIXEL_STAGE

        def observe(self, step: int, figures: Mapping[str, Any]) -> Decision | None:
            self.count += figures["frozen"] == 1
            return Decision(lock_stage(2), "four lines") if self.count == 4 and figures["frozen"] == 1 else None

    train(settings(tmp_path, run=run_config(keep=9, checkpoint_every=1)), Both(), quiet=True)
    assert log_of(tmp_path) == (Switch(3, lock_stage(1)), Switch(7, lock_stage(2), "four lines"))
    whole, states = learned(tmp_path), sorted((tmp_path / "checkpoints").iterdir())
    for place in reversed(states[:-1]):  # a checkpoint of every step, at both switches and beside them
        cut(tmp_path, int(place.name[5:]))
        train(settings(tmp_path, run=run_config(keep=99)), Both(), resume=True, quiet=True)
        assert learned(tmp_path) == whole
    lines = [line for line in RunFolder(tmp_path).lines() if line["step"] <= 8]
    assert followed(Both(), 12, lines) == (Switch(0, PIXEL_STAGE), *log_of(tmp_path))


@pytest.mark.usefixtures("noise")
def test_the_report_of_a_run_that_was_cut_short_ends_where_its_lines_do(tmp_path: Path) -> None:
    made = config(tmp_path, plan=PLATEAU)
    layerlock.pretrain(made, quiet=True)
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("".join(line + "\n" for line in metrics.read_text().splitlines()[:5]))
    history = read_history(RunFolder(tmp_path), made, {})
    assert [(span.begin, span.end, span.frozen) for span in history.spans] == [(0, 3, 0), (3, 5, 1)]
    assert history.planned
    page = layerlock.write_report(tmp_path).read_text()
    assert f"After step 5 the stages are {UNKNOWN}." in page


@pytest.mark.usefixtures("noise")
def test_factors_may_name_losses_that_are_not_foretold(tmp_path: Path) -> None:
    class Weighted(Falling):
        def weights(self, step: int, log: SwitchLog) -> dict[str, float]:
            return {"h1": 0.5, "h2": 0.25}

        def observe(self, step: int, figures: Mapping[str, Any]) -> Decision | None:
            return {2: Decision(lock_stage(1), "a"), 5: Decision(lock_stage(2), "b")}.get(step)

    train(settings(tmp_path), Weighted(), quiet=True)
    factors = {"pixels": 1.0, "h1": 0.5, "h2": 0.25}
    for line in learned(tmp_path):
        assert line["loss"] == pytest.approx(factors[line["targets"]] * line["losses"][line["targets"]])


@pytest.mark.usefixtures("noise")
def test_lines_are_on_the_disk_before_the_checkpoint_that_needs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    save = checkpoint.save
    monkeypatch.setattr(loop, "sync", lambda path: order.append(f"{path.name}: {len(path.read_text().splitlines())}"))
    monkeypatch.setattr(
        checkpoint,
        "save",
        lambda *args, **kwargs: order.append("save") or save(*args, **kwargs),  # type: ignore[func-returns-value]
    )
    train(settings(tmp_path), Falling(), quiet=True)
    assert order == [entry for step in (4, 8, 12) for entry in (f"metrics.jsonl: {step}", "save")]


@pytest.mark.usefixtures("noise")
def test_a_plan_that_waits_for_norms_says_what_it_decided_by_and_when_it_never_does(tmp_path: Path) -> None:
    layerlock.pretrain(config(tmp_path / "does", plan=AUTO), quiet=True)
    first, second = log_of(tmp_path / "does")
    assert [(switch.stage.frozen, switch.stage.targets) for switch in (first, second)] == [(1, "h1"), (2, "h2")]
    assert "the weight norm of the patch projection and block 1 grows at" in first.reason
    assert "the weight norm of block 2 grows at" in second.reason
    page = (tmp_path / "does" / "report.html").read_text()
    assert first.reason in page
    assert "Chart of growth of weight norms, share of the fastest over steps: patch projection from 1 to" in page
    assert "No block froze" not in page
    assert "warning" not in (tmp_path / "does" / "events.log").read_text()
    layerlock.pretrain(config(tmp_path / "never", plan=replace(AUTO, patience=50)), quiet=True)
    assert {line["frozen"] for line in learned(tmp_path / "never")} == {0}
    assert (
        "warning: no block froze: over the learning rate the weight norm of the patch projection and block 1 "
        in (tmp_path / "never" / "events.log").read_text()
    )
    page = (tmp_path / "never" / "report.html").read_text()
    assert page.lower().count("no block froze: over the learning rate") == 2, "the caption and the event"
