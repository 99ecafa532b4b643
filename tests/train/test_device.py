"""What is asked of the machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
import torch

from layerlock.train import device
from layerlock.train.device import set_threads

FAULTS = """
import resource, torch
import layerlock.api
from layerlock.process import keep_freed_memory

keep_freed_memory(torch.device({device!r}))
for step in range(6):
    if step == 3:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16, 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(device: str) -> int:
    """Pages that a process is given while it asks three times for the 64 MB that it has just freed."""
    code = FAULTS.format(device=device)
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_freed_memory_is_used_again_on_a_cpu() -> None:
    given_back, kept = faults("meta"), faults("cpu")
    assert kept < 100
    assert given_back > 10 * max(kept, 1)


CPU = torch.device("cpu")


@pytest.mark.usefixtures("threads")
def test_a_model_has_the_threads_that_are_asked_for_or_all_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "processors", lambda: 3)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    torch.set_num_threads(1)
    set_threads(None, torch.device("meta"))
    assert torch.get_num_threads() == 1, "the threads of a CPU are of no use to another device"
    set_threads(None, CPU)
    assert torch.get_num_threads() == 3
    set_threads(2, CPU)
    assert torch.get_num_threads() == 2
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "2")
            set_threads(None, CPU)
            assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("given", "first", "found"),
    [
        ({}, "", "1000"),
        ({"GOMP_SPINCOUNT": "7"}, "", "7"),
        ({"OMP_WAIT_POLICY": "active"}, "", "None"),
        ({}, "import torch; ", "None"),  # too late: it has been read
    ],
)
def test_threads_spin_briefly_where_nobody_says_otherwise(given: dict[str, str], first: str, found: str) -> None:
    others = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    code = f"import os; {first}import layerlock; print(os.environ.get('GOMP_SPINCOUNT'))"
    done = subprocess.run([sys.executable, "-c", code], env=others | given, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == found
