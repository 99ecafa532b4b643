"""Which readouts there are, the features that they share, and their first weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from layerlock import draws
from layerlock.encoders import FrozenEncoder, Summary
from layerlock.errors import LayerlockError
from layerlock.evaluation.config import EvaluateConfig
from layerlock.evaluation.splits.shots import DRAWS
from layerlock.evaluation.tasks import ReadoutTask, Shape
from layerlock.evaluation.tasks.task import SOLVED, TRAINED
from layerlock.features import Place
from layerlock.model.encoder import block_at
from layerlock.model.readout import AttentionReadout, EfficientReadout, LinearReadout, Readout, SolvedReadout
from layerlock.model.vit import initialize

Draw = tuple[int | None, int]
"""training videos of each class (None: all), and which draw of them"""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One readout of a sweep."""

    encoder: str
    kind: str
    block: int
    fraction: float
    """of the encoder's depth, as it was asked for"""
    lr: float = 0.0
    """learning rate; 0 where nothing is trained"""
    shots: int | None = None
    """training videos of each class that it is fitted to; None: all"""
    seed: int = 0
    """which of several readouts that differ in their first weights alone or, of few shots, in the videos drawn"""

    @property
    def place(self) -> Place:
        """Where its features come from."""
        return self.encoder, self.block

    @property
    def draw(self) -> Draw:
        """The training videos that it is fitted to."""
        return self.shots, self.seed

    def __str__(self) -> str:
        shots = "" if self.shots is None else f"/{self.shots} shots"
        return f"{self.encoder}/{self.kind}/{self.block}/{self.lr:g}{shots}{f'/seed {self.seed}' if self.seed else ''}"

    def with_seeds(self, count: int) -> tuple[Candidate, ...]:
        """The same for each of `count` readout seeds or each draw of few shots; one alone where nothing is drawn."""
        count = count if self.kind in TRAINED else 1 if self.shots is None else DRAWS
        return tuple(replace(self, seed=seed) for seed in range(count))


def candidates_of(config: EvaluateConfig, encoders: Mapping[str, FrozenEncoder]) -> tuple[Candidate, ...]:
    """All readouts of a sweep: fractions that mean the same block of an encoder are one."""
    return tuple(
        Candidate(encoder=name, kind=kind, block=block, fraction=fraction, lr=lr, shots=shots)
        for name, encoder in encoders.items()
        for kind in kinds_for(encoder, config)
        for block, fraction in blocks_of(config.depths, encoder).items()
        for lr in (sorted(set(config.lrs)) if kind in TRAINED else (0.0,))
        for shots in ((*config.few, None) if kind in SOLVED else (None,))
    )


def kinds_for(encoder: FrozenEncoder, config: EvaluateConfig) -> tuple[str, ...]:
    """The kinds of readout that read an encoder: of a `Summary` those that are solved, where the target is no map."""
    if not isinstance(encoder, Summary):
        return config.kinds
    return tuple(kind for kind in config.kinds if kind in SOLVED and config.row.target.kind != "map")


def blocks_of(fractions: Sequence[float], encoder: FrozenEncoder) -> dict[int, float]:
    """The blocks that fractions of an encoder's depth mean, each with the smallest fraction that means it."""
    return {block_at(fraction, encoder.depth): fraction for fraction in sorted(set(fractions), reverse=True)}


def build_readout(candidate: Candidate, encoder: FrozenEncoder, shape: Shape, seed: int) -> Readout:
    """A readout with its first weights, the same for all learning rates."""
    readout: Readout
    if candidate.kind == "attention" and shape.efficient:
        readout = EfficientReadout(
            encoder.width,
            times=encoder.grid[0],
            channels=shape.channels,
            queries=shape.heads,
            outputs=shape.outputs,
        )
    elif candidate.kind == "attention":
        readout = AttentionReadout(
            encoder.width,
            times=encoder.grid[0],
            channels=shape.channels,
            heads=shape.heads,
            outputs=shape.outputs,
            queries=shape.queries,
        )
    elif candidate.kind == "linear":
        readout = LinearReadout(encoder.width, outputs=shape.outputs, pooled=shape.pooled)
    else:
        times, appearance = encoder.grid[0], shape.appearance or isinstance(encoder, Summary)
        if times == 1 and not appearance:
            raise LayerlockError(f"appearance: nothing of {candidate.encoder} changes: it has one token in time")
        readout = SolvedReadout(
            encoder.width, times=times, outputs=shape.outputs, pooled=shape.pooled, appearance=appearance
        )
    seeded = f"/{candidate.seed}" if candidate.seed else ""
    name = f"readout/{candidate.kind}/{candidate.encoder}/{candidate.block}{seeded}"
    initialize(readout, draws.generator(seed, name))
    return readout


def shapes_of(
    task: ReadoutTask, candidates: Sequence[Candidate], encoders: Mapping[str, FrozenEncoder]
) -> dict[Candidate, Shape]:
    """The shape of each readout."""
    return {candidate: task.shape(candidate.kind, encoders[candidate.encoder]) for candidate in candidates}
