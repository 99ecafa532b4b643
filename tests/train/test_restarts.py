"""A process of a job is killed, `torchrun` starts all again, and the same command goes on with what it began."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_together import SHORT

from layerlock import together
from layerlock.train.folder import launch_in

KILLED = """
import os, signal, sys
from layerlock import cli, together
from layerlock.train.loop import Run

update = Run.update

def failing(self, *given, **named):
    if self.step == {step} and together.rank() == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    return update(self, *given, **named)

Run.update = failing
cli.main()
"""


def torchrun(folder: Path, step: int, *command: str) -> subprocess.CompletedProcess[str]:
    """Two processes; the second one is killed before an update, once."""
    script = folder / "killed.py"
    script.write_text(KILLED.format(step=step))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1"]
    return subprocess.run(
        [sys.executable, *launcher, str(script), "pretrain", "layerlock-tiny", *SHORT, *command],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )


def test_a_job_of_which_a_process_is_killed_ends_with_the_same_bits(tmp_path: Path) -> None:
    assert torchrun(tmp_path, -1, "--out", str(tmp_path / "whole")).returncode == 0
    out = tmp_path / "killed"
    ended = torchrun(tmp_path, 8, "--out", str(out))
    assert ended.returncode == 0, ended.stderr
    assert (out / "events.log").read_text().count("resume: from") == 1
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 13))
    states = [
        load_file(tmp_path / name / "checkpoints" / "step-00000012" / "state.safetensors")
        for name in ("whole", "killed")
    ]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], value) for name, value in states[1].items())
    assert launch_in(out / "config.json") not in ("", launch_in(tmp_path / "whole" / "config.json"))


def test_what_a_launch_began_is_told_from_what_others_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert together.launch() == ""
    assert not together.restarted("")
    monkeypatch.setattr(together, "launch", lambda: "5e1f")
    assert together.restarted("5e1f")
    assert not together.restarted("other")
    for text in ("[]", "{", '{"config": {}}'):
        (tmp_path / "config.json").write_text(text)
        assert launch_in(tmp_path / "config.json") == ""
    assert launch_in(tmp_path / "none.json") == ""
