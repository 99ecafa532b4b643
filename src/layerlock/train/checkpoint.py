"""Resumable states: tensors in one safetensors file, the rest in JSON; a folder is written whole or not at all.

Nothing is pickled, so a run folder from elsewhere can be resumed without running anybody's code.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from layerlock.config import OptimConfig
from layerlock.encoders.run import FACTS, TENSORS, checkpoints_of
from layerlock.errors import LayerlockError
from layerlock.files import sync
from layerlock.learn.learner import Learner
from layerlock.learn.plan import Switch, SwitchLog, stage_from
from layerlock.model.encoder import check_weights
from layerlock.train.identity import Identity
from layerlock.train.optimizer import Moments, build_optimizer


@dataclass(frozen=True, kw_only=True)
class Facts(Identity):
    """What a checkpoint knows beside tensors: a run after `step` updates.

    `monitor` is what the monitors remember, `skipped` the files named so far, `stage` the stage in force.
    """

    step: int
    log: SwitchLog
    monitor: dict[str, Any]
    skipped: list[str]
    stage: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class State(Facts):
    """A checkpoint as read from `folder`; `pending` are losses not yet logged."""

    tensors: dict[str, Tensor]
    pending: dict[str, Tensor]
    folder: Path


def save(
    folder: Path,
    *,
    learner: Learner,
    moments: Moments,
    pending: dict[str, Tensor],
    facts: Facts,
    keep: int,
    keep_at: Collection[int] = (),
) -> Path:
    """Writes `folder/step-N` and removes all but the newest `keep` and those of the steps `keep_at`.

    Raises LayerlockError where it cannot be written; then the checkpoints that are there stay as they are.
    """
    place = folder / folder_of(facts.step)
    part = folder / f".part-{place.name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".part-*"):
            shutil.rmtree(left, ignore_errors=True)
        part.mkdir()
        save_file(_gather(learner, moments, pending), part / TENSORS)
        (part / FACTS).write_text(json.dumps(asdict(facts)))
        sync(part / TENSORS, part / FACTS, part)
        if place.exists():
            place.rename(folder / f".part-old-{place.name}")
        part.rename(place)
        sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        good = latest(folder)
        raise LayerlockError(
            f"{place}: the checkpoint could not be written ({error}); last good checkpoint: {good or 'none'}"
        ) from None
    kept = {folder_of(step) for step in keep_at}
    older = [old for old in sorted(folder.glob("step-*"))[:-keep] if old.name not in kept]
    for old in [*folder.glob(".part-old-*"), *older]:
        shutil.rmtree(old, ignore_errors=True)
    return place


def folder_of(step: int) -> str:
    """What the folder of a checkpoint is called."""
    return f"step-{step:08d}"


def _gather(learner: Learner, moments: Moments, pending: dict[str, Tensor]) -> dict[str, Tensor]:
    tensors = {f"model/{name}": value for name, value in learner.state().items()}
    for name, of_name in moments.items():
        tensors |= {f"optim/{name}/{kind}": value for kind, value in of_name.items()}
    tensors |= {f"pending/{name}": value for name, value in pending.items()}
    return {name: value.detach().contiguous() for name, value in tensors.items()}


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint of a `checkpoints` folder, or None."""
    return next(reversed(checkpoints_of(folder).values()), None)


def read(place: Path) -> State:
    """Reads a checkpoint folder. Raises LayerlockError where it is damaged."""
    try:
        facts = json.loads((place / FACTS).read_text())
        tensors = load_file(place / TENSORS)
        facts["log"] = tuple(Switch(**{**entry, "stage": stage_from(entry["stage"])}) for entry in facts["log"])
        pending = {name.removeprefix("pending/"): v for name, v in tensors.items() if name.startswith("pending/")}
        return State(**facts, tensors=tensors, pending=pending, folder=place)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise LayerlockError(
            f"{place}: a damaged checkpoint ({error}); remove it to resume from the one before"
        ) from None


def restore(
    state: State, learner: Learner, optim: OptimConfig, own: Mapping[str, nn.Parameter] | None = None
) -> torch.optim.Optimizer:
    """Puts a state into a learner that has entered the state's stage; returns the optimizer with its moments, or with
    those of some of the parameters, which this process updates.

    Raises LayerlockError naming the first tensor that does not fit.
    """
    model = {name.removeprefix("model/"): value for name, value in state.tensors.items() if name.startswith("model/")}
    kept = learner.state()
    check_weights(state.folder / TENSORS, model, kept)
    for name, value in kept.items():
        value.copy_(model[name])
    learner.new_heads = set()
    moments: Moments = {}
    for name, value in state.tensors.items():
        if name.startswith("optim/"):
            parameter, kind = name.removeprefix("optim/").rsplit("/", 1)
            moments.setdefault(parameter, {})[kind] = value
    return build_optimizer(learner, optim, moments, own)
