"""Clips a second through the whole loader on one core, beside a plain PyAV loop, and how long training waits for data.

    python benchmarks/loader.py --data DIR [--size 224] [--epochs 2] [--rounds 3]
    python benchmarks/loader.py --data DIR --packed SHARDS
    python benchmarks/loader.py --data DIR --wait 200

The plain loop does what most readers of video do: for each clip open the file, seek, decode, resize the frames of the
clip. All read the same videos in the same order, each video equally often, in one thread and no worker process. They
take turns, round by round, so that a machine that slows down slows all; the ratio is of the same round, its median and
its range are printed. The last column counts frames that were decoded for each frame of a clip.

With `--packed SHARDS`, which `layerlock pack DIR --out SHARDS` wrote, the loader also reads these, and the pixels of
both are compared: the middle clip of each video, resized as the loader does, by its peak signal-to-noise ratio.

With `--wait N` it trains `layerlock-tiny` for N steps, with the store of decoded frames, and prints what share of the
time the training waited for data.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import torch

import layerlock
from layerlock.data import ClipConfig, batches, decode, folder, open_source
from layerlock.data.folder import FolderSource
from layerlock.data.index import build_index
from layerlock.data.order import video_at

DECODES = (1, 4, 8, 16)


def main() -> None:
    """Parses the options and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--packed")
    parser.add_argument("--wait", type=int, default=0)
    given = parser.parse_args()
    print(f"{given.data}; {os.cpu_count()} cores, PyAV {av.__version__}, torch {torch.__version__}")
    if given.wait:
        show_waits(given.data, given.wait)
    else:
        torch.set_num_threads(1)
        clip = ClipConfig(size=given.size)
        show_rates(given.data, given.packed, clip, given.epochs, given.rounds)
        if given.packed:
            show_pixels(given.data, given.packed, clip)


def show_rates(data: str, packed: str | None, clip: ClipConfig, epochs: int, rounds: int) -> None:
    """A row for the plain loop and for each number of clips a decode, of the videos and of what was packed of them."""
    plain = open_source(data, clip, seed=0)
    assert isinstance(plain, FolderSource)
    groups = epochs * len(plain)
    ways: dict[str, Callable[[], int]] = {"plain PyAV loop": lambda: plain_loop(plain, groups)}
    clips = {"plain PyAV loop": groups}
    for name, place in (("loader", data), ("packed", packed)):
        for n in DECODES if place else ():
            source = open_source(place, replace(clip, per_decode=n), seed=0)
            ways[f"{name}, {n} a decode"] = lambda source=source: loader(source, groups)
            clips[f"{name}, {n} a decode"] = groups * n
    rates: dict[str, list[float]] = {name: [] for name in ways}
    decoded: dict[str, int] = {}
    for _ in range(rounds):
        for name, way in ways.items():
            begun = time.perf_counter()
            decoded[name] = way()
            rates[name].append(clips[name] / (time.perf_counter() - begun))
    print(f"{groups} videos opened, {clip.frames} frames, stride {clip.stride}, {clip.size} px, {rounds} rounds")
    print(f"{'':20} clips/s  ratio to the plain loop   decoded for a frame used")
    base = rates["plain PyAV loop"]
    for name, found in rates.items():
        ratios = [rate / other for rate, other in zip(found, base, strict=True)]
        print(
            f"{name:20} {statistics.median(found):7.1f}  {statistics.median(ratios):5.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f})      {decoded[name] / (clips[name] * clip.frames):6.2f}"
        )


def loader(source: FolderSource, groups: int) -> int:
    """Opens so many videos through the loader; returns how many frames were decoded."""
    decoded = 0
    read_clips = decode.read_clips

    def counting(*args: object, **kwargs: object) -> object:
        nonlocal decoded
        clips = read_clips(*args, **kwargs)
        decoded += clips.decoded
        return clips

    folder.read_clips = counting
    try:
        for _ in batches(source, batch=source.clip.per_decode, start=0, stop=groups, workers=0):
            pass
    finally:
        folder.read_clips = read_clips
    return decoded


def plain_loop(source: FolderSource, count: int) -> int:
    """The same for the plain loop."""
    clip, decoded = source.clip, 0
    starts = np.random.default_rng(0).random(count)
    for index in range(count):
        video = source.index.videos[video_at(index, len(source), source.seed)]
        span = clip.cut(0).span(video.fps)
        start = int(starts[index] * max(1, video.frames - span + 1))
        frames: list[np.ndarray] = []
        with av.open(video.path) as container:
            stream = container.streams.video[0]
            begin = (stream.start_time or 0) + int(start / video.fps / stream.time_base)
            container.seek(begin, stream=stream)
            shown = 0
            for frame in container.decode(stream):
                decoded += 1
                if frame.pts is not None and frame.pts < begin:
                    continue
                if shown % clip.stride == 0:
                    height, width = video.resized(clip.resize_side)
                    if video.rotation % 2:
                        height, width = width, height
                    frames.append(frame.reformat(width, height, "rgb24").to_ndarray())
                shown += 1
                if len(frames) == clip.frames:
                    break
        if frames:
            np.stack(frames)[:, : clip.size, : clip.size].copy()
    return decoded


def show_pixels(data: str, packed: str, clip: ClipConfig) -> None:
    """How far the pixels of packed videos are from those of the originals."""
    index = build_index(packed, targets={"path": "class"})
    originals = build_index(data)
    video_of = {os.path.relpath(video.path, originals.root): video for video in originals.videos}
    column, ratios = index.targets["path"], []
    for row, video in enumerate(index.videos):
        original = video_of[(column.classes or ())[int(column.values[row])]]
        cut = clip.cut(max(0, original.frames - clip.cut(0).span(original.fps)) // 2)
        size = original.resized(clip.resize_side)
        one, other = (decode.read_clips(each, [cut], size=size).video_nthwc for each in (original, video))
        ratios.append(10 * np.log10(255**2 / np.square(one.astype(np.float32) - other).mean()))
    before, after = (sum(video.bytes for video in each.videos) / 1e6 for each in (originals, index))
    print(
        f"PSNR of {len(ratios)} videos: median {np.median(ratios):.1f} dB, {min(ratios):.1f} to {max(ratios):.1f}; "
        f"{before:.1f} MB became {after:.1f} MB"
    )


def show_waits(data: str, steps: int) -> None:
    """Trains and prints the share of time that was waited, and the speed."""
    with tempfile.TemporaryDirectory() as out:
        config = layerlock.recipe("layerlock-tiny", data=data, steps=steps, out=f"{out}/run")
        layerlock.pretrain(config, quiet=True)
        lines = [json.loads(line) for line in (Path(config.out) / "metrics.jsonl").read_text().splitlines()]
    waits = [line["timing"]["data_wait"] for line in lines]
    rates = [line["timing"]["clips_per_s"] for line in lines]
    ends = [line["step"] for line in lines]
    seconds = [(b - a) * config.batch / rate for a, b, rate in zip([0, *ends], ends, rates, strict=False)]
    whole = sum(wait * time for wait, time in zip(waits, seconds, strict=True)) / sum(seconds)
    print(
        f"layerlock-tiny, {steps} steps: {statistics.median(rates):.0f} clips/s; waits {whole:.1%} of the time, "
        f"{waits[0]:.0%} in the first ten steps, {statistics.mean(waits[1:]):.1%} after them"
    )


if __name__ == "__main__":
    main()
