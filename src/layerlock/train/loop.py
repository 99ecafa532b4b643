"""The training loop, to be read from top to bottom.

Order within a step: figures of depths (if the run is watched), switch (if the plan says so), batch, gradients, update,
log, what the plan decides by the line, checkpoint. A checkpoint after n updates holds all that update n + 1 depends on;
every random draw is a function of (seed, purpose, global sample index).

Of several processes each goes through all of this with its share of every batch; what they exchange is in `together`
and `exchange`. The first one alone writes.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from layerlock import exchange, together
from layerlock.config import Config
from layerlock.data import Batch, Source, batches, check_memory, open_source, save_source, short_name
from layerlock.data.augment import augment
from layerlock.data.index.listing import printable
from layerlock.errors import ConfigError, LayerlockError, one_line
from layerlock.files import sync
from layerlock.learn.head_start import batches_needed, start_heads
from layerlock.learn.learner import Learner, StepFigures
from layerlock.learn.networks import fingerprints
from layerlock.learn.observed import conclusion, decided, observes, own_copy, remember
from layerlock.learn.plan import Plan, Stage, Switch, SwitchLog, timeline, weight_problems, weighted, weights_of
from layerlock.learn.shares import shared_step
from layerlock.model.encoder import save_backbone
from layerlock.process import keep_freed_memory, put_back
from layerlock.progress import INDEXING, Progress
from layerlock.signals import StopSignal
from layerlock.train import checkpoint
from layerlock.train.device import (
    is_out_of_memory,
    memory_bytes,
    pick_compile,
    pick_device,
    pick_precision,
    resolved,
    set_threads,
    threads_of,
)
from layerlock.train.folder import RunFolder
from layerlock.train.identity import Identity, refuse_different
from layerlock.train.meter import Clock, Meter, in_words
from layerlock.train.monitors import CollapseMonitor, not_finite, of_the_job, weight_norms
from layerlock.train.optimizer import Moments, build_optimizer, moments_of, optimizer_problems, schedule
from layerlock.train.owners import pick_owners
from layerlock.train.previews import CLIPS, save_preview
from layerlock.train.same_plan import differences, plan_facts
from layerlock.train.schedule import teacher_decay
from layerlock.train.start import weights_from
from layerlock.train.watch import Watch, clip_shape, open_watch

GRADIENT, OBJECTIVE = "gradient_norm", "objective/"
"""Figures beside the losses: the norm of all gradients before they are clipped, each loss times its factor."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a call ended: in `folder`, after `step` updates, by the signal of that number or (None) at the end."""

    folder: Path
    step: int
    signal: int | None = None


@put_back()
@together.job()
def train(
    config: Config,
    plan: Plan | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Trains by `plan` (without one, the config's own) and leaves a run folder behind.

    Raises ConfigError for a config that cannot be trained, LayerlockError for data, disk, memory or losses that stop
    the run; the last checkpoint is whole in every case. Several processes of a job train together, and end together.
    """
    plan = config.check(plan)
    stages = [stage for _, stage in timeline(plan, config.steps)]
    if problems := config.share_problems(together.size(), stages):
        raise ConfigError(problems)
    check_memory(config.clip, config.batch // together.size())
    if problems := optimizer_problems(config.optim) + config.network_problems(stages, fetch=True):
        raise ConfigError(problems)
    device = pick_device(config.run.device)
    refuse_different(config, device)
    if together.size() > 1 and device.type == "cuda":
        torch.cuda.set_device(device)
    keep_freed_memory(device)
    set_threads(config.run.threads, device)
    folder = RunFolder(config.out)
    try:
        if together.of_first(lambda: together.restarted(folder.launch)):
            resume, overwrite = True, False
        if together.leads():
            folder.check(config, resume=resume, overwrite=overwrite)
        with folder.lock if together.leads() else nullcontext():
            with Progress(INDEXING, quiet) as progress:
                source = open_source(
                    config.data,
                    config.clip,
                    config.seed,
                    root=config.data_root,
                    workers=config.run.workers,
                    progress=progress,
                    clips=config.steps * config.batch // together.size(),
                    store_bytes=int(config.run.store_gb * 1e9) // together.local_size(),
                    saved=folder.index if resume else None,
                )
            examples = first_clips(source, min(1, config.run.workers))
            watch = open_watch(config, folder, quiet=quiet) if together.leads() else None
            place = together.of_first(lambda: checkpoint.latest(folder.checkpoints) if resume else None)
            state = checkpoint.read(place) if place else None
            with StopSignal() as stop, Progress("step", quiet or not together.leads(), out=True, patience=0) as bar:
                run = Run(config, plan, folder, source, device, examples, bar=bar, state=state, watch=watch)
                run.begin(resume=resume, overwrite=overwrite)
                return run.go(stop)
    except (OSError, SafetensorError) as error:
        good = checkpoint.latest(folder.checkpoints)
        raise LayerlockError(f"{folder.path}: {error}; last good checkpoint: {good or 'none'}") from None
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        wishes = "a larger --optim.accumulate, a smaller --batch, or --run.recompute"
        raise LayerlockError(f"out of memory on {device} ({str(error).splitlines()[0]}); try {wishes}") from None


class Coming:
    """The batches of a loader, of which the next few can be looked at before they are taken."""

    def __init__(self, loader: Iterator[Batch]) -> None:
        self.loader = loader
        self.seen: deque[Batch] = deque()

    def peek(self, count: int) -> list[Batch]:
        """The next batches, fewer where the loader ends."""
        self.seen.extend(islice(self.loader, max(0, count - len(self.seen))))
        return list(islice(self.seen, count))

    def __next__(self) -> Batch:
        return self.seen.popleft() if self.seen else next(self.loader)


class Run:
    """One run in progress: what is built once, and the loop over it."""

    def __init__(
        self,
        config: Config,
        plan: Plan,
        folder: RunFolder,
        source: Source,
        device: torch.device,
        examples: Batch,
        *,
        bar: Progress,
        state: checkpoint.State | None,
        watch: Watch | None,
    ) -> None:
        self.config, self.plan, self.folder, self.source, self.device = config, own_copy(plan), folder, source, device
        self.bar, self.resumed, self.watch = bar, state, watch
        self.step: int = state.step if state else 0
        self.saved = self.step if state else -1
        self.log: SwitchLog = state.log if state else ()
        stages = [*(stage for _, stage in timeline(plan, config.steps)), *(switch.stage for switch in self.log)]
        self.identity = Identity(
            data=source.fingerprint,
            plan=plan_facts(plan, config.steps, config.run.log_every),
            networks=fingerprints({name for stage in stages for name in stage.networks}, config.clip.frames),
            **resolved(device, pick_precision(config.run, device)),
            threads=threads_of(device),
            processes=together.size(),
        )
        self.labels = None if observes(plan) else {stage.label(tap) for stage in stages for tap in stage.taps}
        self.meter = Meter({n: v.to(self.device) for n, v in state.pending.items()} if state else None)
        self.monitor = CollapseMonitor(state.monitor if state else None)
        self.warned: set[str] = set()
        self.skipped: set[str] = set(state.skipped) if state else set()
        self.exchanged = 0
        last = max(self.step - 1, 0)  # the update before; what was decided there is in the log, what is foretold is not
        stage = plan.stage(last, tuple(s for s in self.log if s.step < last or (s.step == last and s.reason)))
        if state:
            self.identity.refuse_another(state, config)
            if state.stage != stage.plain:
                raise ConfigError(["plan: the run to resume was trained by another plan; it was in another stage here"])
            self.remember()
        self.learner = build_learner(config, device, stage, init_from=None if state else config.init_from)
        self.owners = pick_owners(config, plan, device)
        self.owners.enter(self.learner.live())
        own = self.owners.own(self.learner.live())
        if state:
            self.optimizer = checkpoint.restore(state, self.learner, config.optim, own)
        else:
            self.optimizer = build_optimizer(self.learner, config.optim, own=own)
        self.examples = examples.to(device)

    def begin(self, *, resume: bool, overwrite: bool) -> None:
        """Makes the folder ready and says what is done; nothing is written there before."""
        if together.leads():
            self.prepare(resume=resume, overwrite=overwrite)
            if self.owners.divided:
                self.tell("shard", f"moments are divided among {together.size()} processes")
        for path, reason in self.source.rejected:
            self.skip(path, reason)

    def prepare(self, *, resume: bool, overwrite: bool) -> None:
        """Writes what a run folder has from the beginning, and takes back what is later than the checkpoint."""
        folder, own, before = self.folder, self.identity, self.resumed
        if resume and before is None and (began := folder.plan_facts()) and (different := differences(began, own.plan)):
            raise ConfigError(different)
        resolved = {"device": own.device, "precision": own.precision}
        folder.begin(self.config, resume=resume, overwrite=overwrite, resolved=resolved, plan=own.plan)
        save_source(self.source, self.config.data, folder.index, self.config.data_root)
        folder.rewind(self.step if before else -1)
        if before:
            self.tell("resume", f"from {before.folder}")
            if before.device != own.device:
                self.warn(f"on {own.device}, before on {before.device}: from here on the same only up to rounding")
            elif before.processes != own.processes:
                told = f"with {own.processes} processes, before with {before.processes}"
                self.warn(f"{told}: from here on the same only up to rounding")
            elif before.threads != own.threads:
                told = f"on {own.threads} threads, before on {before.threads}"
                self.warn(f"{told}: from here on the same only up to rounding; --run.threads sets their number")

    def remember(self) -> None:
        """Shows the plan again what it observed up to the checkpoint. Raises LayerlockError where that is not there."""
        until, every = min(self.step, self.config.steps - 1), self.config.run.log_every
        wanted = {*range(every, until + 1, every), *(switch.step for switch in self.log)}
        remember(self.plan, list(self.folder.lines()), self.log, wanted, self.folder.metrics)

    def loader(self, batch: int, start: int, stop: int, workers: int) -> Generator[Batch]:
        """This process's share of the batches of the steps start .. stop - 1."""
        own, processes = together.rank(), together.size()
        return batches(self.source, batch=batch, start=start, stop=stop, workers=workers, rank=own, ranks=processes)

    def go(self, stop: StopSignal) -> Outcome:
        """Trains to the end, or to a signal; saves, exports, and says how it ended."""
        config, received = self.config, 0
        self.clock = Clock()
        with closing(self.loader(config.batch, self.step, config.steps, config.run.workers)) as loader:
            coming = Coming(loader)
            while self.step < config.steps and not (received := together.largest(stop.received or 0)):
                self.look()
                stage = self.plan.stage(self.step, self.log)
                if stage != self.learner.stage:
                    self.switch(stage)
                if self.learner.new_heads:
                    self.start_heads(coming)
                with self.clock.waiting():
                    batch = next(coming)
                for path, reason in together.gathered(batch.skipped):
                    self.skip(path, reason)
                due = self.line_is_due()
                figures = self.update(batch, watch=due)
                self.step += 1
                self.clock.clips += config.batch
                if due:
                    self.observe(self.write_line(figures))
                if self.checkpoint_is_due():
                    self.save()
        self.save()
        if not received:
            self.look()
            self.preview()
            with self.sparing("the plan's conclusion is missing"):
                if text := conclusion(self.plan):
                    self.warn(text)
        self.export()
        self.tell("stop" if received else "end", f"after step {self.step} of {config.steps}")
        together.meet()
        return Outcome(folder=self.folder.path, step=self.step, signal=received or None)

    def line_is_due(self) -> bool:
        """Whether the coming update is logged: every so often, and the last of each stage: no line mixes two."""
        after = self.step + 1
        if after % self.config.run.log_every == 0 or after == self.config.steps:
            return True
        return self.plan.stage(after, self.log) != self.learner.stage

    def checkpoint_is_due(self) -> bool:
        """Whether the state is saved now: every so often, and where it is asked for; at the end it is anyway."""
        run = self.config.run
        return self.step < self.config.steps and (self.step % run.checkpoint_every == 0 or self.step in run.keep_at)

    def update(self, batch: Batch, *, watch: bool) -> StepFigures:
        """One optimizer step on this process's share of a batch, in micro-batches where gradients are accumulated."""
        config, parts = self.config, self.config.optim.accumulate
        size = len(batch) // parts
        weights = self.weights()
        losses: dict[str, torch.Tensor] = {}
        for k in range(parts):
            part = batch.slice(k * size, (k + 1) * size)
            watched = watch and k == parts - 1  # as a whole: variances of shares are not those of all clips
            shared = None if watched else shared_step(self.learner, part, self.shown, scale=1 / parts, weights=weights)
            figures = shared or self.learner.step(
                self.shown(part.to(self.device)), part.index_b, scale=1 / parts, weights=weights, watch=watched
            )
            losses = {name: losses.get(name, 0) + value / parts for name, value in figures.losses.items()}
        live = self.learner.live()
        self.exchanged = self.owners.reduce_gradients(live)
        norm = self.owners.bounded(live, config.optim.clip_norm)
        schedule(self.optimizer, config.optim, config.steps, self.step, self.log)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.owners.spread(live)
        self.learner.after_step(teacher_decay(config.optim, config.steps, self.step))
        shares = {OBJECTIVE + name: value * weights.get(name, 1.0) for name, value in losses.items()}
        self.meter.add(losses | (shares if weighted(self.plan) else {}) | {GRADIENT: norm})
        return figures

    def check_stage(self, stage: Stage, step: int) -> None:
        """Raises ConfigError for a stage that cannot be entered at `step`: a plan may do what it has not foretold."""
        problems = self.config.stage_problems(stage, self.learner.stage)
        problems += self.config.share_problems(together.size(), [stage])
        self.refuse(problems or self.config.network_problems([stage], fetch=True), step)
        if self.labels is not None:
            self.labels |= {stage.label(tap) for tap in stage.taps}
        new = fingerprints(set(stage.networks) - self.identity.networks.keys(), self.config.clip.frames)
        self.identity = replace(self.identity, networks=self.identity.networks | new)

    def weights(self) -> dict[str, float]:
        """The factors of losses in the coming update; ConfigError for those of losses that are not there."""
        weights = weights_of(self.plan, self.step, self.log)
        self.refuse(weight_problems(weights, self.learner.stage, self.labels), self.step)
        return weights

    def refuse(self, problems: list[str], step: int) -> None:
        """Raises ConfigError with what is wrong with the plan at `step`, if anything is."""
        if problems:
            error = ConfigError([f"step {step}: {problem}" for problem in problems])
            self.tell("error", f"the plan cannot be followed: {'; '.join(error.problems)}")
            raise error

    def observe(self, line: dict[str, Any]) -> None:
        """Shows the plan a log line, but the last one of the run; what it decides by it is checked and recorded."""
        if self.step == self.config.steps:
            return
        try:
            log = decided(self.plan, line, self.log, self.learner.stage)
        except ConfigError as error:
            self.tell("error", f"the plan cannot be followed: {'; '.join(error.problems)}")
            raise
        for entry in log[len(self.log) :]:
            self.check_stage(entry.stage, self.step)
        self.log = log

    def switch(self, stage: Stage) -> None:
        """State out, rebuild for the new stage, state in: live blocks keep their moments, heads of old targets go."""
        self.check_stage(stage, self.step)
        self.look(switch=True)
        self.preview()
        moments = moments_of(self.learner, self.optimizer)
        self.learner.enter(stage)
        self.owners.enter(self.learner.live())
        own = self.owners.own(self.learner.live())
        self.optimizer = build_optimizer(self.learner, self.config.optim, moments, own)
        if not self.log or self.log[-1].step < self.step:  # foretold, not decided
            self.log += (Switch(self.step, stage),)
        why = f": {reason}" if (reason := self.log[-1].reason) else ""
        self.tell("switch", f"{stage.frozen} blocks frozen, target {stage.targets}{why}")
        self.bar.say(f"step {self.step}: switch to {stage.frozen} frozen blocks, target {stage.targets}{why}")

    def start_heads(self, coming: Coming) -> None:
        """Measures targets and solves new heads on the batches to come, as far as the config says so; then what is new
        is the same in all processes.
        """
        solve = self.config.heads == "solved"
        clips = coming.peek(batches_needed(self.learner, self.config.batch, solve=solve))
        shown = ((self.shown(batch.to(self.device)), batch.index_b) for batch in clips)
        for name, start in start_heads(self.learner, shown, solve=solve).items():
            if start.problem:
                self.warn(f"head {name} keeps the weights that it was drawn with: {start.problem}")
            else:
                told = f"explains {start.explained:.3f} of its target on clips held out"
                told = "nothing held out to tell what it explains" if math.isnan(start.explained) else told
                self.tell("head", f"{name} {told}; solved on {start.tokens} tokens")
        exchange.copy_first(list(self.learner.state().values()))

    def write_line(self, figures: StepFigures) -> dict[str, Any]:
        """Writes a line of `metrics.jsonl`, and returns it; what depends on the machine and the moment stands under
        `timing`.
        """
        self.stop_if_not_finite()
        means, figures = self.meter.drain(), of_the_job(figures)
        line = together.of_first(lambda: self.line(means, figures))
        if together.leads():
            self.folder.write_line(line)
        for warning in self.monitor.warnings(line, self.step / self.config.steps):
            self.warn(warning)
        self.bar(self.step, self.config.steps, in_words(line))
        return line

    def line(self, means: dict[str, float], figures: StepFigures) -> dict[str, Any]:
        """The line of this moment, with the `means` of what was metered since the last one."""
        config, stage = self.config, self.learner.stage
        losses = {stage.label(tap): means[stage.label(tap)] for tap in stage.taps}
        watched: dict[str, Any] = {}
        with self.sparing("collapse figures could not be computed"):
            watched = self.monitor.figures(figures)
        left = config.batch * (config.steps - self.step)
        return {
            "step": self.step,
            "loss": sum(means.get(OBJECTIVE + name, loss) for name, loss in losses.items()),
            "losses": losses,
            GRADIENT: means[GRADIENT],
            "frozen": stage.frozen,
            "targets": stage.targets,
            "lr": self.optimizer.param_groups[0]["lr"],
            "weight_norms": weight_norms(self.learner),
            **watched,
            "skipped": len(self.skipped),
            "timing": self.clock.figures(left)
            | {"memory_bytes": memory_bytes(self.device), "gradient_bytes": self.exchanged},
        }

    def stop_if_not_finite(self) -> None:
        """Raises LayerlockError naming the step, its files and the last good checkpoint, if a loss or the gradient of
        anything that learns was not finite.
        """
        if bad := self.meter.first_bad():
            age, name = bad
            what = "gradient" if name == GRADIENT else "loss"
            self.stop_for(f"the {what} of step {self.step - age} is not finite", self.step - age)

    def stop_for(self, text: str, step: int) -> None:
        """Raises LayerlockError with the clips of a step and the last good checkpoint."""
        first = (step - 1) * self.config.batch
        names = dict.fromkeys(self.source.name(i) for i in range(first, first + self.config.batch))
        good = checkpoint.latest(self.folder.checkpoints)
        text = f"{text}; last good checkpoint: {good or 'none'}; its clips: {', '.join(names)}"
        self.tell("error", text)
        raise LayerlockError(text)

    def save(self) -> None:
        """A checkpoint of this moment, unless it is there already."""
        if self.step == self.saved:
            return
        self.stop_if_not_finite()
        if bad := not_finite(self.learner):
            self.stop_for(f"weights are not finite after step {self.step}: {bad}", self.step)
        pending, moments = self.meter.pending(), self.owners.gathered(moments_of(self.learner, self.optimizer))
        if together.leads():
            self.write_checkpoint(pending, moments)
        self.saved = self.step

    def write_checkpoint(self, pending: dict[str, torch.Tensor], moments: Moments) -> None:
        """Writes a checkpoint, with the `pending` figures that are not logged yet."""
        self.folder.lock.check()
        if observes(self.plan) and self.folder.metrics.exists():
            sync(self.folder.metrics)  # a resume shows these lines to the plan
        checkpoint.save(
            self.folder.checkpoints,
            learner=self.learner,
            moments=moments,
            pending=pending,
            keep=self.config.run.keep,
            keep_at=self.config.run.keep_at,
            facts=checkpoint.Facts(
                step=self.step,
                log=self.log,
                monitor=self.monitor.state,
                skipped=sorted(self.skipped),
                stage=self.learner.stage.plain,
                **asdict(self.identity),
            ),
        )

    def preview(self) -> None:
        """Pictures' raw material, at the end of a stage; whatever goes wrong with it costs the picture alone."""
        examples = self.examples
        if not together.leads():
            return
        with self.sparing("no preview was saved"):
            save_preview(self.folder.previews, self.step, self.learner, self.shown(examples), examples.index_b)

    def look(self, *, switch: bool = False) -> None:
        """Figures of all depths, where the run is watched and it is time for them; an error costs these alone."""
        if self.watch is not None:
            with self.clock.paused(), self.sparing("no figures of depths were computed"):
                self.watch.look(self.learner.vit, self.step, switch=switch)

    @contextmanager
    def sparing(self, text: str) -> Iterator[None]:
        """What goes wrong within does not end the run: it is a warning, said once with its reason."""
        try:
            yield
        except Exception as error:
            warning = f"{text}: {type(error).__name__}: {one_line(error)}"
            if warning not in self.warned:
                self.warned.add(warning)
                with suppress(OSError):  # a full disk; training meets it again where it matters
                    self.warn(warning)

    def shown(self, batch: Batch) -> torch.Tensor:
        """The clips as the model sees them: cropped, flipped, their colours changed. uint8 `[B, T, 3, H, W]`."""
        return augment(batch, self.config.clip, self.config.seed)

    def export(self) -> None:
        """The backbone as an encoder folder."""
        if together.leads():
            save_backbone(self.folder.encoder, self.learner.vit, clip_shape(self.config))

    def skip(self, path: str, reason: str) -> None:
        """Counts and names a file that could not be used, once."""
        name = short_name(self.source, path)
        if name not in self.skipped:
            self.skipped.add(name)
            self.tell("skipped", f"{printable(path)}: {reason}")

    def warn(self, text: str) -> None:
        """A warning, in `events.log` and where people look."""
        self.tell("warning", text)
        self.bar.say(f"warning: step {self.step}: {text}")

    def tell(self, kind: str, text: str) -> None:
        """A line of `events.log`."""
        if together.leads():
            self.folder.write_event(self.step, kind, text)


def first_clips(source: Source, workers: int) -> Batch:
    """The first clip of each of the first few videos. Raises LayerlockError where there is none."""
    together = source.clip.per_decode
    with closing(batches(source, batch=CLIPS * together, start=0, stop=1, workers=workers)) as loader:
        return next(loader).slice(0, CLIPS * together, together)


def build_learner(config: Config, device: torch.device, stage: Stage, init_from: str | None = None) -> Learner:
    """The learner of a config in `stage`, with its first weights, or with those of the encoder `init_from`."""
    return Learner(
        config.model,
        config.grid,
        config.masking,
        config.decoder,
        stage,
        seed=config.seed,
        compute=pick_precision(config.run, device),
        recompute=config.run.recompute,
        compiled=pick_compile(config.run, device),
        first_weights=config.first_weights,
        weights=None if init_from is None else weights_from(init_from, config.model, config.grid),
    ).to(device)
