"""What an evaluation found: rows of a table, what was chosen and from what, as data and as `results.json`."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from layerlock.errors import LayerlockError
from layerlock.files import write_whole

FEWEST = 10
"""Of fewer groups of test videos there is no verdict: their interval is shorter than it says (docs/evaluation.md)."""


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval; from minus to plus infinity where nothing can be said."""

    mean: float
    low: float = -math.inf
    high: float = math.inf

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return math.isfinite(self.low)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table: the readout of one kind that was chosen for an encoder, or a constant prediction, on the
    test part.
    """

    encoder: str
    """name of the encoder, of a baseline, or of a constant prediction"""
    kind: str
    """attention, linear, cosine; constant where nothing is read"""
    block: int | None = None
    """the chosen block"""
    of_blocks: int | None = None
    fraction: float | None = None
    lr: float | None = None
    """the chosen learning rate, where anything was trained"""
    validation: float
    """the deciding metric on what it was chosen on: the validation part, for retrieval with the training part"""
    metrics: dict[str, Interval]
    """by name, on the test part"""
    baseline: bool
    ahead: dict[str, Interval] = field(default_factory=dict)
    """for the encoder: by how much the deciding metric is better than that of each baseline that is read in the same
    way, and of the constant prediction, on the same videos; these intervals cover all leads at once"""
    not_above: tuple[str, ...] = ()
    """those of `ahead` whose interval does not lie above zero, or is of too few groups"""
    undecided: tuple[str, ...] = ()
    """those of too few groups for a verdict"""


@dataclass(frozen=True, kw_only=True)
class Swept:
    """One readout of the sweep: `score` is the deciding metric on what is chosen on."""

    encoder: str
    kind: str
    block: int
    fraction: float
    lr: float | None
    score: float
    metrics: dict[str, Interval] = field(default_factory=dict)
    """by name, on the test part, of the learning rate that is the best of its block; {} of others"""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A test video that is shown: its number in the test part, what it is, what was said of it."""

    video: int
    name: str
    score: float
    label: str = ""
    predicted: str = ""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything that was found. `out` is the folder; `signal` the one that stopped it before it was done."""

    out: str
    encoder: str
    task: str
    metric: str
    """the deciding one"""
    higher_is_better: bool
    percent: tuple[str, ...]
    """metrics that are shown times 100"""
    data: dict[str, Any]
    """layout, how the parts came about, what a group is, videos and groups of each, classes, notes"""
    rows: tuple[Row, ...] = ()
    sweep: tuple[Swept, ...] = ()
    confusion: tuple[tuple[str, str, int], ...] = ()
    """(class, predicted class, test videos) of the chosen readout, most frequent mistakes first"""
    matrix: tuple[tuple[int, ...], ...] = ()
    """test videos by class (rows) and predicted class, where there are few classes"""
    best: tuple[Clip, ...] = ()
    worst: tuple[Clip, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    """(video, reason) of those that are missing from a figure"""
    dropped: tuple[tuple[str, str], ...] = ()
    """(readout, reason) of those that gave something that is not finite; they could not be chosen"""
    compared: int = 0
    """leads that are told; their intervals cover all of them at once"""
    signal: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    """the config and versions"""

    def by_block(self) -> dict[tuple[str, str], dict[int, Interval]]:
        """The deciding metric on the test part by block, of each encoder and kind of readout."""
        found: dict[tuple[str, str], dict[int, Interval]] = {}
        for one in sorted(self.sweep, key=lambda one: one.block):
            if one.metrics:
                found.setdefault((one.encoder, one.kind), {})[one.block] = one.metrics[self.metric]
        return found

    def save(self) -> Path:
        """Writes `results.json`. Raises LayerlockError."""
        path = Path(self.out) / "results.json"
        text = json.dumps(_finite(asdict(self)), indent=2, allow_nan=False) + "\n"
        try:
            write_whole(path, lambda part: part.write_text(text, encoding="utf-8", errors="surrogateescape"))
        except OSError as error:
            raise LayerlockError(f"{path}: cannot be written ({error.strerror})") from None
        return path


def _finite(value: Any) -> Any:
    """The same with null for infinite numbers, which JSON does not have."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
