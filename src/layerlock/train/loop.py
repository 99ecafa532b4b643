"""The training loop, to be read from top to bottom.

Order within a step: switch (if the plan says so), batch, gradients, update, log, checkpoint. A checkpoint after n
updates holds all that update n + 1 depends on; every random draw is a function of (seed, purpose, global sample
index).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError

from layerlock.config import Config
from layerlock.data import Batch, Source, batches, collate, crop_and_flip, open_source
from layerlock.errors import LayerlockError
from layerlock.learn.learner import Learner, StepFigures
from layerlock.learn.plan import Plan, Stage, Switch, SwitchLog
from layerlock.model.encoder import ClipShape, Encoder, check_weights, save_backbone
from layerlock.train import checkpoint
from layerlock.train.device import memory_bytes, pick_compile, pick_device, pick_precision
from layerlock.train.folder import RunFolder
from layerlock.train.meter import Meter
from layerlock.train.monitors import CollapseMonitor, weight_norms
from layerlock.train.optimizer import build_optimizer, moments_of
from layerlock.train.previews import CLIPS, save_preview
from layerlock.train.progress import ProgressBar
from layerlock.train.schedule import learning_rate
from layerlock.train.signals import StopSignal


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a call ended: in `folder`, after `step` updates; `signal` is the number of the signal that stopped it, or
    None.
    """

    folder: Path
    step: int
    signal: int | None = None


def train(
    config: Config,
    plan: Plan | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Trains by `plan` (without one, the config's own) and leaves a run folder behind.

    Raises ConfigError for a config that cannot be trained, LayerlockError for data, disk or losses that stop the run;
    the last checkpoint is whole in every case.
    """
    plan = config.check(plan)
    device = pick_device(config.run)
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    source = open_source(config.data, config.clip, config.seed, workers=config.run.workers)
    folder = RunFolder(config.out)
    place = checkpoint.latest(folder.checkpoints) if resume else None
    learner = build_learner(config, device, init_from=None if place else config.init_from)
    folder.begin(config, resume=resume, overwrite=overwrite)
    try:
        with StopSignal() as stop, ProgressBar(config.steps, quiet) as bar:
            return Run(config, plan, folder, source, learner, bar=bar, place=place).go(stop)
    except (OSError, SafetensorError) as error:
        good = checkpoint.latest(folder.checkpoints)
        raise LayerlockError(f"{folder.path}: {error}; last good checkpoint: {good or 'none'}") from None


class Run:
    """One run in progress: what is built once, and the loop over it."""

    def __init__(
        self,
        config: Config,
        plan: Plan,
        folder: RunFolder,
        source: Source,
        learner: Learner,
        *,
        bar: ProgressBar,
        place: Path | None,
    ) -> None:
        self.config, self.plan, self.folder, self.source, self.learner = config, plan, folder, source, learner
        self.bar, self.device = bar, learner.vit.embed.weight.device
        state = checkpoint.read(place) if place else None
        self.step: int = state.step if state else 0
        self.log: SwitchLog = state.log if state else ()
        self.meter = Meter({n: v.to(self.device) for n, v in state.pending.items()} if state else None)
        self.monitor = CollapseMonitor(state.monitor if state else None)
        self.skipped = 0
        learner.enter(plan.stage(max(self.step - 1, 0), self.log))
        self.optimizer = (
            build_optimizer(learner, config.optim)
            if state is None
            else checkpoint.restore(state, learner, config.optim)
        )
        folder.rewind(self.step)
        if state:
            folder.log("resume", f"from {place}")
        for path, reason in source.rejected if not state else ():
            self.skip(path, reason)
        self.examples = collate([source.sample(i) for i in range(CLIPS)], config.clip.size).to(self.device)

    def go(self, stop: StopSignal) -> Outcome:
        """Trains to the end, or to a signal; saves, exports, and says how it ended."""
        config = self.config
        loader = batches(
            self.source, batch=config.batch, start=self.step, stop=config.steps, workers=config.run.workers
        )
        self.since, self.waited, self.counted = time.perf_counter(), 0.0, 0
        while self.step < config.steps and stop.received is None:
            stage = self.plan.stage(self.step, self.log)
            if stage != self.learner.stage:
                self.switch(stage)
            asked = time.perf_counter()
            batch = next(loader).to(self.device)
            self.waited += time.perf_counter() - asked
            for path, reason in batch.skipped:
                self.skip(path, reason)
            due = self.line_is_due()
            figures = self.update(batch, watch=due)
            self.step += 1
            self.counted += config.batch
            if due:
                self.write_line(figures)
            if self.step % config.run.checkpoint_every == 0 and self.step < config.steps:
                self.save()
        loader.close()
        self.save()
        if stop.received is None:
            self.preview()
        self.export()
        self.folder.log("stop" if stop.received else "end", f"after step {self.step} of {config.steps}")
        return Outcome(folder=self.folder.path, step=self.step, signal=stop.received)

    def line_is_due(self) -> bool:
        """Whether the coming update is logged: every so often, and the last one of each stage, so that no line mixes
        two.
        """
        after = self.step + 1
        if after % self.config.run.log_every == 0 or after == self.config.steps:
            return True
        return self.plan.stage(after, self.log) != self.learner.stage

    def update(self, batch: Batch, *, watch: bool) -> StepFigures:
        """One optimizer step on a batch, in micro-batches where gradients are accumulated."""
        config, parts = self.config, self.config.optim.accumulate
        size = config.batch // parts
        rate = learning_rate(config.optim, config.steps, self.step, self.log)
        losses: dict[str, torch.Tensor] = {}
        for k in range(parts):
            part = batch.slice(k * size, (k + 1) * size) if parts > 1 else batch
            figures = self.learner.step(
                crop_and_flip(part), part.index_b, scale=1 / parts, watch=watch and k == parts - 1
            )
            losses = {name: losses.get(name, 0) + value / parts for name, value in figures.losses.items()}
        if config.optim.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.learner.live().values(), config.optim.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.meter.add(losses)
        return figures

    def switch(self, stage: Stage) -> None:
        """State out, rebuild for the new stage, state in: live blocks keep their moments, heads of old targets go."""
        self.preview()
        moments = moments_of(self.learner, self.optimizer)
        self.learner.enter(stage)
        self.optimizer = build_optimizer(self.learner, self.config.optim, moments)
        self.log += (Switch(self.step, stage.targets),)
        self.folder.log("switch", f"step {self.step}: {stage.frozen} blocks frozen, target {stage.targets}")
        self.bar.say(f"step {self.step}: switch to {stage.frozen} frozen blocks, target {stage.targets}")

    def write_line(self, figures: StepFigures) -> None:
        """A line of `metrics.jsonl`; what depends on the machine and the moment stands under `timing`."""
        self.stop_if_not_finite()
        config, stage, now = self.config, self.learner.stage, time.perf_counter()
        assert stage is not None
        losses = self.meter.drain()
        watched = self.monitor.figures(figures)
        line = {
            "step": self.step,
            "loss": sum(losses.values()),
            "losses": losses,
            "frozen": stage.frozen,
            "targets": stage.targets,
            "lr": self.optimizer.param_groups[0]["lr"],
            "weight_norms": weight_norms(self.learner),
            **watched,
        }
        elapsed = max(now - self.since, 1e-9)
        line["timing"] = {
            "clips_per_s": self.counted / elapsed,
            "data_wait": self.waited / elapsed,
            "memory_bytes": memory_bytes(self.device),
            "skipped": self.skipped,
            "seconds_left": elapsed / max(self.counted, 1) * config.batch * (config.steps - self.step),
        }
        self.since, self.waited, self.counted = now, 0.0, 0
        self.folder.add(line)
        for warning in self.monitor.warnings(watched):
            self.folder.log("warning", f"step {self.step}: {warning}")
            self.bar.say(f"warning: step {self.step}: {warning}")
        self.bar.show(line)

    def stop_if_not_finite(self) -> None:
        """Raises LayerlockError naming the step, its files and the last good checkpoint, if a loss was not finite."""
        age = self.meter.steps_since_bad()
        if age is None:
            return
        step = self.step - age
        first = (step - 1) * self.config.batch
        names = [self.source.sample(i).name for i in range(first, first + self.config.batch)]
        good = checkpoint.latest(self.folder.checkpoints)
        text = (
            f"the loss of step {step} is not finite; last good checkpoint: {good or 'none'}; "
            f"its clips: {', '.join(dict.fromkeys(names))}"
        )
        self.folder.log("error", text)
        raise LayerlockError(text)

    def save(self) -> None:
        """A checkpoint of this moment."""
        self.stop_if_not_finite()
        checkpoint.save(
            self.folder.checkpoints,
            step=self.step,
            log=self.log,
            learner=self.learner,
            optimizer=self.optimizer,
            pending=self.meter.pending(),
            monitor=self.monitor.state,
            keep=self.config.run.keep,
        )

    def preview(self) -> None:
        """Pictures' raw material, at the end of a stage."""
        save_preview(self.folder.previews, self.step, self.learner, crop_and_flip(self.examples), self.examples.index_b)

    def export(self) -> None:
        """The backbone as an encoder folder."""
        clip = self.config.clip
        save_backbone(
            self.folder.encoder, self.learner.vit, ClipShape(frames=clip.frames, stride=clip.stride, size=clip.size)
        )

    def skip(self, path: str, reason: str) -> None:
        """Counts and names a file that could not be used."""
        self.skipped += 1
        self.folder.log("skipped", f"{path}: {reason}")


def build_learner(config: Config, device: torch.device, init_from: str | None = None) -> Learner:
    """The learner of a config with its first weights, or with those of `init_from` (an encoder or a run folder)."""
    learner = Learner(
        config.model,
        config.grid,
        config.masking,
        config.decoder,
        seed=config.seed,
        compute=pick_precision(config.run, device),
        recompute=config.run.recompute,
    )
    if init_from is not None:
        weights = load(init_from).vit.state_dict()
        check_weights(init_from, weights, learner.vit.state_dict())
        learner.vit.load_state_dict(weights)
    learner.to(device)
    if pick_compile(config.run, device):
        for block in learner.vit.blocks:
            block.compile()
    return learner


def load(path: str | Path, *, device: str | torch.device = "cpu") -> Encoder:
    """The encoder of a run folder or of an encoder folder. Raises LayerlockError where there is none."""
    path = Path(path)
    return Encoder.from_pretrained(path / "encoder" if (path / "encoder").is_dir() else path, device=device)
