"""Milliseconds that augmentation takes for a clip, by kind.

    python benchmarks/augment.py [--device cpu] [--threads 1]

Random clips of 16 frames, 32 at 48 pixels or 8 at 224; median, minimum and maximum of seven calls.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace

import torch

from layerlock.data import Batch, ClipConfig
from layerlock.data.augment import augment, random_box

KINDS = {
    "plain crop": ClipConfig(),
    "random-size crop": ClipConfig(area=(0.3, 1.0)),
    "plain crop, jitter of every clip": ClipConfig(jitter=1.0),
    "plain crop, grayscale for every clip": ClipConfig(grayscale=1.0),
    "plain crop, jitter 0.8 and grayscale 0.1": ClipConfig(jitter=0.8, grayscale=0.1),
}


def main() -> None:
    """Parses the options and prints a row for each kind and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(f"{given.device}, {given.threads} threads, torch {torch.__version__}")
    for size, count in ((48, 32), (224, 8)):
        for kind, settings in KINDS.items():
            clip = replace(settings, size=size)
            batch = random_batch(clip, count).to(given.device)
            augment(batch, clip, 0)
            times = [seconds(batch, clip) / count * 1e3 for _ in range(7)]
            print(f"{size:4} {kind:36} {statistics.median(times):6.2f} ({min(times):.2f} to {max(times):.2f}) ms")


def random_batch(clip: ClipConfig, count: int) -> Batch:
    """Clips of noise with a crop each."""
    generator, side = torch.Generator().manual_seed(0), clip.resize_side
    video = torch.randint(0, 256, (count, 16, 3, side, side), generator=generator, dtype=torch.uint8)
    crops = [(3.0, 2.0, float(clip.size), float(clip.size))] * count
    if clip.area is not None:
        crops = [random_box(u, 360, 640, clip) for u in torch.rand(count, 4, generator=generator).tolist()]
    return Batch(
        index_b=torch.arange(count),
        names=("",) * count,
        video_btchw=video,
        crop_b4=torch.tensor(crops),
        flip_b=torch.arange(count) % 2 == 0,
        size=clip.size,
    )


def seconds(batch: Batch, clip: ClipConfig) -> float:
    """Of one call."""
    begun = time.perf_counter()
    shown = augment(batch, clip, 0)
    if shown.device.type == "cuda":
        torch.cuda.synchronize(shown.device)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
