"""The synthetic world as files: H.264 videos in class folders, their labels, and 16-bit depth beside them.

OUT/labels.csv                          file_name,label; paths below OUT
OUT/<action>/<index>.mp4                H.264, yuv420p
OUT/depth/<action>/<index>.npz          `depth_mm`, uint16 [T, H, W], millimetres
OUT/synth.json                          what was asked for; marks the folder as ours
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np
import torch
from torch import Tensor

from layerlock.data.decode.beside import depth_path
from layerlock.data.motion import ACTIONS, labels
from layerlock.data.synthetic import RATE, SyntheticClip, render_clips
from layerlock.errors import ConfigError, LayerlockError
from layerlock.process import keep_freed_memory, put_back

_SETTINGS_FILE = "synth.json"
_PARTIAL = ".partial"
_CRF = "18"
_DEFLATE_LEVEL = 3
"""of depth: two thirds of the time of the usual 6, for files that are 3 to 5 % larger"""
_TOGETHER = 32
"""videos whose scenes are built at once"""
_Place = tuple[int, Path]
"""a video's index and its file"""


@dataclass(frozen=True, kw_only=True)
class SynthConfig:
    """What to write. 24 frames at the world's own rate show the action in any window of 16."""

    videos: int = 1000
    seed: int = 0
    size: int = 64
    """height and width in pixels, even"""
    frames: int = 24
    fps: float = RATE

    def problems(self) -> list[str]:
        """What is wrong with the settings, one line each."""
        problems = [
            f"{name} is {value}; it has to be at least 1"
            for name, value in (("videos", self.videos), ("frames", self.frames))
            if value < 1
        ]
        if self.size < 16 or self.size % 2:
            problems.append(
                f"size is {self.size}; H.264 needs an even number of pixels, and 16 or more to show anything"
            )
        if not 1 <= self.fps <= 240:
            problems.append(f"fps is {self.fps}; it has to be between 1 and 240")
        return problems


@put_back()
def write_videos(out_dir: Path | str, config: SynthConfig, *, workers: int = 0) -> list[Path]:
    """Writes the first `config.videos` videos of a world; returns their paths, in the order of their indices.

    Every file appears whole or not at all, and one that is there is kept: an interrupted call can be repeated, and more
    videos of the same world can be added. `workers` is the number of processes (0: one for each core; 1: this one).
    Raises ConfigError for settings that make no sense and LayerlockError for a folder that holds something else or a
    disk that cannot be written.
    """
    if problems := config.problems():
        raise ConfigError(problems)
    out = Path(out_dir)
    label_b = labels(config.seed, torch.arange(config.videos)).tolist()
    paths = [out / ACTIONS[label] / f"{index:06d}.mp4" for index, label in enumerate(label_b)]
    with _telling_disk_errors(out):
        _claim(out, config)
        for folder in {path.parent for path in paths}:
            folder.mkdir(exist_ok=True)
            depth_path(folder / "any").parent.mkdir(parents=True, exist_ok=True)
        missing = [i for i, path in enumerate(paths) if not (path.exists() and depth_path(path).exists())]
        _in_parallel(partial(_write_some, config), [(i, paths[i]) for i in missing], workers)
        _write_labels(out, paths)
    return paths


def _in_parallel(work: Callable[[list[_Place]], None], places: list[_Place], workers: int) -> None:
    workers = max(1, min(workers or os.cpu_count() or 1, len(places)))
    together = max(1, min(_TOGETHER, len(places) // (4 * workers)))  # the last batch is a small part of the work
    batches = [places[begin : begin + together] for begin in range(0, len(places), together)]
    if workers == 1:
        keep_freed_memory(torch.device("cpu"))
        list(map(work, batches))
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_quiet) as pool:
        list(pool.map(work, batches))


@contextmanager
def _telling_disk_errors(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LayerlockError(f"cannot write videos to {out}: {error}") from error


def _claim(out: Path, config: SynthConfig) -> None:
    """Makes the folder ours, or checks that it is and holds the same world, and clears what a killed run left there."""
    settings, mark = asdict(config), out / _SETTINGS_FILE
    if out.exists() and not out.is_dir():
        raise LayerlockError(f"{out} is a file; give a folder to write videos to")
    if mark.exists():
        before = json.loads(mark.read_text())
        if different := [name for name in settings if name != "videos" and settings[name] != before.get(name)]:
            told = ", ".join(f"{name} {before.get(name)} there, {settings[name]} here" for name in different)
            raise LayerlockError(f"{out} holds videos of another world ({told}); give another folder")
    elif out.exists() and any(out.iterdir()):
        raise LayerlockError(f"{out} is not empty, and not a folder of synthetic videos; give a new or an empty folder")
    out.mkdir(parents=True, exist_ok=True)
    for leftover in out.rglob(f"*{_PARTIAL}"):
        leftover.unlink(missing_ok=True)
    _publish(mark, lambda path: path.write_text(json.dumps(settings, indent=2) + "\n"))


def _publish(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file under another name and moves it to its place when it is whole."""
    partial_path = path.with_name(path.name + _PARTIAL)
    try:
        write(partial_path)
        partial_path.replace(path)
    finally:
        partial_path.unlink(missing_ok=True)


def _quiet() -> None:
    """One thread for each process, since the processes are the parallelism; memory of one clip serves the next."""
    torch.set_num_threads(1)
    keep_freed_memory(torch.device("cpu"))


def _write_some(config: SynthConfig, places: list[_Place]) -> None:
    size, indices = config.size, [index for index, _ in places]
    clips = render_clips(config.seed, indices, frames=config.frames, height=size, width=size, fps=config.fps)
    for clip, (_, path) in zip(clips, places, strict=True):
        _write_one(config, clip, path)


def _write_one(config: SynthConfig, clip: SyntheticClip, path: Path) -> None:
    depth_mm = (clip.depth_thw.double() * 1000).round_().clamp_(0, 65535).numpy().astype(np.uint16)
    _publish(depth_path(path), lambda place: _save_depth(place, depth_mm))
    _publish(path, lambda place: _encode(place, clip.video_tchw, config.fps))


def _save_depth(path: Path, depth_mm: np.ndarray) -> None:
    """Writes what `np.savez_compressed` does, with less effort, and the same bytes whatever the time."""
    array = BytesIO()
    np.lib.format.write_array(array, depth_mm)
    with ZipFile(path, "w") as archive:
        archive.writestr(ZipInfo("depth_mm.npy"), array.getbuffer(), ZIP_DEFLATED, _DEFLATE_LEVEL)


def _encode(path: Path, video_tchw: Tensor, fps: float) -> None:
    """Writes an H.264 file at constant quality, the same bytes on every run: one thread, and no macroblock tree.

    The tree of x264 (165) reads memory that nobody wrote when frames are this small.
    """
    import av
    from av.video.reformatter import VideoReformatter

    with av.open(str(path), "w", format="mp4") as container:
        rate = Fraction(fps).limit_denominator(1001)
        options = {"crf": _CRF, "preset": "veryfast", "threads": "1", "x264-params": "mbtree=0"}
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.height, stream.width = video_tchw.shape[-2:]
        stream.pix_fmt = "yuv420p"
        scaler = VideoReformatter()  # its tables cost more than a small frame
        for moment, frame_hwc in enumerate(torch.stack(video_tchw.unbind(1), dim=-1).numpy()):
            picture = av.VideoFrame.from_numpy_buffer(frame_hwc, format="rgb24")
            frame = scaler.reformat(picture, format="yuv420p", threads=1)
            frame.pts = moment
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _write_labels(out: Path, paths: list[Path]) -> None:
    def write(place: Path) -> None:
        with place.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["file_name", "label"])
            rows.writerows([path.relative_to(out).as_posix(), path.parent.name] for path in paths)

    _publish(out / "labels.csv", write)
