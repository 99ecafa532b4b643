"""The training of a sweep: batches in, updates of all readouts, checkpoints; it can be stopped and gone on with."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing

import torch
from torch import Tensor

from layerlock.data import Batch, Source
from layerlock.data.augment import augment
from layerlock.data.order import video_at
from layerlock.errors import LayerlockError
from layerlock.evaluation.folder import EvaluationFolder
from layerlock.evaluation.saved import load_tensors, save_tensors
from layerlock.evaluation.sweep import Sweep
from layerlock.features import Place, Reader, read_features
from layerlock.features.cache import Cached
from layerlock.features.read import unusable
from layerlock.train.signals import StopSignal

Step = tuple[dict[Place, Tensor], Tensor]
"""features by place and the target of a batch"""
Stream = Callable[[int], Generator[Step]]
"""the batches of a training from a step on"""


def decoded_stream(
    sweep: Sweep, source: Source, reader: Reader, device: torch.device, skipped: dict[str, str]
) -> Stream:
    """Clips of `source`, augmented and sent through the encoders; files that cannot be decoded are put in `skipped`."""
    config = sweep.config

    def stream(start: int) -> Generator[Step]:
        def see(clips: Batch) -> Tensor:
            return augment(clips, source.clip, config.seed)

        batches = read_features(
            source,
            reader,
            batch=config.batch,
            device=device,
            start=start,
            stop=config.steps,
            workers=config.workers,
            see=see,
        )
        with closing(batches):
            for batch in batches:
                skipped.update(batch.clips.skipped)
                skipped.update(unusable(batch.features, batch.clips.names))
                yield batch.features, sweep.task.target(batch.clips)

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


def train(
    sweep: Sweep,
    stream: Stream,
    folder: EvaluationFolder,
    progress: Callable[[int, int], None],
    skipped: dict[str, str],
) -> int | None:
    """Trains from the folder's checkpoint, if any, to the end. Returns the signal that stopped it, None when done.

    `skipped`, the files that could not be decoded and why, is kept in the checkpoint too.
    """
    config = sweep.config
    restore(sweep, folder, skipped)
    if sweep.step >= config.steps:
        return None
    with StopSignal() as stop, closing(stream(sweep.step)) as steps:
        for features, target in steps:
            sweep.train_step(features, target)
            progress(sweep.step, config.steps)
            if stop.received is not None or sweep.step % config.checkpoint_every == 0 or sweep.step == config.steps:
                folder.lock.check()
                dropped = {str(setting): reason for setting, reason in sweep.dropped.items()}
                facts = {"step": sweep.step, "skipped": skipped, "dropped": dropped}
                save_tensors(folder.readouts, sweep.state(), facts)
            if stop.received is not None:
                return stop.received
    return None


def restore(sweep: Sweep, folder: EvaluationFolder, skipped: dict[str, str]) -> None:
    """Puts the folder's checkpoint into a sweep, if there is one. Raises LayerlockError where it does not fit."""
    found = load_tensors(folder.readouts)
    if found is None:
        for scores in (folder.validation, folder.test):  # they would be of readouts that are gone
            scores.unlink(missing_ok=True)
        return
    try:
        sweep.load(found[0], int(found[1]["step"]))
        skipped.update(found[1]["skipped"])
        sweep.dropped |= {
            one: found[1]["dropped"][str(one)] for one in sweep.readouts if str(one) in found[1]["dropped"]
        }
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise LayerlockError(f"{folder.readouts}: not the readouts of this evaluation ({error})") from None
