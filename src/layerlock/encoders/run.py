"""A checkpoint of a run as an encoder, `RUN@STEP`: the backbone after so many steps of training.

A checkpoint is a folder `checkpoints/step-N` of the run: tensors as safetensors, facts as JSON. What the model is, and
its clips, the run's config.json says. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from layerlock.errors import LayerlockError
from layerlock.model.encoder import ClipShape, Encoder, check_weights

TENSORS, FACTS = "state.safetensors", "state.json"
"""files of a checkpoint"""
BACKBONE = "model/vit."
"""begins the names of the backbone's tensors"""


def run_and_step(name: str) -> tuple[Path, int] | None:
    """The run folder and the step that `RUN@STEP` names; None for any other name, and for the path of something that
    exists.
    """
    run, at, step = name.rpartition("@")
    named = bool(at) and step.isdecimal() and not Path(name).exists() and (Path(run) / "checkpoints").is_dir()
    return (Path(run), int(step)) if named else None


def checkpoints_of(folder: Path) -> dict[int, Path]:
    """The whole checkpoints of a `checkpoints` folder by step, in order."""
    places = {path.name.removeprefix("step-"): path for path in folder.glob("step-*")}
    whole = {
        int(step): path
        for step, path in places.items()
        if step.isdecimal() and (path / FACTS).exists() and (path / TENSORS).exists()
    }
    return dict(sorted(whole.items()))


def facts_of(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint knows beside tensors. Raises LayerlockError where it cannot be read."""
    return _table(checkpoint / FACTS)


def open_checkpoint(run: Path, step: int) -> Encoder:
    """The backbone of a run after `step` steps, in float32 on the CPU, with the clips of its training.

    Raises LayerlockError for a step without a checkpoint, one that is damaged, and one that is not of this run's model
    and plan.
    """
    found = checkpoints_of(run / "checkpoints")
    if step not in found:
        there = f"there are those of steps {', '.join(map(str, found))}" if found else "there is none"
        raise LayerlockError(f"{run}: no checkpoint of step {step}; {there}")
    config = _table(run / "config.json").get("config")
    if not isinstance(config, dict) or not isinstance(config.get("clip"), dict):
        raise LayerlockError(f"{run / 'config.json'}: not the config of a run")
    shape = {field.name: config["clip"].get(field.name) for field in fields(ClipShape)}
    encoder = Encoder.from_settings({"model": config.get("model"), "clip": shape}, run / "config.json")
    _check_facts(found[step], step, run / "plan.json")
    weights = _backbone(found[step] / TENSORS)
    check_weights(found[step] / TENSORS, weights, encoder.vit.state_dict())
    encoder.vit.load_state_dict(weights)
    return encoder


def _backbone(path: Path) -> dict[str, Tensor]:
    """The backbone's tensors alone: moments are not read."""
    try:
        with safe_open(path, "pt") as tensors:
            names = [name for name in tensors.keys() if name.startswith(BACKBONE)]  # noqa: SIM118  no dict
            return {name.removeprefix(BACKBONE): tensors.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise LayerlockError(f"{path}: not a readable safetensors file ({error})") from None


def _check_facts(checkpoint: Path, step: int, plan: Path) -> None:
    """LayerlockError for a checkpoint of another step than its folder says, or of a run with other stages."""
    path, facts = checkpoint / FACTS, facts_of(checkpoint)
    if facts.get("step") != step:
        raise LayerlockError(f"{path}: a checkpoint of step {facts.get('step')!r}, in the folder of step {step}")
    if plan.exists() and _stages(facts.get("plan")) != _stages(_table(plan)):
        raise LayerlockError(f"{path}: the checkpoint of another run: its plan is not that of {plan}")


def _stages(plan: Any) -> Any:
    return plan.get("all stages") if isinstance(plan, Mapping) else None


def _table(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise LayerlockError(f"{path}: cannot be read ({error})") from None
    if not isinstance(values, dict):
        raise LayerlockError(f"{path}: not a JSON object")
    return values
