"""The ladder of blockwise learning (arXiv 2601.09040): what the depths of encoders hold of generated gratings, single
ones and two side by side; its last rung, actions, are the classes of the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from layerlock.analyze.labelled import occlusion_drop
from layerlock.analyze.metrics import MEAN, ONE_PATCH, Form, Metric
from layerlock.analyze.occlusion import one_patch
from layerlock.analyze.table import figure
from layerlock.data.gratings import HALVES, SINGLE, Gratings, gratings
from layerlock.encoders import FrozenEncoder
from layerlock.evaluation.intervals import Interval, bootstrap
from layerlock.features import Place, Reader, mean_pooled
from layerlock.features.probe import probe_hits

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
    metrics, values, total = list[Metric](), list[dict[str, Any]](), len(rungs) * len(encoders)
    for rung in rungs:
        metrics += [metric for name in rung.kind.targets for metric in _metrics(rung, name, occlusion)]
    for done, (rung, (name, encoder)) in enumerate(((r, one) for r in rungs for one in encoders.items()), 1):
        features = _features(rung, name, encoder, occlusion, batch, seed, device)
        for depth in range(encoder.depth + 1):
            of_forms = {form: x_pvd[depth] for form, x_pvd in features.items()}
            for target, label_v in rung.classes().items():
                found = zip(_metrics(rung, target, occlusion), _probe(of_forms, label_v), strict=True)
                values += [figure(metric, (name, depth), *value) for metric, value in found]
        progress(done, total)
    return metrics, values


def _metrics(rung: Gratings, target: str, occlusion: bool) -> list[Metric]:
    """Accuracy and, with `occlusion`, OccDrop."""
    kind, label_v = rung.kind, rung.classes()[target]
    chance = float(label_v.bincount().max()) / len(label_v)
    accuracy = Metric(
        name=f"{kind.name}: {target}",
        about=f"Accuracy of the linear probe on {len(rung):,} generated clips of {_WHAT[len(kind.sides)]}, drifting "
        f"(arXiv 2601.09040); of {int(label_v.max()) + 1} classes the commonest is {100 * chance:.0f} % of them.",
        better="higher",
        percent=True,
    )
    drop = Metric(
        name=f"OccDrop, {accuracy.name}",
        about="Share of that accuracy that is lost when the probe is fitted to and tested on clips of which one patch "
        f"is seen{_WHERE[len(kind.sides)]}, an eighth of the frame high and wide, and the rest is black.",
        percent=True,
    )
    return [accuracy, drop] if occlusion else [accuracy]


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


def _probe(of_forms: Mapping[Form, Tensor], label_v: Tensor) -> list[tuple[Interval, str]]:
    """The accuracy and, where there are features of one patch, OccDrop; with the reason where one is not defined."""
    group_v, found, why = torch.arange(len(label_v)), list[Interval](), ""
    try:
        hits = [probe_hits(x_vd, label_v, group_v) for x_vd in of_forms.values()]
        found.append(bootstrap(hits[0], group_v))
        found += [occlusion_drop(hits[0], hit_v, group_v) for hit_v in hits[1:]]
    except ValueError as error:
        why = str(error)
    found += [Interval(math.nan)] * (len(of_forms) - len(found))
    return [(each, why) for each in found]
