"""First light: videos of the synthetic world, a LayerLock encoder trained on them, and what probes read from it.

python examples/demo.py --out runs/demo --seed 0

Trains on H.264 files without labels, through the same path as anybody's folder. Then frozen features are probed on
other videos of the world: actions by a small attention readout, depth by one linear map per token. Each probe is
trained and tested, on the same videos, for the trained encoder, for random weights of the same shape, for raw pixels,
and for what needs no video at all. Every interval is over three probe seeds and test clips drawn with replacement.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

import layerlock
from layerlock.data import ClipConfig, Views, batches, crop_and_flip, open_source
from layerlock.data.synth import read_depth
from layerlock.data.synthetic import ACTIONS, RATE
from layerlock.evaluation.intervals import Interval, bootstrap
from layerlock.evaluation.probes import (
    absolute_relative_error,
    fit_linear_probe,
    predict_labels,
    train_attention_probe,
)
from layerlock.model.patches import patchify
from layerlock.model.position import sincos_table
from layerlock.train.device import pick_precision

TRAIN_VIDEOS, PROBE_VIDEOS, TEST_VIDEOS = 3_000, 1_500, 600
PROBE_SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Labelled:
    """Clips of a folder with what there is to read from them: `[V, T, 3, H, W]`, `[V]`, depth patches `[V, N, P]`."""

    video_vtchw: Tensor
    label_v: Tensor
    depth_vnp: Tensor


Reader = Callable[[Tensor], Tensor]
"""Clips `[B, T, 3, H, W]` to features `[B, N, D]`."""
Features = tuple[Tensor, Tensor]
"""Features `[V, N, D]` of the clips to train probes on, and of those to test them on."""


def main() -> None:
    """Parses the two options and runs the four parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)

    config = layerlock.recipe("layerlock-tiny", seed=given.seed, out=str(given.out / f"run-{given.seed}"))
    folders = write_videos(given.out, given.seed, config.clip.resize_side)
    # one process decodes, the other cores train: H.264 of this size is soon decoded
    run = replace(config.run, workers=1, threads=max(1, (os.cpu_count() or 2) - 1))
    outcome = layerlock.pretrain(replace(config, data=str(folders[0]), run=run), overwrite=True)
    encoder = layerlock.load(outcome.folder)
    untrained = layerlock.Encoder.random(config.model, encoder.clip, seed=given.seed)

    for model in (encoder, untrained):
        model.vit.compute = pick_precision(config.run, torch.device("cpu"))

    train, test = (read(folder, config.clip, config.model.patch) for folder in folders[1:])
    depth = config.encoder_depth

    def still(video: Tensor) -> Tensor:
        middle = video.shape[1] // 2
        return encoder(video[:, middle : middle + 1].expand_as(video).contiguous(), depth)

    def both(reader: Reader) -> Features:
        return features(reader, train.video_vtchw), features(reader, test.video_vtchw)

    print("probing frozen features")
    found = {
        "trained encoder": both(lambda video: encoder(video, depth)),
        "random weights": both(lambda video: untrained(video, depth)),
        "raw pixels": both(pixels_with_position(encoder)),
    }
    told = actions(found | {"one frame, repeated": both(still)}, train, test, times=encoder.grid[0])
    print_table("Action, top-1 accuracy in % (higher is better)", told, 100, "8.1f", False)
    print_table("Depth, absolute relative error (lower is better)", depths(found, train, test), 1, "8.4f", True)
    print(
        f"features after block {depth} of {encoder.depth}; intervals: 95 %, over test videos; "
        f"those of actions over {len(PROBE_SEEDS)} probe seeds too"
    )
    print(f"report: {outcome.folder / 'report.html'}")


def write_videos(out: Path, seed: int, side: int) -> list[Path]:
    """Three folders of different worlds: to train the encoder, to train the probes, to test them."""
    folders = [out / f"videos-{seed}-{part}" for part in ("train", "probe", "test")]
    for part, (folder, count) in enumerate(zip(folders, (TRAIN_VIDEOS, PROBE_VIDEOS, TEST_VIDEOS), strict=True)):
        paths = layerlock.synth(folder, videos=count, seed=3 * seed + part, size=side + side % 2)
        print(f"{len(paths)} videos in {folder}")
    return folders


def read(folder: Path, clip: ClipConfig, patch: tuple[int, int, int]) -> Labelled:
    """The middle clip of every video, its class, and the depth of the same pixels."""
    source = Views(open_source(str(folder), replace(clip, flip=False), seed=0, targets=("label",)))
    assert source.source.classes == tuple(sorted(ACTIONS)), "a class without a video"
    videos, labels, depths = [], [], []
    for batch in batches(source, batch=20, start=0, stop=len(source) // 20, workers=2):
        videos.append(crop_and_flip(batch))
        labels.append(batch.targets["label"])
        for name, (top, left) in zip(batch.names, batch.crop_b4[:, :2].int().tolist(), strict=True):
            depth_thw = read_depth(name)
            span = clip.cut(0).span(RATE)
            first = (len(depth_thw) - span) // 2
            frames = depth_thw[first : first + span : clip.stride]
            depths.append(frames[:, top : top + clip.size, left : left + clip.size])
    depth_vnp = patchify(torch.stack(depths)[:, :, None], patch)
    return Labelled(torch.cat(videos), torch.cat(labels), depth_vnp)


def pixels_with_position(encoder: layerlock.Encoder) -> Reader:
    """Patches as they are, with the place of each beside it: without it a readout could not tell left from right."""
    table = sincos_table(encoder.grid, encoder.width)

    def reader(video: Tensor) -> Tensor:
        patches = encoder.vit.normalize(patchify(video, encoder.vit.config.patch))
        return torch.cat([patches, table.expand(len(video), *table.shape)], dim=-1)

    return reader


def features(reader: Reader, clips: Tensor) -> Tensor:
    """Features of all clips, `[V, N, D]`, kept in bfloat16."""
    with torch.no_grad():
        return torch.cat([reader(part).bfloat16() for part in clips.split(64)])


def actions(found: dict[str, Features], train: Labelled, test: Labelled, *, times: int) -> dict[str, Interval]:
    """Accuracy of an attention readout on each kind of features, and of the most frequent class."""
    rows = {}
    for name, (fit, held_out) in found.items():
        hits = []
        for seed in PROBE_SEEDS:
            readout = train_attention_probe(fit, train.label_v, times=times, classes=len(ACTIONS), seed=seed)
            hits.append((predict_labels(readout, held_out) == test.label_v).double())
        rows[name] = bootstrap(torch.stack(hits))
    rows["chance"] = bootstrap((test.label_v == torch.bincount(train.label_v).argmax()).double())
    return rows


def depths(found: dict[str, Features], train: Labelled, test: Labelled) -> dict[str, Interval]:
    """Error of a linear map from each kind of tokens to the depth of their pixels, and of the mean depth image."""
    rows = {}
    for name, (fit, held_out) in found.items():
        probe = fit_linear_probe(fit, train.depth_vnp)
        rows[name] = bootstrap(absolute_relative_error(probe(held_out), test.depth_vnp))
    mean = train.depth_vnp.mean(0)
    rows["mean depth image"] = bootstrap(absolute_relative_error(mean.expand_as(test.depth_vnp), test.depth_vnp))
    return rows


def print_table(title: str, rows: dict[str, Interval], scale: float, form: str, lower_is_better: bool) -> None:
    """Names, means and intervals, and in words only what the intervals say."""
    print(f"\n{title}")
    for name, row in rows.items():
        print(f"  {name:22}{row.mean * scale:{form}}   [{row.low * scale:{form}}, {row.high * scale:{form}}]")
    ours = rows["trained encoder"]
    above = [name for name, row in rows.items() if ours.low > row.high]
    below = [name for name, row in rows.items() if ours.high < row.low]
    same = [name for name in rows if name not in (*above, *below, "trained encoder")]
    better, worse = (below, above) if lower_is_better else (above, below)
    print("  by these intervals the trained encoder is better than: " + (", ".join(better) or "none"))
    for word, names in (("worse than", worse), ("not significantly different from", same)):
        if names:
            print(f"  {word}: {', '.join(names)}")


if __name__ == "__main__":
    main()
