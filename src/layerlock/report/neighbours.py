"""The section of nearest neighbours: which videos of the data the encoder finds alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from markupsafe import Markup
from torch import Tensor
from torch.nn import functional as F

from layerlock.config import Config
from layerlock.data import Views, open_source
from layerlock.data.folder import FolderSource
from layerlock.data.index import build_index
from layerlock.data.index.layouts import list_videos
from layerlock.data.index.shards.find import are_shards
from layerlock.errors import LayerlockError
from layerlock.features import FeatureBatch
from layerlock.features.clips import plain_clip
from layerlock.features.embed import embed_source
from layerlock.features.neighbours import neighbours
from layerlock.features.whitening import whitening
from layerlock.model.cost import encoder_flops
from layerlock.model.encoder import HEADLINE, Encoder
from layerlock.report import pictures
from layerlock.report.markup import card, cards, image, note, paragraph, query

VIDEOS, QUERIES, NEIGHBOURS = 64, 6, 5
CPU_FLOPS = 4e13
"""What the features may cost where there is no accelerator: a minute or two."""


def neighbour_section(encoder: Encoder | str, config: Config) -> list[Markup]:
    """A few videos of the data and those whose features are nearest; says so where that cannot be shown."""
    if isinstance(encoder, str):
        return [note(encoder)]
    count = _affordable(encoder)
    if count < 3:
        return [note("Left out: on this machine the features of a few videos would take too long.")]
    try:
        return _neighbours(encoder, config, count)
    except (LayerlockError, OSError) as error:
        return [
            note(f"The videos ({config.data}) cannot be read from here, so there are no neighbours to show: {error}")
        ]


def _affordable(encoder: Encoder) -> int:
    t, h, w = encoder.grid
    flops = encoder_flops(encoder.vit.config, t * h * w, encoder.at_depth(HEADLINE))
    on_cpu = next(encoder.parameters()).device.type == "cpu"
    return min(VIDEOS, int(CPU_FLOPS / flops)) if on_cpu else VIDEOS


def _neighbours(encoder: Encoder, config: Config, count: int) -> list[Markup]:
    views, total, root = _views(encoder, config, count)
    middles: list[Tensor] = []

    def keep_middles(read: FeatureBatch) -> None:
        middles.extend(read.video_btchw[:, read.video_btchw.shape[1] // 2].cpu())

    device = next(encoder.parameters()).device
    depth = encoder.at_depth(HEADLINE)
    found = embed_source(encoder, views, depths=[depth], workers=1, device=device, each=keep_middles)
    frames = {views.name(row): frame for row, frame in enumerate(middles)}
    features_vd, names = torch.from_numpy(found.features[:, 0]), list(map(views.name, found.samples))
    videos = len(names)
    if videos < 3:
        return [
            note(f"There {'is 1 video' if videos == 1 else 'are 2 videos'}: too few for neighbours to mean anything.")
        ]
    if not features_vd.isfinite().all():
        return [note("Some features are not finite, so there are no neighbours.")]
    queries = torch.tensor(pictures.pick_frames(videos, QUERIES))
    mean_cosine, how = _mean_cosine(features_vd), ""
    with suppress(ValueError):  # nothing varies
        features_vd, how = whitening(features_vd).apply(features_vd), ", centred and whitened"
    index_qk, cosine_qk = neighbours(features_vd, min(NEIGHBOURS, videos - 1), queries)
    shown = [
        _query(frames, [names[row] for row in [int(query), *near.tolist()]], root, cosines.tolist())
        for query, near, cosines in zip(queries, index_qk, cosine_qk, strict=True)
    ]
    head = (
        "Left: a video; beside it: the videos with the most similar features, and their cosine. Features are the mean"
        f" over the tokens of the middle clip after block {depth}{how}. {videos} of"
        f" {_count(total)} videos were compared; features as they are have a cosine of {mean_cosine:.3f} on average."
        " The encoder was trained on these data."
    )
    return [paragraph(head), cards(shown, "queries")]


def _views(encoder: Encoder, config: Config, count: int) -> tuple[Views, int, str]:
    """At most `count` videos, evenly spread over the data, how many there are in all, and the folder they are below.

    The others are not indexed.
    """
    clip = plain_clip(encoder.clip)
    if config.data == "synthetic":
        source = open_source(config.data, clip, seed=config.seed)
        return Views(source, pictures.pick_frames(len(source), count)), len(source), config.data
    if are_shards(config.data):  # which are indexed already, all of them
        index = build_index(config.data, root=config.data_root)
        return Views(FolderSource(index.spread(count), clip, config.seed)), len(index), index.root
    listing = list_videos(config.data, config.data_root)
    chosen = pictures.pick_frames(len(listing), count)
    index = build_index(listing, workers=min(max(config.run.workers, 1), 4), only=chosen)
    return Views(FolderSource(index, clip, config.seed)), len(listing), listing.root


def _count(videos: int) -> str:
    return "endlessly many" if videos >= 1 << 31 else f"{videos:,}"


def _mean_cosine(features_vd: Tensor) -> float:
    x = F.normalize(features_vd, dim=1)
    count = len(x)
    return float((x.sum(0).square().sum() - count) / (count * (count - 1)))


def _query(frames: Mapping[str, Tensor], names: Sequence[str], root: str, cosines: Sequence[float]) -> Markup:
    """One row: the first of `names` asks, the others are its neighbours."""
    digits = 3 if min(cosines) < 0.99 else 5
    said = ["", *(f"{cosine:.{digits}f}" for cosine in cosines)]
    parts = []
    for name, value in zip(names, said, strict=True):
        picture = image(pictures.photo_strip(frames[name][None]), f"Middle frame of {short(name, root)}")
        parts.append(card(picture, caption=(short(name, root), value)))
    return query(parts)


def short(name: str, root: str) -> str:
    """A file's path below the data folder."""
    path = Path(name)
    return str(path.relative_to(root)) if path.is_relative_to(root) and path != Path(root) else name
