"""The generator of features: clips of a source, cropped, through every encoder once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from layerlock.data import Batch, Source, batches, crop_and_flip
from layerlock.encoders import FrozenEncoder, Summary
from layerlock.features.divided import divided
from layerlock.model.readout import standardized

Place = tuple[str, int]
"""an encoder, by its name, and one of its blocks"""


def mean_pooled(features_bnd: Tensor) -> Tensor:
    """The mean over tokens, float32 `[B, D]`, on the CPU."""
    return features_bnd.float().mean(1).cpu()


def _as_it_is(features_bnd: Tensor) -> Tensor:
    return features_bnd


class Reader:
    """Every encoder once for a batch of clips, as deep as the deepest of `places`; features are kept in `form`, without
    one as readouts see them: standardized, but for those of a `Summary`.
    """

    def __init__(
        self,
        encoders: Mapping[str, FrozenEncoder],
        places: Iterable[Place],
        form: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.encoders, self.places, self.form = encoders, tuple(dict.fromkeys(places)), form

    @torch.no_grad()
    def read(self, video_btchw: Tensor) -> dict[Place, Tensor]:
        """Features `[B, N, D]` at each place."""
        features_of: dict[Place, Tensor] = {}
        for name, encoder in self.encoders.items():
            blocks = [block for owner, block in self.places if owner == name]
            if blocks:
                form = self.form or (_as_it_is if isinstance(encoder, Summary) else standardized)
                features = encoder.forward_intermediates(video_btchw, blocks)
                for block, x_bnd in zip(blocks, features, strict=True):
                    features_of[name, block] = form(x_bnd.to(video_btchw.device))
        return features_of


@dataclass(frozen=True, kw_only=True)
class FeatureBatch:
    """Clips as they were loaded, as the encoders saw them, uint8 `[B, T, 3, S, S]`, and their features by place."""

    clips: Batch
    video_btchw: Tensor
    features: dict[Place, Tensor]

    def without_pixels(self) -> FeatureBatch:
        """The same with no clip in the two tensors of pixels."""
        clips = replace(self.clips, video_btchw=self.clips.video_btchw[:0])
        return replace(self, clips=clips, video_btchw=self.video_btchw[:0])


@dataclass(frozen=True, kw_only=True)
class Readings:
    """The batches of a source, each with its features: batch s holds the samples s * batch .. (s + 1) * batch - 1."""

    source: Source
    places: tuple[Place, ...]
    form: Callable[[Tensor], Tensor] | None = None
    batch: int
    workers: int = 0
    see: Callable[[Batch], Tensor] = crop_and_flip
    """makes of loaded clips what encoders are shown"""
    pixels: bool = True
    """whether these are kept in what is read"""

    def __call__(
        self, encoders: Mapping[str, FrozenEncoder], device: torch.device, numbers: range
    ) -> Generator[FeatureBatch]:
        """The batches of these numbers, one in every `numbers.step`."""
        reader, every = Reader(encoders, self.places, self.form), numbers.step
        first, rank = divmod(numbers.start, every)
        loader = batches(
            self.source,
            batch=self.batch * every,
            start=first,
            stop=first + len(numbers),
            workers=self.workers,
            rank=rank,
            ranks=every,
        )
        with closing(loader):
            for loaded in loader:
                clips = loaded.to(device)
                video_btchw = self.see(clips)
                read = FeatureBatch(clips=clips, video_btchw=video_btchw, features=reader.read(video_btchw))
                yield read if self.pixels else read.without_pixels()


def read_features(
    source: Source,
    reader: Reader,
    *,
    batch: int,
    device: torch.device,
    start: int = 0,
    stop: int | None = None,
    workers: int = 0,
    see: Callable[[Batch], Tensor] = crop_and_flip,
    pixels: bool = False,
) -> Generator[FeatureBatch]:
    """Batches `start` to `stop` (None: until every sample of the source was there once) of clips and their features,
    with `pixels` or without.

    The last batch is filled up with the first samples. `see` makes of loaded clips what encoders are shown.
    """
    numbers = range(start, -(-len(source) // batch) if stop is None else stop)
    readings = Readings(
        source=source, places=reader.places, form=reader.form, batch=batch, workers=workers, see=see, pixels=pixels
    )
    return divided(readings, reader.encoders, device, numbers)


def pooled_features(
    source: Source,
    encoders: Mapping[str, FrozenEncoder],
    places: Iterable[Place],
    *,
    batch: int,
    device: torch.device,
    workers: int = 0,
    each: Callable[[FeatureBatch], None] | None = None,
) -> tuple[dict[Place, Tensor], dict[str, str]]:
    """Mean-pooled features, float32 `[V, D]` on the CPU, of samples 0 .. V - 1 at each place; and why which videos
    could not be decoded (their features are of a black clip). `each` is shown every batch.
    """
    reader, count = Reader(encoders, places, mean_pooled), len(source)
    rows: dict[Place, list[Tensor]] = {place: [] for place in reader.places}
    lost: dict[str, str] = {}
    stream = read_features(source, reader, batch=min(batch, count), device=device, workers=workers)
    with closing(stream):
        for read in stream:
            lost |= dict(read.clips.skipped)
            for place, features_bd in read.features.items():
                rows[place].append(features_bd)
            if each is not None:
                each(read)
    return {place: torch.cat(parts)[:count] for place, parts in rows.items()}, lost


def finite_clips(features: Mapping[Place, Tensor]) -> dict[Place, Tensor]:
    """Of which clips the features are finite at each place, bool `[B]`: a sum tells, since standardized ones are
    small.
    """
    return {place: x_bnd.flatten(1).sum(1, dtype=torch.float32).isfinite() for place, x_bnd in features.items()}


def not_finite(place: Place) -> str:
    """What is said of a clip whose features at a place are not finite."""
    return f"the features of {place[0]} after block {place[1]} are not finite"


def unusable(features: Mapping[Place, Tensor], names: Sequence[str]) -> dict[str, str]:
    """Clips whose features are not finite at some place but finite for others, and why they count for nothing there."""
    reasons: dict[str, str] = {}
    for place, finite_b in finite_clips(features).items():
        if finite_b.any():
            reasons |= {names[row]: not_finite(place) for row in (~finite_b).nonzero().flatten().tolist()}
    return reasons
