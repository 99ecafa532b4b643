"""A run that goes on from a checkpoint of another by a plan of its own: their common past is there once, bit by bit."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layerlock.config import Config
from layerlock.encoders.run import FACTS, TENSORS, checkpoints_of, facts_of
from layerlock.errors import ConfigError, LayerlockError
from layerlock.files import sync
from layerlock.learn.observed import observes
from layerlock.train.folder import FREE, RunFolder
from layerlock.train.same_plan import plan_facts


def branch(before: RunFolder, step: int, config: Config) -> None:
    """Makes `config.out` a run that is the run `before` up to its checkpoint of `step`; `train(config, resume=True)`
    goes on from there by the config's plan, so that the whole is what that plan would have trained alone.

    The folder is there whole or not at all; weights are linked, not copied, where the disk can. Raises ConfigError
    where settings other than the plan differ, or the plans do before `step`, and where the plan switches at `step`
    between two log lines, which the run before mixes; LayerlockError where there is no such checkpoint, something is
    at `config.out`, or it cannot be written.
    """
    plan = config.check()
    before.refuse_another(config, free=(*FREE, "plan"))
    RunFolder(config.out).check(config, resume=False, overwrite=False)
    place = checkpoints_of(before.checkpoints).get(step)
    if place is None:
        raise LayerlockError(f"{before.path}: no checkpoint of step {step} to branch off from")
    own = plan_facts(plan, config.steps, config.run.log_every)
    try:
        facts = facts_of(place)
        if observes(plan) or any(switch["reason"] for switch in facts["log"]):
            raise ConfigError(["plan: a plan that decides by what it observes has no branches"])
        if _until(step, facts["plan"]) != _until(step, own):
            raise ConfigError([f"plan: its stages before step {step} are not those of {before.path}"])
        if str(step) in own["stages"] and step % config.run.log_every:
            every = config.run.log_every
            raise ConfigError([f"plan: it switches at step {step}, between log lines (run.log_every: {every})"])
        _write(before, place, config, facts | {"plan": own})
    except (OSError, ValueError, KeyError) as error:
        raise LayerlockError(f"{config.out}: no branch of {place} ({error})") from None


def _until(step: int, plan: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The stages of a plan that begin before `step`, and the factors of losses before it, from its `plan_facts`."""
    stages = {begin: stage for begin, stage in plan["stages"].items() if int(begin) < step}
    weights = {at: each for at, each in plan["weights"].items() if each and int(at.split()[1]) < step}
    return stages, weights


def _write(before: RunFolder, place: Path, config: Config, facts: Mapping[str, Any]) -> None:
    """Fills a folder beside `config.out` and moves it there; logs are cut at the checkpoint when the run goes on."""
    out = Path(config.out)
    part = RunFolder(out.with_name(f".{out.name}.part"))
    shutil.rmtree(part.path, ignore_errors=True)
    part.begin(config, resume=False, overwrite=False, plan=facts["plan"])
    own = (part.metrics, part.watch, part.events, part.index)
    for old, new in zip((before.metrics, before.watch, before.events, before.index), own, strict=True):
        if old.exists():
            shutil.copyfile(old, new)
    if before.references.exists():
        shutil.copytree(before.references, part.references)
    part.rewind(facts["step"])
    part.write_event(facts["step"], "branch", f"from {place}")
    into = part.checkpoints / place.name
    into.mkdir(parents=True)
    _link(place / TENSORS, into / TENSORS)
    (into / FACTS).write_text(json.dumps(facts))
    sync(into / TENSORS, into / FACTS, into)
    part.path.rename(out)
    sync(out.parent)


def _link(old: Path, new: Path) -> None:
    """The same file under another name; a copy where the file system has no such links. Nobody writes into either."""
    try:
        os.link(old, new)
    except OSError:
        shutil.copyfile(old, new)
