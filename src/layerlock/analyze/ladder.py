"""The ladder of blockwise learning (arXiv 2601.09040): what the depths of encoders hold of generated gratings, single
ones and two side by side; its last rung, actions, are the classes of the data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
    for done, ((rung, questions), (name, encoder)) in enumerate(product(asked, encoders.items()), 1):
        features = _features(rung, name, encoder, occlusion, batch, seed, device)
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


def _features(
    rung: Gratings, name: str, encoder: FrozenEncoder, occlusion: bool, batch: int, seed: int, device: torch.device
) -> dict[Form, Tensor]:
    """Mean-pooled, `[L + 1, V, D]`."""
    places: list[Place] = [(name, depth) for depth in range(encoder.depth + 1)]
    reader, parts = Reader({name: encoder}, places, mean_pooled), dict[Form, list[Tensor]]()
    for row_b in torch.arange(len(rung)).split(batch):
        video_btchw = rung.render(row_b, encoder.clip.frames, encoder.clip.size)
        forms: dict[Form, Tensor] = {MEAN: video_btchw}
        if occlusion:
            forms[ONE_PATCH] = one_patch(video_btchw, row_b, seed, parts=len(rung.kind.sides))
        for form, video in forms.items():
            read = reader.read(video.to(device))
            parts.setdefault(form, []).append(torch.stack([read[place] for place in places]))
    return {form: torch.cat(x_pbd, 1) for form, x_pbd in parts.items()}
