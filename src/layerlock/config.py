"""The whole of a run as data: one frozen dataclass behind the function, the command and `config.json`."""

from __future__ import annotations

import json
import math
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from layerlock.data.clips import ClipConfig
from layerlock.errors import ConfigError, LayerlockError
from layerlock.learn.decoders import BackboneDecoding
from layerlock.learn.learner import Decoding
from layerlock.learn.masking import Maskings, RandomMasking, SeveralMaskings
from layerlock.learn.networks import foreign_problems
from layerlock.learn.observed import observes
from layerlock.learn.plan import Plan, Stage, timeline, weighed, weight_problems
from layerlock.learn.plans import Freezing, Plans, Progressive
from layerlock.learn.step_cost import StepCost, step_cost
from layerlock.learn.step_memory import StepMemory, StepShape, step_memory
from layerlock.learn.targets import OWN
from layerlock.model.cost import Numerics, backbone_parameters
from layerlock.model.patches import Grid, token_grid
from layerlock.model.separate import SeparateDecoding
from layerlock.model.vit import FirstWeights, ViTConfig
from layerlock.settings import from_dict, type_problems

MOST_TOKENS = 2**18
"""of a clip: 14 times those of 64 frames of 384 x 384 in patches of 2 x 16 x 16"""

MOST_PARAMETERS = 10**11
"""of a backbone or a decoder; the largest published video encoder has 22 billion"""


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimizer; the learning rate warms up and decays to `end_lr`, `cycles` times. Times are fractions of the run.

    `mini_warmup` follows every switch of stage (Table 6). No weight decay on norms, biases and position tables.
    """

    name: str = "adamw"
    """adamw or sgd (`layerlock.train.optimizer.OPTIMIZERS`)"""
    lr: float = 3e-4
    """learning rate at the end of the warm-up"""
    start_lr: float = 0.0
    """learning rate at the start of the warm-up"""
    end_lr: float = 0.0
    """learning rate at the end of the decay"""
    decay: float | None = None
    """linear decay over this last fraction of the run, after a constant `lr`; None: cosine decay"""
    warmup: float = 0.02
    """linear warm-up, as a fraction of the run"""
    cycles: int = 1
    """number of warm-up and decay cycles, equal parts of the run; one for each sequential stage"""
    mini_warmup: float = 0.002
    """linear warm-up after each switch, as a fraction of the run"""
    weight_decay: float = 0.05
    """weight decay of matrices"""
    decay_tokens: bool = False
    """also apply weight decay to mask tokens and learned decoding tokens (V-JEPA)"""
    end_weight_decay: float | None = None
    """weight decay at the end of the run, reached by a cosine schedule; None: constant"""
    teacher_decay: float = 0.998
    """EMA decay of the teacher: the share of its weights that it keeps in a step (V-JEPA)"""
    end_teacher_decay: float | None = None
    """EMA decay at the end of the run, reached linearly; None: constant"""
    betas: tuple[float, float] = (0.9, 0.95)
    """betas of AdamW; the first is the momentum of sgd"""
    clip_norm: float | None = None
    """maximum norm of all gradients together; None: no clipping"""
    accumulate: int = 1
    """micro-batches a step; divides the batch"""

    def cycle_begins(self, steps: int) -> list[int]:
        """First updates of the cycles in `steps`, where equal shares of a plan begin too; then `steps` itself."""
        return [round(cycle / self.cycles * steps) for cycle in range(self.cycles + 1)]

    def problems(self) -> list[str]:
        """What is wrong, a line each."""
        found = []
        if self.lr <= 0 or self.end_lr < 0 or self.end_lr > self.lr:
            found.append(
                f"optim.lr: {self.lr} with optim.end_lr {self.end_lr}: lr must be above 0, and end_lr from 0 to lr"
            )
        found += [
            f"optim.{n}: {getattr(self, n)} must be from 0 to 1, a fraction of the run"
            for n in ("warmup", "mini_warmup")
            if not 0 <= getattr(self, n) <= 1
        ]
        if self.decay is not None and not 0 < self.decay <= 1:
            found.append(f"optim.decay: {self.decay} must be above 0 and at most 1, a fraction of the run")
        if self.cycles < 1:
            found.append(f"optim.cycles: {self.cycles} is not positive")
        elif 1 >= self.warmup > 1 / self.cycles:
            found.append(f"optim.warmup: {self.warmup} of the run does not fit in one of {self.cycles} cycles")
        if not all(0 <= beta < 1 for beta in self.betas):
            found.append(f"optim.betas: {self.betas} are not in [0, 1)")
        if not 0 <= self.start_lr <= max(self.lr, 0):
            found.append(f"optim.start_lr: {self.start_lr} is not between 0 and optim.lr")
        found += [
            f"optim.{n}: {getattr(self, n)} is negative"
            for n in ("weight_decay", "end_weight_decay")
            if (getattr(self, n) or 0) < 0
        ]
        found += [
            f"optim.{n}: {value} is not between 0 and 1"
            for n in ("teacher_decay", "end_teacher_decay")
            if (value := getattr(self, n)) is not None and not 0 <= value <= 1
        ]
        if self.clip_norm is not None and self.clip_norm <= 0:
            found.append(f"optim.clip_norm: {self.clip_norm} is not positive")
        if self.accumulate < 1:
            found.append(f"optim.accumulate: {self.accumulate} is not positive")
        return found


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How a run is carried out.

    No field here changes the result, except `device`, `precision` and `threads` (rounding), and `log_every`: on a CPU
    by rounding (`learn/shares.py`), elsewhere if the plan decides by logged figures.
    """

    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ...; several processes of a machine have a GPU each"""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 if the hardware supports it, else fp32"""
    compile: Literal["auto", "yes", "no"] = "auto"
    """compile each block with torch.compile; auto: on CUDA"""
    recompute: bool = False
    """activation checkpointing: recompute the activations of trained blocks in the backward pass"""
    shard: Literal["auto", "yes", "no"] = "auto"
    """divide the optimizer's moments among the processes of a job; auto: where all of them do not fit into each"""
    workers: int = 2
    """processes that decode, for each process that trains"""
    store_gb: float = 2.0
    """gigabytes of temporary file for decoded frames; used if the frames of all videos fit, so each is decoded once"""
    threads: int | None = None
    """CPU threads of the model; None: on a CPU OMP_NUM_THREADS, without it one for each processor"""
    log_every: int = 10
    """steps from one line of metrics.jsonl to the next"""
    checkpoint_every: int = 500
    """steps from one checkpoint to the next"""
    watch: str | None = None
    """folder or list of videos, 256 of them at most, of which figures of every depth are logged during training
    (watch.jsonl); with classes a probe over time too; None: no figures"""
    watch_every: int = 500
    """steps from one line of watch.jsonl to the next"""
    keep: int = 2
    """checkpoints to keep, the newest; a large number keeps all, for `analyze depth --steps all`"""
    keep_at: tuple[int, ...] = ()
    """steps after which there are further checkpoints, which are kept beside the newest"""

    def problems(self) -> list[str]:
        """What is wrong, a line each."""
        found = [
            f"run.{n}: {getattr(self, n)} is not positive"
            for n in ("log_every", "checkpoint_every", "watch_every", "keep")
            if getattr(self, n) < 1
        ]
        found += [f"run.keep_at: {step} is not positive" for step in self.keep_at if step < 1]
        if self.workers < 0:
            found.append(f"run.workers: {self.workers} is negative")
        if not 0 <= self.store_gb < math.inf:
            found.append(f"run.store_gb: {self.store_gb} is not a number of gigabytes, 0 or more")
        if self.threads is not None and self.threads < 1:
            found.append(f"run.threads: {self.threads} is not positive")
        return found


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run. `data` is a folder or a list of videos, or `synthetic`; `batch` counts clips per update."""

    recipe: str = "custom"
    """name of the recipe that this config started from"""
    data: str = "synthetic"
    """folder of videos, list of videos, tar shards, their URL (docs/data.md), or `synthetic`"""
    data_root: str | None = None
    """folder that paths of a list are relative to; None: the folder of the list"""
    out: str = "run"
    """run folder to write"""
    steps: int = 1_000
    """optimizer steps; schedules are fractions of it"""
    batch: int = 64
    """clips per step, of all processes together"""
    seed: int = 0
    """seed of weights, masks and clips"""
    first_weights: FirstWeights = "xavier"
    """initial weights: xavier (VideoMAE), or normal with standard deviation 0.02 (V-JEPA)"""
    heads: Literal["drawn", "solved"] = "drawn"
    """initial weights of new heads: drawn (random), or solved (ridge regression from their input to their target)"""
    init_from: str | None = None
    """encoder to take initial weights from: a run folder, hf:NAME, 4ds:FILE.npz, an authors' .pth (docs/encoders.md)"""
    clip: ClipConfig = field(default_factory=ClipConfig)
    model: ViTConfig = field(default_factory=ViTConfig)
    masking: Maskings = field(default_factory=RandomMasking)
    decoder: Decoding = field(default_factory=BackboneDecoding)
    plan: Plans = field(default_factory=Progressive)
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig = field(default_factory=RunConfig)

    @property
    def grid(self) -> Grid:
        """Tokens along time, height and width."""
        return token_grid(self.clip.frames, self.clip.size, self.clip.size, self.model.patch)

    @property
    def tokens(self) -> int:
        """Tokens of a clip, N."""
        return self.grid[0] * self.grid[1] * self.grid[2]

    @property
    def encoder_depth(self) -> int:
        """Blocks that see the context alone: all, where the decoder is a separate one."""
        return self.model.depth - (self.decoder.blocks if isinstance(self.decoder, BackboneDecoding) else 0)

    @property
    def context_tokens(self) -> int:
        """Tokens of a clip that the encoder sees in one pass, on average; of several passes the most."""
        return round(max(counts.context for counts in self.masking.counts(self.grid)))

    def build_plan(self) -> Plan:
        """The plan that `self.plan` describes, for this many steps and blocks."""
        return self.plan.build(self.steps, self.encoder_depth, self.model.depth)

    def check(self, plan: Plan | None = None) -> Plan:
        """The plan to train by: `plan`, or the config's own. Raises ConfigError with every problem there is, except
        networks that are not on this machine: `network_problems`.
        """
        found = type_problems(self)
        if found:
            raise ConfigError(found)
        structural = [*self.plan.problems(), *self._decoder_problems(), *self._masking_problems(), *self._too_large()]
        found = [*self._problems(), *structural]
        if self.steps > 0 and self.model.depth > 0 and not structural:
            try:
                plan = plan or self.build_plan()
                found += self._plan_problems(plan)
            except ValueError as error:
                found.append(str(error))
        if found or plan is None:
            raise ConfigError(list(dict.fromkeys(found)))
        return plan

    def _decoder_problems(self) -> list[str]:
        if isinstance(self.decoder, SeparateDecoding):
            masks = len(self.masking.masks) if isinstance(self.masking, SeveralMaskings) else 1
            found = self.decoder.problems()
            if self.decoder.mask_tokens not in {1, masks}:
                found.append(
                    f"decoder.mask_tokens: {self.decoder.mask_tokens} for {masks} masks a clip; it must be 1 or {masks}"
                )
            return found
        return self.decoder.problems(self.model.depth)

    def _masking_problems(self) -> list[str]:
        try:
            if self.tokens > MOST_TOKENS:
                return [f"clip.frames, clip.size, model.patch: {self.tokens:,} tokens a clip; at most {MOST_TOKENS:,}"]
            return self.masking.problems(self.grid)
        except ValueError as error:
            return [f"model.patch: {error}"]

    def _too_large(self) -> list[str]:
        """Networks that nobody has the memory for, and that would take minutes to find that out."""
        blocks = {"model": self.model}
        if isinstance(self.decoder, SeparateDecoding):
            blocks["decoder"] = self.decoder.block
        return [
            f"{name}.depth, {name}.width, {name}.mlp: {count:,} parameters; at most {MOST_PARAMETERS:,}"
            for name, model in blocks.items()
            if (count := backbone_parameters(model)) > MOST_PARAMETERS
        ]

    def _plan_problems(self, plan: Plan) -> list[str]:
        found: list[str] = []
        stages = timeline(plan, self.steps)
        before: Stage | None = None
        for begin, stage in stages:
            found += [f"step {begin}: {problem}" for problem in self.stage_problems(stage, before)]
            before = stage
        found += [] if found else self.network_problems(stage for _, stage in stages)
        if not found and not observes(plan):  # one that observes may go elsewhere, and is checked step by step
            found += self._weight_problems(plan, stages)
        return found + self._cycle_problems({begin for begin, _ in stages})

    def stage_problems(self, stage: Stage, before: Stage | None) -> list[str]:
        """What is wrong with entering `stage` after another one (None: at the start), a line each, field first."""
        freeze_decoder = isinstance(self.plan, Freezing) and self.plan.freeze_decoder
        found = stage.problems(self.model.depth, self.encoder_depth, freeze_decoder)
        names_positions = all(counts.predicted for counts in self.masking.counts(self.grid))
        if any(tap.masked for tap in stage.taps) and not names_positions:
            found.append("stage.taps: losses at masked positions need masking.predict (or another masking)")
        if stage.over_time and self.model.patch[0] == 1:
            found.append(
                f"{self._over_time_field()}: changes over time need patches of several frames; model.patch is "
                f"{self.model.patch}"
            )
        if before is not None and stage.frozen < before.frozen:
            found.append(f"stage.frozen: {before.frozen} blocks are frozen already; {stage.frozen} would unfreeze some")
        return found

    def network_problems(self, stages: Iterable[Stage], *, fetch: bool = False) -> list[str]:
        """What is wrong with the frozen encoders that targets of stages are made by, a line each, field first.

        Without `fetch` those that are not on this machine are not asked.
        """
        asked = {(name, stage.blocks_of(name)) for stage in stages for name in stage.networks if name not in OWN}
        return [
            f"{self.network_field(name)}: {problem}"
            for name, blocks in sorted(asked)
            for problem in foreign_problems(name, blocks, self.clip.frames, fetch=fetch)
        ]

    def network_field(self, network: str) -> str:
        """Where a frozen encoder is named: by the plan that the config describes, or by one given in code."""
        return "plan.network" if getattr(self.plan, "network", None) == network else "stage.taps.target.network"

    def _over_time_field(self) -> str:
        """Where changes over time are asked for: by the plan that the config describes, or by one given in code."""
        asked = {
            "plan.patches": getattr(self.plan, "patches", None) == "motion",
            "plan.motion_weight": getattr(self.plan, "motion_weight", 0) > 0,
        }
        return " and ".join(name for name, is_set in asked.items() if is_set) or "stage.taps"

    def _weight_problems(self, plan: Plan, stages: Sequence[tuple[int, Stage]]) -> list[str]:
        """Those of the first step that has any."""
        labels = {stage.label(tap) for _, stage in stages for tap in stage.taps}
        for step, stage, weights in weighed(plan, self.steps, stages):
            if wrong := weight_problems(weights, stage, labels):
                return [f"step {step}: {problem}" for problem in wrong]
        return []

    def _cycle_problems(self, stage_begins: set[int]) -> list[str]:
        cycles = self.optim.cycles
        if (
            not 2 <= cycles <= self.steps
            or len(stage_begins) < 2
            or set(self.optim.cycle_begins(self.steps)[:-1]) <= stage_begins
        ):
            return []
        return [
            f"optim.cycles: {cycles} equal cycles must begin where stages begin, and the plan has "
            f"{len(stage_begins)} stages; 1 suits any plan"
        ]

    def _problems(self) -> list[str]:
        found = [
            f"{name}: {value} is not positive"
            for name, value in (("steps", self.steps), ("batch", self.batch))
            if value < 1
        ]
        found += [
            *self.clip.problems(),
            *self.model.problems(),
            *self.optim.problems(),
            *self.run.problems(),
        ]
        if self.steps > 0:
            kept = (step for step in self.run.keep_at if step > self.steps)
            found += [f"run.keep_at: {step:,} is after the last of {self.steps:,} steps" for step in kept]
        if self.clip.per_decode > 0 and self.batch % self.clip.per_decode:
            found.append(f"clip.per_decode: {self.clip.per_decode} does not divide a batch of {self.batch}")
        if 1 <= self.steps < self.optim.cycles:
            found.append(f"optim.cycles: {self.optim.cycles} do not fit in {self.steps} steps")
        if self.optim.accumulate > 0 and self.batch % self.optim.accumulate:
            found.append(f"optim.accumulate: {self.optim.accumulate} does not divide a batch of {self.batch}")
        return found

    def share_problems(self, processes: int, stages: Iterable[Stage]) -> list[str]:
        """What is wrong with each batch in equal shares for so many processes, a line each, field first."""
        share, left = divmod(self.batch, processes)
        if left or not share:
            return [f"batch: {self.batch} clips cannot be divided equally among {processes} processes"]
        parts = {"clip.per_decode": self.clip.per_decode, "optim.accumulate": self.optim.accumulate}
        found = [
            f"{name}: {value} does not divide the {share} clips that each of {processes} processes has of a batch"
            for name, value in parts.items()
            if share % value
        ]
        if processes > 1 and any(tap.motion_weight for stage in stages for tap in stage.taps):
            field = "plan.motion_weight" if getattr(self.plan, "motion_weight", 0) else "stage.taps.motion_weight"
            found.append(
                f"{field}: weights are relative to the motion of a whole batch; {processes} processes have shares"
            )
        return found

    def cost(self, stage: Stage) -> StepCost:
        """FLOPs of one clip in one step of `stage`."""
        return step_cost(self.model, self.decoder, stage, self.masking.counts(self.grid), self.grid)

    def memory(self, stage: Stage, numerics: Numerics) -> StepMemory:
        """What a step of `stage` holds."""
        shape = StepShape(
            model=self.model,
            decoding=self.decoder,
            stage=stage,
            grid=self.grid,
            numerics=numerics,
            recompute=self.run.recompute,
        )
        return step_memory(shape, self.masking.counts(self.grid))


def load_config(path: str | Path) -> Config:
    """The config that a run wrote. Raises LayerlockError or ConfigError where the file is not one."""
    try:
        values = json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise LayerlockError(f"{path}: missing") from None
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise LayerlockError(f"{path}: cannot be read ({error})") from None
    if not isinstance(values, dict) or "config" not in values:
        raise LayerlockError(f"{path}: not the config of a run")
    return typing.cast(Config, from_dict(Config, values["config"]))
