"""A process of a job is killed, `torchrun` starts all again, and the same command goes on with what it began."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_together import SHORT, free_port
from torch.distributed import HashStore

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


def torchrun(folder: Path, step: int, *command: str, machines: int) -> list[tuple[int, str]]:
    """Two processes, of which the second one is killed before an update, once: how each launcher ended, and what it
    said.
    """
    script = folder / "killed.py"
    script.write_text(KILLED.format(step=step))
    address = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}"]
    where = ["--standalone"] if machines == 1 else ["--nnodes", str(machines), *address]
    launcher = ["-m", "torch.distributed.run", *where, "--nproc-per-node", str(2 // machines), "--max-restarts", "1"]
    launchers = [
        subprocess.Popen(
            [sys.executable, *launcher, str(script), "pretrain", "layerlock-tiny", *SHORT, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for _ in range(machines)
    ]
    with ThreadPoolExecutor() as readers:
        said = list(readers.map(lambda one: one.communicate(timeout=240)[0], launchers))
    return [(one.returncode, text) for one, text in zip(launchers, said, strict=True)]


def test_a_job_of_which_a_process_is_killed_ends_with_the_same_bits(tmp_path: Path) -> None:
    assert torchrun(tmp_path, -1, "--out", str(tmp_path / "whole"), machines=1)[0][0] == 0
    out = tmp_path / "killed"
    ended = torchrun(tmp_path, 8, "--out", str(out), machines=2)  # of which one launcher alone counts a restart
    assert [status for status, _ in ended] == [0, 0], ended
    assert (out / "events.log").read_text().count("resume: from") == 1
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 13))
    states = [
        load_file(tmp_path / name / "checkpoints" / "step-00000012" / "state.safetensors")
        for name in ("whole", "killed")
    ]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], value) for name, value in states[1].items())
    launches = [launch_in(folder / "config.json").partition(".")[0] for folder in (out, tmp_path / "whole")]
    assert "" not in launches
    assert launches[0] != launches[1]


def test_all_processes_learn_of_their_own_start_where_the_store_knows_of_earlier_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, own = HashStore(), threading.local()
    monkeypatch.setattr(together, "_address", lambda: store)
    monkeypatch.setattr(together, "size", lambda: 4)
    monkeypatch.setattr(together, "rank", lambda: own.rank)

    def started(rank: int) -> str:
        own.rank = rank
        return together._start.__wrapped__()

    with ThreadPoolExecutor(max_workers=4) as processes:
        starts = [set(processes.map(started, order)) for order in ((0, 1, 2, 3), (0, 3, 2, 1), (1, 2, 3, 0))]
    assert [len(found) for found in starts] == [1, 1, 1]
    assert len(set.union(*starts)) == 3
    store.set("layerlock asks 3", "one that has ended")
    monkeypatch.setattr(together, "TIMEOUT", timedelta(seconds=0.2))
    with ThreadPoolExecutor(max_workers=3) as processes:
        first, *_ = [processes.submit(started, rank) for rank in (0, 1, 2)]
        with pytest.raises(RuntimeError, match=r"these did not come: 3$"):
            first.result()


def test_what_a_launch_began_is_told_from_what_others_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert together.launch() == ""
    assert not together.restarted("")
    monkeypatch.setattr(together, "launch", lambda: "5e1f.2")
    assert together.restarted("5e1f.1")
    assert not together.restarted("5e1f.2"), "what this start began itself is replaced only where it is told to"
    assert not together.restarted("other.1")
    assert not together.restarted("")
    for text in ("[]", "{", '{"config": {}}'):
        (tmp_path / "config.json").write_text(text)
        assert launch_in(tmp_path / "config.json") == ""
    assert launch_in(tmp_path / "none.json") == ""
