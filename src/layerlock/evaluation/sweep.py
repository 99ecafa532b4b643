"""All readouts of an evaluation trained side by side on the same clips, each as if it were alone.

Readouts share what comes before their first weight: the encoder's pass and the normalisation of its features. After
that each has its own loss, and its graph is freed before the next one's is built.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from layerlock import draws
from layerlock.data import Source
from layerlock.data.augment import augment
from layerlock.data.order import video_at
from layerlock.encoders import FrozenEncoder
from layerlock.errors import LayerlockError
from layerlock.evaluation.config import EvaluateConfig
from layerlock.evaluation.folder import EvaluationFolder, load_tensors, save_tensors
from layerlock.evaluation.readouts import Candidate, Draw, build_readout, shapes_of
from layerlock.evaluation.tasks import ReadoutTask
from layerlock.evaluation.tasks.task import SOLVED, TRAINED
from layerlock.features import Place, Reader, finite_clips, read_features
from layerlock.features.cache import Cached
from layerlock.features.clips import SpreadViews
from layerlock.features.probe import check_solvable
from layerlock.features.read import unusable
from layerlock.model.readout import AttentionReadout, EfficientReadout, Readout, SolvedReadout
from layerlock.signals import StopSignal
from layerlock.train.optimizer import OPTIMIZERS, groups_of
from layerlock.train.schedule import learning_rate

Step = tuple[dict[Place, Tensor], Tensor]
"""features by place and the target of a batch"""
Stream = Callable[[int], Generator[Step]]
"""the batches of a training from a step on"""


class Sweep:
    """Readouts, their optimizer, and the sums that a constant prediction is made of, after `step` updates."""

    def __init__(
        self,
        config: EvaluateConfig,
        task: ReadoutTask,
        candidates: Sequence[Candidate],
        encoders: Mapping[str, FrozenEncoder],
        device: torch.device,
    ) -> None:
        self.config, self.task, self.step = config, task, 0
        self.shapes = shapes_of(task, candidates, encoders)
        self.readouts: dict[Candidate, Readout] = {
            candidate: build_readout(candidate, encoders[candidate.encoder], self.shapes[candidate], config.seed).to(
                device
            )
            for candidate in candidates
        }
        self.trained = [candidate for candidate in candidates if candidate.kind in TRAINED]
        self.solved = [candidate for candidate in candidates if candidate.kind in SOLVED]
        self.is_solved = not self.solved
        if self.solved:
            check_solvable("readout: solved")
        optim = config.optim(1.0)
        self.optimizer = OPTIMIZERS[optim.name](self._groups() or [{"params": []}], optim)
        self.summary: Tensor | None = None
        self.dropped: dict[Candidate, str] = {}
        """readouts that train no more, and why"""

    def train_step(self, features: Mapping[Place, Tensor], target: Tensor) -> dict[Candidate, Tensor]:
        """One update of every readout that is not dropped; returns their losses.

        Clips whose features are not finite teach those readouts nothing that would have read them. A readout whose loss
        is not finite is dropped, which changes nothing of the others. Raises LayerlockError where none is left.
        """
        summary = self.task.summary(target)
        if self.summary is None:
            self._begin_at(self.task.first_output(summary))
        self._schedule()
        steps = self._usable(features, target)
        live = [candidate for candidate in self.trained if candidate not in self.dropped]
        losses = {candidate: self._backward(candidate, *steps[candidate.place]) for candidate in live}
        self._drop(losses)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.summary = summary if self.summary is None else self.summary + summary
        self.step += 1
        return losses

    @torch.no_grad()
    def predict(self, candidate: Candidate, features: Mapping[Place, Tensor]) -> Tensor:
        """What one readout says of a batch, in the target's terms."""
        return self.task.predict(self.shapes[candidate], self.readouts[candidate].read(features[candidate.place]))

    def predictions(self, candidates: Sequence[Candidate], features: Mapping[Place, Tensor]) -> dict[Candidate, Tensor]:
        """The same of several."""
        trained = [candidate for candidate in candidates if candidate.kind in TRAINED]
        found = {candidate: self.predict(candidate, features) for candidate in trained}
        with torch.no_grad():
            for members, x_bnw in self.solved_inputs(candidates, features):
                for member in members:
                    found[member] = self.task.predict(self.shapes[member], self.readouts[member].out(x_bnw))
        return found

    def solved_inputs(
        self, candidates: Sequence[Candidate], features: Mapping[Place, Tensor]
    ) -> Iterator[tuple[list[Candidate], Tensor]]:
        """Those of the candidates that are solved with the inputs that they share, `[B, 1 or N, W]`, place by place."""
        of_place: dict[Place, list[Candidate]] = {}
        for candidate in candidates:
            if candidate.kind in SOLVED:
                of_place.setdefault(candidate.place, []).append(candidate)
        for place, members in of_place.items():
            yield members, cast(SolvedReadout, self.readouts[members[0]]).inputs(features[place])

    def _usable(self, features: Mapping[Place, Tensor], target: Tensor) -> dict[Place, tuple[Tensor, Tensor]]:
        """Features and target of the clips whose features are finite, at each place."""
        finite_of = finite_clips(features)
        if torch.stack(list(finite_of.values())).all():
            return {place: (x_bnd, target) for place, x_bnd in features.items()}
        return {place: (x_bnd[finite_of[place]], target[finite_of[place]]) for place, x_bnd in features.items()}

    def _backward(self, candidate: Candidate, x_bnd: Tensor, target: Tensor) -> Tensor:
        output_bqo = self._output(candidate, x_bnd)
        loss = self.task.loss(self.task.predict(self.shapes[candidate], output_bqo), target)
        loss.backward()
        return loss.detach()

    def _output(self, candidate: Candidate, x_bnd: Tensor) -> Tensor:
        """What a readout says in training, with dropout in attention readouts: a function of the seed and the step."""
        readout, share = self.readouts[candidate], self.config.dropout
        if not share or not isinstance(readout, AttentionReadout | EfficientReadout):
            return readout.read(x_bnd)
        pooled_bqc = readout.pooled(x_bnd)
        clip_b = self.step * self.config.batch + torch.arange(len(x_bnd), device=x_bnd.device)
        drawn_bc = draws.uniform(self.config.seed, f"dropout/{candidate}", clip_b, pooled_bqc.shape[-1])
        return readout.out(pooled_bqc * ((drawn_bc >= share) / (1 - share))[:, None].to(pooled_bqc.dtype))

    @torch.no_grad()
    def _begin_at(self, output: float) -> None:
        for candidate in self.trained:
            self.readouts[candidate].out.bias.fill_(output)

    def _groups(self) -> list[dict[str, Any]]:
        return [
            group | {"peak": candidate.lr}
            for candidate in self.trained
            for group in groups_of(dict(self.readouts[candidate].named_parameters()), self.config.optim(candidate.lr))
        ]

    def _schedule(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config.optim(group["peak"]), self.config.steps, self.step, ())

    def _drop(self, losses: Mapping[Candidate, Tensor]) -> None:
        if not losses or torch.stack(list(losses.values())).isfinite().all():
            return
        for candidate, loss in losses.items():
            if not loss.isfinite():
                self.dropped[candidate] = f"its loss is not finite at step {self.step}; try a lower learning rate"
                for parameter in self.readouts[candidate].parameters():
                    parameter.grad = None  # which the optimizer passes over
        if len(self.dropped) == len(self.readouts):
            candidate, reason = next(iter(self.dropped.items()))
            raise LayerlockError(f"all {len(self.dropped)} readouts were dropped; the first, {candidate}: {reason}")

    @property
    def is_taught(self) -> bool:
        """Whether any of the clips trained on so far had a target."""
        return self.summary is not None and bool(self.summary.any())

    def check_taught(self, skipped: Mapping[str, str]) -> None:
        """Raises LayerlockError where none of the clips trained on had a target."""
        if not self.is_taught:
            raise LayerlockError(
                f"no clip of the training split has a known {self.task.target.name}; {len(skipped)} of its videos "
                f"could not be decoded{''.join(f'; the first: {path}: {why}' for path, why in [*skipped.items()][:1])}"
            )

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, by name; the tensors themselves."""
        tensors: dict[str, Tensor] = {}
        for candidate, readout in self.readouts.items():
            for name, parameter in readout.named_parameters():
                tensors[f"{candidate}/{name}"] = parameter.detach()
                for kind, value in self.optimizer.state.get(parameter, {}).items():
                    tensors[f"{candidate}/{name}/{kind}"] = value
        return tensors if self.summary is None else tensors | {"summary": self.summary}

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor], step: int) -> None:
        """Goes on from a `state` after `step` updates. KeyError or RuntimeError where it is of other readouts."""
        for candidate, readout in self.readouts.items():
            for name, parameter in readout.named_parameters():
                full = f"{candidate}/{name}"
                parameter.copy_(state[full])
                moments = {key.removeprefix(f"{full}/"): x for key, x in state.items() if key.startswith(f"{full}/")}
                if moments:
                    self.optimizer.state[parameter] = {kind: x.to(parameter.device) for kind, x in moments.items()}
        summary = state.get("summary")
        device = next(iter(self.readouts.values())).out.weight.device
        self.summary, self.step = None if summary is None else summary.to(device), step


def decoded_stream(
    sweep: Sweep, source: Source, reader: Reader, device: torch.device, skipped: dict[str, str]
) -> Stream:
    """Clips of `source`, augmented and sent through the encoders; files that cannot be decoded are put in `skipped`."""
    config = sweep.config

    def stream(start: int) -> Generator[Step]:
        batches = read_features(
            source,
            reader,
            batch=config.batch,
            device=device,
            start=start,
            stop=config.steps,
            workers=config.workers,
            see=partial(augment, clip=source.clip, seed=config.seed),
        )
        with closing(batches):
            for batch in batches:
                skipped.update(batch.clips.skipped)
                skipped.update(unusable(batch.features, batch.clips.names))
                yield batch.features, sweep.task.target_of(batch.clips)

    return stream


def cached_stream(sweep: Sweep, cached: Cached, device: torch.device, skipped: dict[str, str]) -> Stream:
    """The batches of `decoded_stream` over `RepeatedViews`, from features on the disk."""
    config, views = sweep.config, cached.views
    skipped.update(cached.lost())

    def stream(start: int) -> Generator[Step]:
        for step in range(start, config.steps):
            indices = range(step * config.batch, (step + 1) * config.batch)
            rows = [video_at(index, len(views), config.seed) for index in indices]
            features, target = cached.take(rows, device)
            skipped.update(unusable(features, [views.name(row) for row in rows]))
            yield features, target

    return stream


def decoded_once(
    sweep: Sweep, views: SpreadViews, reader: Reader, device: torch.device, skipped: dict[str, str]
) -> Generator[Step]:
    """Every clip of `views` once, in order, decoded and sent through the encoders."""
    count = len(views)
    batch = min(sweep.config.batch, count)
    stream = read_features(views, reader, batch=batch, device=device, workers=sweep.config.workers)
    with closing(stream):
        for done, read in enumerate(stream):
            new = min(batch, count - done * batch)  # the last batch begins again with the first clips
            skipped.update(read.clips.skipped)
            skipped.update(unusable(read.features, read.clips.names))
            yield {place: x[:new] for place, x in read.features.items()}, sweep.task.target_of(read.clips)[:new]


def cached_once(sweep: Sweep, cached: Cached, device: torch.device, skipped: dict[str, str]) -> Generator[Step]:
    """The same from features on the disk."""
    views, batch = cached.views, sweep.config.batch
    skipped.update(cached.lost())
    for start in range(0, len(views), batch):
        rows = range(start, min(start + batch, len(views)))
        features, target = cached.take(rows, device)
        skipped.update(unusable(features, [views.name(row) for row in rows]))
        yield features, target


@torch.no_grad()
def solve(
    sweep: Sweep,
    steps: Generator[Step],
    folds: Mapping[Draw, Tensor],
    folder: EvaluationFolder,
    progress: Callable[[int, int], None],
    skipped: dict[str, str],
) -> None:
    """Computes the readouts that are solved from the clips of `steps`, each once, and saves them in the folder.

    `folds`, by draw, are the part of the training split that each clip is in, `[V]`; -1 where it is not drawn. A
    readout that cannot be computed is dropped.
    """
    solvers = {candidate: sweep.task.solver() for candidate in sweep.solved}
    done, summary = 0, None
    with closing(steps):
        for features, target in steps:
            folds_b = {draw: fold_v[done : done + len(target)] for draw, fold_v in folds.items()}
            for members, x_bnw in sweep.solved_inputs(sweep.solved, features):
                inputs, wanted = x_bnw.cpu(), sweep.task.solver_target(sweep.shapes[members[0]], target).cpu()
                for member in members:
                    fold_b = folds_b[member.draw]
                    drawn_b = fold_b >= 0
                    solvers[member].add(inputs[drawn_b], wanted[drawn_b], fold_b[drawn_b])
            one = sweep.task.summary(target)
            summary = one if summary is None else summary + one
            done += len(target)
            progress(done, len(folds[None, 0]))
    sweep.summary = summary if sweep.summary is None else sweep.summary
    for candidate, solver in solvers.items():
        try:
            solver.solve(cast(SolvedReadout, sweep.readouts[candidate]))
        except ValueError as error:
            sweep.dropped[candidate] = str(error)
    sweep.is_solved = True
    _save(sweep, folder, skipped)


def _save(sweep: Sweep, folder: EvaluationFolder, skipped: dict[str, str]) -> None:
    """Writes the checkpoint, unless no clip had a target yet: then there is nothing to keep."""
    folder.lock.check()
    if not sweep.is_taught:
        return
    dropped = {str(candidate): reason for candidate, reason in sweep.dropped.items()}
    facts = {"step": sweep.step, "solved": sweep.is_solved, "skipped": skipped, "dropped": dropped}
    save_tensors(folder.readouts, sweep.state(), facts)


def train(
    sweep: Sweep,
    stream: Stream,
    folder: EvaluationFolder,
    progress: Callable[[int, int], None],
    skipped: dict[str, str],
) -> int | None:
    """Trains from where a sweep is to the end. Returns the signal that stopped it, None when done.

    `skipped`, the files that could not be decoded and why, is kept in the checkpoint too.
    """
    config = sweep.config
    if sweep.step >= config.steps:
        return None
    with StopSignal() as stop, closing(stream(sweep.step)) as steps:
        for features, target in steps:
            sweep.train_step(features, target)
            progress(sweep.step, config.steps)
            if stop.received is not None or sweep.step % config.checkpoint_every == 0 or sweep.step == config.steps:
                _save(sweep, folder, skipped)
            if stop.received is not None:
                return stop.received
    return None


def restore(sweep: Sweep, folder: EvaluationFolder, skipped: dict[str, str]) -> None:
    """Puts the folder's checkpoint into a sweep, if there is one. Raises LayerlockError where it does not fit."""
    saved = load_tensors(folder.readouts)
    if saved is None:
        for scores in folder.scores.values():  # they would be of readouts that are gone
            scores.unlink(missing_ok=True)
        return
    try:
        sweep.load(saved[0], int(saved[1]["step"]))
        sweep.is_solved = bool(saved[1]["solved"])
        skipped.update(saved[1]["skipped"])
        sweep.dropped |= {
            one: saved[1]["dropped"][str(one)] for one in sweep.readouts if str(one) in saved[1]["dropped"]
        }
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise LayerlockError(f"{folder.readouts}: not the readouts of this evaluation ({error})") from None
