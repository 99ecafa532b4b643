"""What a plan decides by the figures that a run logs: asked for, checked, recorded, and followed in the lines of a run.

Nothing here waits for a device: a log line is there already when its plan is shown it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from layerlock.errors import ConfigError, LayerlockError, one_line
from layerlock.learn.plan import Decision, Observer, Plan, Stage, Switch, SwitchLog, timeline

UNSEEN = ("timing", "skipped")
"""what of a log line depends on the machine"""
UNKNOWN = "unknown from here on: the plan decides by what it observes"


def observes(plan: Plan) -> TypeGuard[Observer]:
    """Whether a plan decides by figures of the run, so that its stages are not foretold."""
    return getattr(plan, "observe", None) is not None


def conclusion(plan: Plan) -> str:
    """What a plan that observes has to say at the end of its run, in words; empty for nothing."""
    words = getattr(plan, "conclusion", None)
    return "" if words is None else str(words())


def own_copy(plan: Plan) -> Plan:
    """A plan for one run: what an observer remembers of it stays out of the one that was given."""
    return copy.deepcopy(plan) if observes(plan) else plan


def decided(plan: Plan, line: Mapping[str, Any], log: SwitchLog, before: Stage) -> SwitchLog:
    """The switch log after a plan was shown a log line in the stage `before`.

    Raises ConfigError, with the step and the plan, where it raises, gives something else than a Decision or None,
    decides where it switches or has decided already, or does not follow what it has decided.
    """
    step = int(line["step"])
    if (decision := _ask(plan, line)) is None:
        return log
    if any(entry.step == step for entry in log) or plan.stage(step, log) != before:
        raise _error(plan, step, "it decides, and there is another switch at this step already")
    log += (Switch(step, decision.stage, _reason(decision)),)
    if decision.stage == before:
        raise _error(plan, step, f"it decides for the stage that is in force already ({_named(before)})")
    if (given := plan.stage(step, log)) != decision.stage:
        raise _error(plan, step, f"it decides for {_named(decision.stage)}, but stage(step, log) gives {_named(given)}")
    return log


def _ask(plan: Plan, line: Mapping[str, Any]) -> Decision | None:
    """What a plan decides by a log line, None for nothing."""
    if not observes(plan):
        return None
    step = int(line["step"])
    figures = {name: value for name, value in line.items() if name not in UNSEEN}
    try:
        decision = plan.observe(step, copy.deepcopy(figures))
    except Exception as error:
        raise _error(plan, step, f"it fails with {type(error).__name__}: {one_line(error)}") from error
    if decision is not None and not isinstance(decision, Decision):
        raise _error(plan, step, f"it gives {decision!r}, not one Decision or None")
    if decision is not None and not (isinstance(decision.stage, Stage) and str(decision.reason).strip()):
        raise _error(plan, step, "a Decision has a Stage and a reason, in words")
    return decision


def remember(plan: Plan, lines: Sequence[Mapping[str, Any]], log: SwitchLog, wanted: set[int], path: Path) -> None:
    """Shows a plan the log lines of a run again, those of the steps `wanted`, so that it knows what it knew.

    Raises LayerlockError with the file `path` where one is missing or the plan decides otherwise than it did.
    """
    if not observes(plan):
        return
    lines = [line for line in lines if line["step"] in wanted]
    if missing := sorted(wanted - {line["step"] for line in lines}):
        raise LayerlockError(f"{path}: the line of step {missing[0]} is missing; the plan decides by what it observed")
    reasons = {entry.step: entry for entry in log if entry.reason}
    for line in lines:
        decision, entry = _ask(plan, line), reasons.get(line["step"])
        if (decision and (decision.stage, _reason(decision))) != (entry and (entry.stage, entry.reason)):
            raise LayerlockError(
                f"{path}: by the line of step {line['step']} the plan decides otherwise than it did in the run; "
                "was the file changed, or the code of the plan?"
            )


def followed(plan: Plan, steps: int, lines: Sequence[Mapping[str, Any]]) -> SwitchLog:
    """All stages that a plan goes through in a run of `steps` steps by what it observes in `lines`, the first among
    them; the plan itself remembers nothing of it. Raises what `decided` does.
    """
    if not observes(plan):
        return tuple(Switch(begin, stage) for begin, stage in timeline(plan, steps))
    plan, by_step = own_copy(plan), {line["step"]: line for line in lines}
    log: SwitchLog = ()
    first = stage = plan.stage(0, log)
    for step in range(1, steps):
        if step in by_step:
            log = decided(plan, by_step[step], log, stage)
        if (after := plan.stage(step, log)) != stage:
            log += (Switch(step, after),) if not log or log[-1].step != step else ()
            stage = after
    return (Switch(0, first), *log)


def _reason(decision: Decision) -> str:
    return " ".join(decision.reason.split())


def _named(stage: Stage) -> str:
    return f"{stage.frozen} frozen blocks, target {stage.targets}"


def _error(plan: Plan, step: int, text: str) -> ConfigError:
    return ConfigError([f"step {step}: plan {type(plan).__name__}: observe: {text}"])
