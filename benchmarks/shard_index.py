"""What an index of very many videos in shards costs: time and memory to open it and to find videos at random.

    python benchmarks/shard_index.py --out DIR [--videos 174000000] [--each 1000] [--objects 200000]

writes a synthetic index of shards of `each` videos, drops it from the page cache and, in a fresh process, opens it
as training does and asks for the first videos of an epoch; then removes it. It takes 57 bytes of disk a video. Beside
it: how long the table of a pack takes to write, and the memory of videos as the index of a folder holds them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from layerlock.data.clips import ClipConfig
from layerlock.data.decode.span import Span
from layerlock.data.decode.video import VideoInfo
from layerlock.data.folder import FolderSource
from layerlock.data.index import build_index
from layerlock.data.index.shards.find import TABLE
from layerlock.data.index.shards.merge import write_table
from layerlock.data.index.shards.record import Known, Record
from layerlock.data.index.shards.table import COLUMNS, Table, create_table

ASKED = 2_000
"""videos that are asked for"""
MERGED = 20_000
"""videos whose table is written as `layerlock pack` does"""


def main() -> None:
    """Parses the options and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--videos", type=int, default=174_000_000)
    parser.add_argument("--each", type=int, default=1_000)
    parser.add_argument("--objects", type=int, default=200_000)
    parser.add_argument("--open", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.open:
        show_opening(given.out)
        return
    folder = given.out / "shard-index"
    folder.mkdir(parents=True)
    try:
        show_merge(folder, given.each)
        write_index(folder, given.videos // given.each, given.each)
        subprocess.run([sys.executable, __file__, "--open", "--out", str(folder)], check=True)
    finally:
        shutil.rmtree(folder)
    show_objects(given.objects)


def video(number: int) -> VideoInfo:
    """A packed video."""
    span = Span("000000.tar", 512 + number * 100_352, 100_000)
    path = f"/data/shards/000000.tar/{number:04d}.mp4"
    facts = {"frames": 300, "fps": 30.0, "width": 456, "height": 256, "seconds": 10.0, "codec": "h264", "rotation": 0}
    return VideoInfo(path=path, bytes=span.bytes, span=span, **facts)


def show_merge(folder: Path, each: int) -> None:
    """Writes a table of a few shards, one of which is the pattern for the large one."""
    videos = tuple(Known(f"{n:04d}.mp4", video(n), {"label": f"class {n % 400}"}) for n in range(each))
    record = Record(videos=videos, rejected=(), digest=b"0")
    shards = [(f"{n:06d}.tar", 0) for n in range(-(-MERGED // each))]
    begun = time.perf_counter()
    write_table(folder / "few", shards, lambda _: record, data="", wanted={}, earlier={}, packed={})
    print(f"a table is written in {(time.perf_counter() - begun) / len(shards) / each * 1e6:.1f} microseconds a video")


def write_index(folder: Path, shards: int, each: int) -> None:
    """Files without content for the shards, and a table in which each holds what the first does."""
    few = Table(folder / "few")
    letters = int(few.arrays["end"][each - 1])
    names = [f"{n:06d}.tar" for n in range(shards)]
    for name in names:
        (folder / name).touch()
    about = few.about | {"videos": shards * each, "shards": [[name, 0, each * n] for n, name in enumerate(names)]}
    types = COLUMNS | {"target.label": "I32", "codec": "U8", "text": "U8", "rejected": "U8"}
    counts = dict.fromkeys(types, shards * each) | {"text": shards * letters, "rejected": 2}
    arrays = create_table(folder / TABLE, about, types, counts)
    arrays["rejected"][:] = few.arrays["rejected"]
    for name in types.keys() - {"rejected"}:
        length = letters if name == "text" else each
        pattern = few.arrays[name][:length]
        rows = arrays[name].reshape(shards, length)
        for begin in range(0, shards, 100):
            some = np.arange(begin, min(begin + 100, shards))[:, None]
            rows[begin : begin + 100] = pattern + some * letters if name == "end" else pattern
    (folder / "few").unlink()
    descriptor = os.open(folder / TABLE, os.O_RDWR)
    os.fsync(descriptor)
    del arrays, rows
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def show_opening(folder: Path) -> None:
    """Opens the index as training does, and asks for videos in the order of an epoch."""
    before, begun, cpu = memory(), time.perf_counter(), time.process_time()
    source = FolderSource(build_index(folder, 0), ClipConfig(), 0)
    opened, cpu = time.perf_counter(), time.process_time() - cpu
    after = memory()
    for n in range(ASKED):
        source.name(n)
    asked = time.perf_counter()
    size = (folder / TABLE).stat().st_size
    shards = len(source.index.videos.table.shards)
    print(
        f"{len(source):,} videos in {shards:,} shards, {size / 1e9:.2f} GB on the disk: opened in "
        f"{opened - begun:.2f} s ({cpu:.2f} s of CPU time); {ASKED:,} videos at random: "
        f"{(asked - opened) / ASKED * 1e3:.2f} ms each\n"
        f"memory: {before / 2**20:,.0f} MiB before (torch and PyAV), {after / 2**20:,.0f} MiB opened, "
        f"{memory() / 2**20:,.0f} MiB at the end, pages of the file that it has read included"
    )


def show_objects(count: int) -> None:
    """Memory of videos as objects."""
    before, begun = memory(), time.perf_counter()
    videos = [video(n) for n in range(count)]
    grown = memory() - before
    seconds = time.perf_counter() - begun
    print(
        f"{len(videos):,} objects: {grown / count:,.0f} bytes each, "
        f"{grown / count * 174e6 / 1e9:,.0f} GB and {seconds / count * 174e6 / 60:,.0f} minutes for 174 million"
    )


def memory() -> int:
    """Memory of this process in bytes, mapped pages of files included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
