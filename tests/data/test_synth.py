"""The world as files: what is written can be read again, a run can be repeated, foreign folders stay untouched."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from video_files import written_depth

from layerlock.data import synth
from layerlock.data.motion import ACTIONS
from layerlock.data.synthetic import SyntheticClip, render_clip
from layerlock.errors import ConfigError, LayerlockError

av = pytest.importorskip("av")


def write(out: Path, videos: int = 3, seed: int = 2, workers: int = 1) -> list[Path]:
    config = synth.SynthConfig(videos=videos, seed=seed, size=48, frames=10)
    return synth.write_videos(out, config, workers=workers)


def decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert float(stream.average_rate) == 16
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])


def test_videos_and_depth_come_back(tmp_path: Path) -> None:
    paths = write(tmp_path / "out")
    for index, path in enumerate(paths):
        clip = render_clip(2, index, frames=10, height=48, width=48)
        assert path == tmp_path / "out" / ACTIONS[clip.label] / f"{index:06d}.mp4"
        video_thwc = decode(path)
        assert video_thwc.shape == (10, 48, 48, 3)
        error = np.abs(video_thwc.astype(float) - clip.video_tchw.permute(0, 2, 3, 1).numpy())
        assert error.mean() < 5
        depth_thw = written_depth(path)
        torch.testing.assert_close(depth_thw, clip.depth_thw, rtol=0, atol=0.00051)


def test_labels_name_every_file(tmp_path: Path) -> None:
    paths = write(tmp_path, videos=4)
    with (tmp_path / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file_name"] for row in rows] == [path.relative_to(tmp_path).as_posix() for path in paths]
    assert [row["label"] for row in rows] == [path.parent.name for path in paths]


def test_an_interrupted_run_continues_and_changes_nothing_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write(tmp_path / "whole", videos=4)
    out = tmp_path / "out"

    write_one, written = synth._write_one, []

    def stop_at_third(config: synth.SynthConfig, clip: SyntheticClip, path: Path) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        write_one(config, clip, path)
        written.append(path)

    monkeypatch.setattr(synth, "_write_one", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        write(out, videos=4)
    monkeypatch.undo()
    there = sorted(out.rglob("*.mp4"))
    assert 0 < len(there) < 4
    times = [path.stat().st_mtime_ns for path in there]
    (there[0].parent / "000099.mp4.partial").write_bytes(b"half a file")
    again = write(out, videos=4)
    assert [path.stat().st_mtime_ns for path in there] == times
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in whole]
    assert not list(out.rglob("*.partial"))


def test_processes_write_the_same_bytes(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one", videos=4), write(tmp_path / "two", videos=4, workers=2)
    for path, other in zip(one, two, strict=True):
        assert path.read_bytes() == other.read_bytes()
        assert synth.depth_path(path).read_bytes() == synth.depth_path(other).read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="MALLOC_PERTURB_ is glibc's")
def test_the_bytes_do_not_depend_on_what_lay_in_memory(tmp_path: Path) -> None:
    write_there = (
        "import sys; from layerlock.data import synth;"
        "synth.write_videos(sys.argv[1], synth.SynthConfig(videos=4, seed=2, size=48, frames=10), workers=1)"
    )
    written = []
    for filling in ("0", "85"):
        out = tmp_path / filling
        subprocess.run(
            [sys.executable, "-c", write_there, str(out)], env={**os.environ, "MALLOC_PERTURB_": filling}, check=True
        )
        written.append([path.read_bytes() for path in sorted(out.rglob("*.mp4"))])
    assert len(written[0]) == 4
    assert written[0] == written[1]


def test_a_failed_encoding_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(path: Path, *_: object) -> None:
        path.write_bytes(b"some")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(synth, "_encode", full_disk)
    with pytest.raises(LayerlockError, match="No space left"):
        write(tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.mp4*"))


def test_folders_of_others_are_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.mp4").write_bytes(b"mine")
    with pytest.raises(LayerlockError, match="not empty"):
        write(tmp_path)
    with pytest.raises(LayerlockError, match="is a file"):
        write(tmp_path / "holiday.mp4")
    write(tmp_path / "out", videos=1)
    with pytest.raises(LayerlockError, match="seed 2 there, 3 here"):
        write(tmp_path / "out", videos=1, seed=3)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        synth.write_videos(tmp_path / "out", synth.SynthConfig(videos=0, size=33, frames=0, fps=0))
    assert len(caught.value.problems) == 4
    assert not (tmp_path / "out").exists()
