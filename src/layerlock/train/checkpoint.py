"""Resumable states: tensors in one safetensors file, the rest in JSON; a folder is written whole or not at all.

Nothing is pickled, so a run folder from elsewhere can be resumed without running anybody's code.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from layerlock.config import OptimConfig
from layerlock.errors import LayerlockError
from layerlock.learn.learner import Learner
from layerlock.learn.plan import Switch, SwitchLog
from layerlock.model.encoder import check_weights
from layerlock.train.optimizer import Moments, build_optimizer, moments_of

TENSORS, FACTS, LATEST = "state.safetensors", "state.json", "latest"


@dataclass(frozen=True, kw_only=True)
class State:
    """A run after `step` updates. `pending` are losses not yet logged, `monitor` what the monitors remember."""

    step: int
    log: SwitchLog
    tensors: dict[str, Tensor]
    pending: dict[str, Tensor]
    monitor: dict[str, Any]
    folder: Path


def save(
    folder: Path,
    *,
    step: int,
    log: SwitchLog,
    learner: Learner,
    optimizer: torch.optim.AdamW,
    pending: dict[str, Tensor],
    monitor: dict[str, Any],
    keep: int,
) -> Path:
    """Writes `folder/step-N`, points `latest` at it and removes all but the newest `keep`.

    Raises LayerlockError where it cannot be written; then the checkpoints that are there stay as they are.
    """
    place = folder / f"step-{step:08d}"
    part = folder / f".part-{step:08d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        save_file(_gather(learner, optimizer, pending), part / TENSORS)
        facts = {"step": step, "log": [asdict(switch) for switch in log], "monitor": monitor}
        (part / FACTS).write_text(json.dumps(facts))
        _sync(part / TENSORS, part / FACTS, part)
        shutil.rmtree(place, ignore_errors=True)
        part.rename(place)
        _point(folder, place.name)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        good = latest(folder)
        raise LayerlockError(
            f"{place}: the checkpoint could not be written ({error}); last good checkpoint: {good or 'none'}"
        ) from None
    for old in sorted(folder.glob("step-*"))[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return place


def _gather(learner: Learner, optimizer: torch.optim.AdamW, pending: dict[str, Tensor]) -> dict[str, Tensor]:
    tensors = {f"model/{name}": value for name, value in learner.state_dict().items()}
    for name, moments in moments_of(learner, optimizer).items():
        tensors |= {f"optim/{name}/{kind}": value for kind, value in moments.items()}
    tensors |= {f"pending/{name}": value for name, value in pending.items()}
    return {name: value.detach().contiguous() for name, value in tensors.items()}


def _sync(*paths: Path) -> None:
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _point(folder: Path, name: str) -> None:
    part = folder / f"{LATEST}.part"
    part.write_text(name + "\n")
    _sync(part)
    part.replace(folder / LATEST)
    _sync(folder)


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint of a `checkpoints` folder, or None."""
    whole = [path for path in sorted(folder.glob("step-*")) if (path / FACTS).exists() and (path / TENSORS).exists()]
    return whole[-1] if whole else None


def read(place: Path) -> State:
    """Reads a checkpoint folder. Raises LayerlockError where it is damaged."""
    try:
        facts = json.loads((place / FACTS).read_text())
        tensors = load_file(place / TENSORS)
        log = tuple(Switch(**entry) for entry in facts["log"])
        step, monitor = int(facts["step"]), dict(facts["monitor"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise LayerlockError(
            f"{place}: a damaged checkpoint ({error}); remove it to resume from the one before"
        ) from None
    pending = {name.removeprefix("pending/"): value for name, value in tensors.items() if name.startswith("pending/")}
    return State(step=step, log=log, tensors=tensors, pending=pending, monitor=monitor, folder=place)


def restore(state: State, learner: Learner, optim: OptimConfig) -> torch.optim.AdamW:
    """Puts a state into a learner that has entered the state's stage; returns the optimizer with its moments.

    Raises LayerlockError naming the first tensor that does not fit.
    """
    device = learner.vit.embed.weight.device
    model = {name.removeprefix("model/"): value for name, value in state.tensors.items() if name.startswith("model/")}
    check_weights(state.folder / TENSORS, model, learner.state_dict())
    learner.load_state_dict(model)
    moments: Moments = {}
    for name, value in state.tensors.items():
        if name.startswith("optim/"):
            parameter, kind = name.removeprefix("optim/").rsplit("/", 1)
            moments.setdefault(parameter, {})[kind] = value.to(device)
    return build_optimizer(learner, optim, moments)
