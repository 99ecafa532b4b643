"""Runs in processes of their own that are stopped or killed, and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import config, run_config

from layerlock import cli
from layerlock.config import Config, load_config
from layerlock.data import ClipConfig
from layerlock.data.synth import SynthConfig, write_videos
from layerlock.errors import LayerlockError
from layerlock.holder import this_process
from layerlock.learn.plans import Progressive
from layerlock.lock import FolderLock
from layerlock.model.encoder import load
from layerlock.settings import to_dict
from layerlock.train.loop import Run, train

SCRIPT = """
import json, os, signal, sys
from layerlock import cli
from layerlock.config import Config, from_dict
from layerlock.train import checkpoint, loop

moment, step, number, given = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])
if moment == "update":
    update = loop.Run.update
    def stopped(self, *args, **kwargs):
        if self.step == step:
            os.kill(os.getpid(), number)
        return update(self, *args, **kwargs)
    loop.Run.update = stopped
else:
    point = checkpoint.sync
    def stopped(*paths):
        if any(path.name == f".part-step-{step:08d}" for path in paths):
            os.kill(os.getpid(), number)
        point(*paths)
    checkpoint.sync = stopped
if isinstance(given, list):
    cli.main(given)
loop.train(from_dict(Config, given), quiet=True)
"""
CLIP = ClipConfig(frames=8, stride=1, size=24, resize=1.0, flip=True)
SHORT = [
    *("--steps", "12", "--batch", "2", "--clip.frames", "8", "--clip.size", "24", "--clip.resize", "1.0"),
    *("--model.width", "24", "--model.mlp", "48", "--model.heads", "2", "--run.threads", "1", "--run.workers", "0"),
    *("--run.device", "cpu", "--run.precision", "fp32", "--run.log-every", "2", "--run.checkpoint-every", "3"),
]


def stop_at(moment: str, step: int, number: int, given: dict[str, Any] | list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", SCRIPT, moment, str(step), str(number), json.dumps(given)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)


def run_of(out: Path, **changes: Any) -> Config:
    return config(out, clip=CLIP, batch=2, run=run_config(threads=1, log_every=2, checkpoint_every=3, **changes))


def learned(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(text) for text in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "timing"} for line in lines]


def assert_same(a: Path, b: Path) -> None:
    """All metrics but timing, the encoder and the last checkpoint are the same, bit for bit."""
    assert learned(a) == learned(b)
    for name in ("encoder/model.safetensors", "checkpoints/step-00000012/state.safetensors"):
        first, second = load_file(a / name), load_file(b / name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    before, out = torch.get_num_threads(), tmp_path_factory.mktemp("runs") / "undisturbed"
    train(run_of(out), quiet=True)
    torch.set_num_threads(before)
    return out


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("moment", "workers"), [(("update", 8), (0, 1)), (("checkpoint", 9), (1, 0))], ids=["between steps", "while saving"]
)
def test_a_killed_run_resumed_with_other_workers_is_the_undisturbed_one(
    tmp_path: Path, undisturbed: Path, moment: tuple[str, int], workers: tuple[int, int]
) -> None:
    done = stop_at(*moment, signal.SIGKILL, to_dict(run_of(tmp_path, workers=workers[0])))
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert learned(tmp_path) != learned(undisturbed)
    train(run_of(tmp_path, workers=workers[1]), resume=True, quiet=True)
    assert_same(tmp_path, undisturbed)
    assert "resume: from" in (tmp_path / "events.log").read_text()


@pytest.mark.usefixtures("threads")
def test_sigterm_saves_exits_143_and_the_resumed_command_ends_as_if_nothing_had_been(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    arguments = ["pretrain", "layerlock-tiny", "--data", "synthetic", *SHORT, "--out", str(stopped)]
    done = stop_at("update", 7, signal.SIGTERM, arguments)
    assert done.returncode == 143, done.stderr
    assert "--resume" in done.stdout
    assert done.stderr == ""
    assert (stopped / "checkpoints" / "step-00000008").is_dir()
    assert (stopped / "encoder" / "model.safetensors").exists()
    assert learned(stopped)[-1]["step"] == 8
    with pytest.raises(SystemExit) as end:
        cli.main(["pretrain", "layerlock-tiny", "--out", str(stopped), "--resume"])
    assert end.value.code == 0
    assert "encoder:" in capsys.readouterr().out
    train(replace(load_config(stopped / "config.json"), out=str(whole)), quiet=True)
    assert_same(stopped, whole)


def test_ctrl_c_saves_too(tmp_path: Path) -> None:
    done = stop_at("update", 4, signal.SIGINT, to_dict(run_of(tmp_path)))
    assert done.returncode == 0, "the function returns; the command exits with 130"
    assert (tmp_path / "checkpoints" / "step-00000005").is_dir()
    assert "stop: after step 5 of 12" in (tmp_path / "events.log").read_text()


@pytest.mark.usefixtures("threads")
def test_a_second_resume_is_refused_by_the_name_of_the_first_and_harms_nothing(
    tmp_path: Path, undisturbed: Path
) -> None:
    done = stop_at("update", 8, signal.SIGKILL, to_dict(run_of(tmp_path)))
    assert done.returncode == -signal.SIGKILL, done.stderr
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with FolderLock(tmp_path):
        for how in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(LayerlockError, match=rf"in use by .* on .*process {os.getpid()}, since"):
                train(run_of(tmp_path), quiet=True, **how)
        assert load(undisturbed).depth == 6, "readers are in nobody's way"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == {
        path: held for path, held in before.items() if path.name != ".lock"
    }
    train(run_of(tmp_path), resume=True, quiet=True)
    assert_same(tmp_path, undisturbed)
    assert not (tmp_path / ".lock").exists()


@pytest.mark.usefixtures("threads")
def test_a_run_whose_folder_was_taken_over_stops_and_leaves_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    update = Run.update

    def overtaken(self: Run, *given: Any, **named: Any) -> Any:
        if self.step == 4:
            replace(this_process(), host="node7").save(tmp_path / ".lock")
        return update(self, *given, **named)

    monkeypatch.setattr(Run, "update", overtaken)
    with pytest.raises(LayerlockError, match=r"taken over by .* on node7"):
        train(run_of(tmp_path), quiet=True)
    assert [path.name for path in (tmp_path / "checkpoints").glob("step-*")] == ["step-00000003"]
    assert (tmp_path / ".lock").exists()


@pytest.mark.usefixtures("threads")
def test_a_run_goes_on_exactly_on_data_and_in_a_folder_that_were_moved_and_on_no_others(tmp_path: Path) -> None:
    for name, seed in (("world", 0), ("other", 1)):
        write_videos(tmp_path / name, SynthConfig(videos=6, seed=seed, size=24, frames=12), workers=1)
    (tmp_path / "world" / "bad.mp4").write_text("no video")
    whole, cut = (
        replace(run_of(tmp_path / name), data=str(tmp_path / "world"), steps=6, plan=Progressive())
        for name in ("whole", "cut")
    )
    train(whole, quiet=True)
    done = stop_at("update", 4, signal.SIGKILL, to_dict(cut))
    assert done.returncode == -signal.SIGKILL, done.stderr
    with pytest.raises(LayerlockError, match="resume on the data that the run was trained on"):
        train(replace(cut, data=str(tmp_path / "other")), resume=True, quiet=True)
    (tmp_path / "world").rename(tmp_path / "moved")
    (tmp_path / "cut").rename(tmp_path / "cut moved")
    moved = replace(cut, out=str(tmp_path / "cut moved"))
    with pytest.raises(LayerlockError, match=r"no longer there; .* with --data"):
        train(moved, resume=True, quiet=True)
    train(replace(moved, data=str(tmp_path / "moved")), resume=True, quiet=True)
    assert learned(tmp_path / "cut moved") == learned(tmp_path / "whole")
    assert learned(tmp_path / "whole")[-1]["skipped"] == 1
    first, second = (load_file(tmp_path / name / "encoder" / "model.safetensors") for name in ("whole", "cut moved"))
    assert all(torch.equal(first[key], second[key]) for key in first)
