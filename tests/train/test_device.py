"""What is asked of the machine."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

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
