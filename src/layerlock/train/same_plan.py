"""Whether a resumed run goes on by the plan that it began with: what a checkpoint knows of a plan, compared.

Of a plan given in code there is nothing else to hold on to: its class, its settings, all its stages with their steps,
and the factors of losses. Of a plan that decides by what it observes these are the stages that it goes through where it
decides nothing, and how often it observes is a setting.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerlock.config import Config
from layerlock.learn.observed import observes
from layerlock.learn.plan import FixedPlan, Plan, Stage, timeline, weighed
from layerlock.settings import to_dict
from layerlock.train.folder import FREE

MOST_STAGES = 200
"""So many stages are kept in full; a digest holds them all."""
SAMPLES = 16
"""So many steps' factors of losses are kept in full; a digest holds them all."""
DEEPEST = 4
"""Settings within settings are described down to here."""


def plan_facts(plan: Plan, steps: int, log_every: int) -> dict[str, Any]:
    """All that tells a plan from another, for a run of `steps` steps, as JSON holds it.

    What changes while the plan is asked for its stages is its memory and no setting of it, and is left out.
    """
    before = _settings(plan)
    stages = timeline(plan, steps)
    samples, factors = _factors(plan, steps, stages)
    after = _settings(plan)
    facts = {
        "class": type(plan).__qualname__,
        "settings": {name: value for name, value in before.items() if name in after and after[name] == value}
        | ({"run.log_every": log_every} if observes(plan) else {}),
        "stages": {str(begin): stage.plain for begin, stage in stages[:MOST_STAGES]},
        "all stages": _digest([(begin, stage.plain) for begin, stage in stages]),
        "weights": samples,
        "all weights": factors,
    }
    return dict(json.loads(json.dumps(facts)))


def _factors(plan: Plan, steps: int, stages: Sequence[tuple[int, Stage]]) -> tuple[dict[str, Any], str]:
    """The factors of losses at the beginnings of stages and some steps between them, and a digest of those of all."""
    shown = {*(begin for begin, _ in stages[:MOST_STAGES]), *range(0, steps, -(-steps // SAMPLES))}
    samples, digest = {}, hashlib.sha256()
    for step, _, weights in weighed(plan, steps, stages):
        digest.update(_digest(_plain(weights)).encode())
        if step in shown:
            samples[f"step {step}"] = _plain(weights)
    return samples, digest.hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What tells the plan of a run to resume from that which is given now, a line each; empty for the same."""
    said = []
    if old["class"] != new["class"]:
        said.append(f"its class: {old['class']}, now {new['class']}")
    else:
        both = old["settings"].keys() & new["settings"].keys()
        before, after = ({name: facts["settings"][name] for name in sorted(both)} for facts in (old, new))
        said += [f"{name}: {a}, now {b}" for name, a, b in _changes(before, after)]
    if old["all stages"] != new["all stages"]:
        said.append(_first_of_stages(old["stages"], new["stages"]))
    if old["all weights"] != new["all weights"]:
        changed = [f"{name}: {a}, now {b}" for name, a, b in _changes(old["weights"], new["weights"])]
        said.append(f"its factors of losses: {(changed or ['in a step between those that are kept'])[0]}")
    return [f"plan: the run to resume was trained by another plan; {text}" for text in said]


def _first_of_stages(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    for step in sorted(old.keys() | new.keys(), key=int):
        if old.get(step) != new.get(step):
            if step not in old or step not in new:
                return f"its stages: one begins at step {step} {'there' if step in old else 'now'} alone"
            name, a, b = next(_changes(old[step], new[step]))
            return f"its stage from step {step}: {name} {a}, now {b}"
    return f"its stages after the first {MOST_STAGES}"


def _changes(old: Any, new: Any, name: str = "") -> Iterator[tuple[str, str, str]]:
    """(dotted name, old value, new value) wherever two JSON values differ."""
    if old == new:
        return
    if isinstance(old, list) and isinstance(new, list):
        old, new = ({f"[{i}]": value for i, value in enumerate(values)} for values in (old, new))
    if not (isinstance(old, dict) and isinstance(new, dict)):
        before, after = ("nothing" if value is _NOTHING else json.dumps(value) for value in (old, new))
        yield name, before, after
        return
    for key in [*old, *(key for key in new if key not in old)]:
        inner = f"{name}{key}" if key.startswith("[") else f"{name}.{key}" if name else key
        yield from _changes(old.get(key, _NOTHING), new.get(key, _NOTHING), inner)


_NOTHING = object()


def _settings(plan: Plan) -> dict[str, Any]:
    """What a plan was made with: its fields or attributes, and those of its class."""
    settings: dict[str, Any] = {}
    for made in reversed(type(plan).__mro__[:-1]):
        settings |= {name: value for name, value in vars(made).items() if not hasattr(type(value), "__get__")}
    settings |= _fields(plan) | getattr(plan, "__dict__", {})
    if isinstance(plan, FixedPlan):
        del settings["timeline"]  # its stages are described as those of any plan
    return {name: _plain(value) for name, value in settings.items() if not name.startswith(("__", "_abc_", "_is_"))}


def _plain(value: Any, depth: int = 0) -> Any:
    """Any value as JSON holds it, by what it is and never by where it lies in memory."""
    match value:
        case None | bool() | int() | str():
            return value
        case float() | np.floating() | np.integer():
            return float(value) if math.isfinite(value) else str(value)
        case Tensor() | np.ndarray():
            return _array(torch.as_tensor(value))
    if depth == DEEPEST or callable(value):  # a network too
        return getattr(value, "__qualname__", type(value).__qualname__)
    return _parts(value, depth + 1)


def _parts(value: Any, depth: int) -> Any:
    """What a value that is made of others is made of."""
    match value:
        case Config():  # compared by itself
            return {name: part for name, part in to_dict(value).items() if name not in FREE}
        case Mapping():
            return {str(key): _plain(part, depth) for key, part in value.items()}
        case list() | tuple():
            return [_plain(part, depth) for part in value]
        case set() | frozenset():
            return sorted((_plain(part, depth) for part in value), key=json.dumps)
    inside = _fields(value) | getattr(value, "__dict__", {})
    return {"class": type(value).__qualname__} | {str(name): _plain(part, depth) for name, part in inside.items()}


def _fields(value: Any) -> dict[str, Any]:
    """The fields of a dataclass, those in slots too; none of anything else."""
    return {field.name: getattr(value, field.name) for field in fields(value)} if is_dataclass(value) else {}


def _array(values: Tensor) -> str:
    raw = values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return f"{tuple(values.shape)} of {values.dtype}: {hashlib.sha256(raw).hexdigest()[:16]}"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
