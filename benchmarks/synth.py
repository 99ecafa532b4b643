"""Milliseconds of CPU time that `layerlock synth` takes for a video, in one process and one thread, and its parts.

    python benchmarks/synth.py [--videos 200] [--frames 24] [--rounds 5]

Time of the process, user's and system's: other work on the machine's cores counts only as far as it slows this core
down. Median, minimum and maximum of the rounds. `drawn` are the videos' scenes alone, written nowhere; `drawn one by
one` is what each of them takes by itself, as a source with one clip a decode asks for it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import av
import torch

from layerlock.data.synth import SynthConfig, write_videos
from layerlock.data.synthetic import render_clip, render_clips
from layerlock.process import keep_freed_memory

SIZES = (40, 64)


def main() -> None:
    """Parses the options and prints a row for each size and part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=200)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{given.videos} videos of {given.frames} frames, PyAV {av.__version__}, torch {torch.__version__}")
    for size in SIZES:
        show("written", size, given.videos, given.rounds, writing(given.videos, given.frames, size))
        keep_freed_memory(torch.device("cpu"))  # as writing does
        show("drawn", size, given.videos, given.rounds, drawing(given.videos, given.frames, size))
        show("drawn one by one", size, given.videos, given.rounds, drawing_singly(given.videos, given.frames, size))


def writing(videos: int, frames: int, size: int) -> Callable[[], None]:
    """Whole videos, depth and labels, to a new folder."""

    def write() -> None:
        with tempfile.TemporaryDirectory() as folder:
            write_videos(Path(folder) / "out", SynthConfig(videos=videos, frames=frames, size=size), workers=1)

    return write


def drawing(videos: int, frames: int, size: int) -> Callable[[], None]:
    """The clips alone, 32 scenes built at a time."""

    def draw() -> None:
        for first in range(0, videos, 32):
            for _ in render_clips(0, range(first, min(first + 32, videos)), frames=frames, height=size, width=size):
                pass

    return draw


def drawing_singly(videos: int, frames: int, size: int) -> Callable[[], None]:
    """The same clips, each by itself."""

    def draw() -> None:
        for index in range(videos):
            render_clip(0, index, frames=frames, height=size, width=size)

    return draw


def show(part: str, size: int, videos: int, rounds: int, work: Callable[[], None]) -> None:
    """One row: all CPU time and the system's share of it, after a round that is not counted."""
    work()
    taken = [cpu_seconds(work) for _ in range(rounds)]
    totals = [(user + system) / videos * 1e3 for user, system in taken]
    system_ms = statistics.median(system for _, system in taken) / videos * 1e3
    spread = f"({min(totals):.2f} to {max(totals):.2f})"
    print(f"{size:4} {part:18} {statistics.median(totals):6.2f} {spread:18} ms, {system_ms:.2f} of them the system's")


def cpu_seconds(work: Callable[[], None]) -> tuple[float, float]:
    """User's and system's."""
    begun = os.times()
    work()
    ended = os.times()
    return ended.user - begun.user, ended.system - begun.system


if __name__ == "__main__":
    main()
