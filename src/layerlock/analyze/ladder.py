"""The ladder of blockwise learning (arXiv 2601.09040): what the depths of encoders hold of generated gratings, single
ones and two side by side; its last rung, actions, are the classes of the data.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from layerlock.analyze.labelled import MEAN, ONE_PATCH, Form, Labelled, linear_probe, occlusion_drop
from layerlock.analyze.metrics import Metric, OfLabelled
from layerlock.analyze.occlusion import one_patch
from layerlock.analyze.table import computed
from layerlock.data.gratings import HALVES, SINGLE, Gratings, gratings
from layerlock.encoders import FrozenEncoder
from layerlock.features import Place, Reader, mean_pooled
from layerlock.features.divided import divided

KINDS = (SINGLE, HALVES)


def climb(
    encoders: Mapping[str, FrozenEncoder],
    count: int,
    *,
    occlusion: bool,
    batch: int,
    seed: int,
    device: torch.device,
    progress: Callable[[int, int], None],
) -> tuple[list[Metric], list[dict[str, Any]]]:
    """Accuracies of linear probes of so many gratings of each kind, and with `occlusion` what they lose where one patch
    of each grating is seen: metrics and values, as `Figures.found` has them. All encoders read the same gratings, those
    that the smallest frames can show. The pooled features of one kind and encoder are kept.
    """
    size = min(encoder.clip.size for encoder in encoders.values())
    rungs = [gratings(kind, count, seed, size) for kind in KINDS]
    asked = [(rung, list(_asked(rung, occlusion))) for rung in rungs]
    metrics = [metric for _, questions in asked for _, figures in questions for metric in figures]
    values, total = list[dict[str, Any]](), len(asked) * len(encoders)
    each = product(enumerate(asked), encoders.items())
    for done, ((kind, (rung, questions)), (name, encoder)) in enumerate(each, 1):
        series = _Rung(kind=kind, count=count, size=size, encoder=name, occlusion=occlusion, batch=batch, seed=seed)
        with closing(divided(series, encoders, device, range(-(-len(rung) // batch)))) as stream:
            parts = list(stream)
        features = {form: torch.cat([part[form] for part in parts], 1) for form in parts[0]}
        for depth in range(encoder.depth + 1):
            of_depth = {form: x_pvd[depth] for form, x_pvd in features.items()}
            for label_v, figures in questions:
                videos = Labelled(of_depth, label_v, torch.arange(len(rung)))
                values += [computed(metric, (name, depth), partial(of, videos)) for metric, of in figures.items()]
        progress(done, total)
    return metrics, values


def _asked(rung: Gratings, occlusion: bool) -> Iterator[tuple[Tensor, dict[Metric, OfLabelled]]]:
    """What is asked of gratings: class numbers `[V]`, with their accuracy and, with `occlusion`, OccDrop."""
    kind = rung.kind
    for target, label_v in rung.classes().items():
        chance = float(label_v.bincount().max()) / len(label_v)
        accuracy = Metric(
            name=f"{kind.name}: {target}",
            about=f"Accuracy of the linear probe on {len(rung):,} generated clips of {_WHAT[len(kind.sides)]}, "
            f"drifting (arXiv 2601.09040); of {int(label_v.max()) + 1} classes the commonest is {100 * chance:.0f} % "
            "of them.",
            better="higher",
            percent=True,
        )
        drop = Metric(
            name=f"OccDrop, {accuracy.name}",
            about="Share of that accuracy that is lost when the probe is fitted to and tested on clips of which one "
            f"patch is seen{_WHERE[len(kind.sides)]}, an eighth of the frame high and wide, and the rest is black.",
            percent=True,
        )
        figures: dict[Metric, OfLabelled] = {accuracy: partial(linear_probe, form=MEAN)}
        yield label_v, figures | ({drop: occlusion_drop} if occlusion else {})


_WHAT = {1: "a grating", 2: "a grating in the left and one in the right half"}
_WHERE = {1: "", 2: " in each half"}


@dataclass(frozen=True, kw_only=True)
class _Rung:
    """Mean-pooled features `[L + 1, B, D]` of batches of gratings of one kind, as one encoder reads them."""

    kind: int
    count: int
    size: int
    encoder: str
    occlusion: bool
    batch: int
    seed: int

    def __call__(
        self, encoders: Mapping[str, FrozenEncoder], device: torch.device, numbers: range
    ) -> Generator[dict[Form, Tensor]]:
        encoder = encoders[self.encoder]
        rung = gratings(KINDS[self.kind], self.count, self.seed, self.size)
        places: list[Place] = [(self.encoder, depth) for depth in range(encoder.depth + 1)]
        reader, rows = Reader(encoders, places, mean_pooled), torch.arange(len(rung)).split(self.batch)
        for number in numbers:
            video_btchw = rung.render(rows[number], encoder.clip.frames, encoder.clip.size)
            forms: dict[Form, Tensor] = {MEAN: video_btchw}
            if self.occlusion:
                forms[ONE_PATCH] = one_patch(video_btchw, rows[number], self.seed, parts=len(rung.kind.sides))
            shown = {form: reader.read(video.to(device)) for form, video in forms.items()}
            yield {form: torch.stack([read[place] for place in places]) for form, read in shown.items()}
