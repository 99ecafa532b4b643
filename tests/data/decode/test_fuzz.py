"""Damaged files of every kind of container: the probe and the decoder refuse them with a reason or read them.

`LAYERLOCK_FUZZ=50000 pytest tests/data/test_fuzz.py` tries so many files; without it two thousand.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from test_pyav import FORMATS, QUIET
from video_files import write_video

from layerlock.data.decode import probe, read_clips, read_whole
from layerlock.data.decode.video import Cut, UnreadableVideo
from layerlock.data.pool import Failure, run_in_processes

COUNT = int(os.environ.get("LAYERLOCK_FUZZ", "2000"))
EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutate(whole_n: np.ndarray, generator: np.random.Generator) -> bytes:
    """One of six kinds of damage, or two of them one after the other."""
    for _ in range(generator.integers(1, 3)):
        whole_n = KINDS[generator.integers(len(KINDS))](whole_n.copy(), generator)
    return whole_n.tobytes()


def flip_bytes(n: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    count = int(generator.integers(1, 40))
    n[generator.integers(0, len(n), count)] = generator.integers(0, 256, count, np.uint8)
    return n


def forge_fields(n: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Numbers of headers set to the largest, the smallest, a negative: those at the ends of the file matter most."""
    for _ in range(generator.integers(1, 6)):
        within = min(len(n), 1500) - 4
        place = int(generator.integers(0, within))
        place = place if generator.integers(2) else len(n) - 4 - place
        n[place : place + 4] = np.frombuffer(int(generator.choice(EXTREMES)).to_bytes(4, "big"), np.uint8)
    return n


def cut_off(n: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return n[: generator.integers(1, len(n))]


def cut_out(n: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    begin, end = sorted(generator.integers(0, len(n), 2))
    return np.concatenate([n[:begin], n[min(end, begin + 4000) :]])


def repeat(n: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    begin = int(generator.integers(0, len(n)))
    return np.concatenate([n[: begin + 2000], n[begin:]])


def blank(n: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    begin = int(generator.integers(0, len(n)))
    n[begin : begin + int(generator.integers(1, 3000))] = int(generator.integers(0, 256))
    return n


KINDS = (flip_bytes, forge_fields, cut_off, cut_out, repeat, blank)


@dataclass(frozen=True)
class Try:
    """A damaged file, made from an intact one by a seed, in the process that reads it."""

    folder: Path
    intact: tuple[Path, ...]

    def __call__(self, seed: int) -> str:
        """What became of it: "read", or the reason for which it was refused."""
        source = self.intact[seed % len(self.intact)]
        path = self.folder / f"{seed}{source.suffix}"
        path.write_bytes(mutate(np.fromfile(source, np.uint8), np.random.default_rng(seed)))
        try:
            video = probe(str(path))
            cuts = [Cut(start=start, frames=4, stride=2) for start in (3, 20, video.frames - 1)]
            assert read_clips(video, cuts, size=(16, 40)).video_nthwc.shape == (3, 4, 16, 40, 3)
            read_whole(video, size=(16, 40), most=999)
        except UnreadableVideo as error:
            return error.reason if error.path == str(path) else f"names another file: {error}"
        finally:
            path.unlink()
        return "read"


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """An intact file of every container and codec that this FFmpeg can write."""
    import av

    folder = tmp_path_factory.mktemp("intact")
    return tuple(
        write_video(
            folder / f"{place}{Path(name).suffix}",
            codec=codec,
            pix_fmt=pix_fmt,
            options=QUIET.get(codec),
            size=(64, 160),
            frames=30,
        )
        for place, (name, codec, pix_fmt) in enumerate(FORMATS)
        if codec in av.codecs_available
    )


def test_damaged_files_are_read_or_refused_with_a_reason(tmp_path: Path, intact: tuple[Path, ...]) -> None:
    begun = time.monotonic()
    found = list(run_in_processes(Try(tmp_path, intact), range(COUNT), workers=2, seconds=20))
    counts = Counter(result.reason if isinstance(result, Failure) else result for result in found)
    print(f"{COUNT} damaged files of {len(intact)} kinds in {time.monotonic() - begun:.0f} s")
    for reason, count in counts.most_common():
        print(f"{count:6} {reason}")
    assert not [(seed, result.reason) for seed, result in enumerate(found) if isinstance(result, Failure)]
    assert not [reason for reason in counts if not reason.isprintable() or not reason or "names another" in reason]
    assert COUNT / 10 < counts["read"] < COUNT
