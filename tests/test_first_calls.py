"""Kernels are chosen before several threads ask for them."""

from __future__ import annotations

import runpy
import subprocess
import sys

import pytest
import torch
from tiny import Calls

from layerlock import first_calls


@pytest.mark.parametrize("name", ["exp", "log", "sqrt", "sin", "cos", "tanh", "erf", "erfinv"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_function_is_called_on_one_number(name: str, dtype: torch.dtype) -> None:
    with Calls() as calls:
        runpy.run_path(str(first_calls.__file__))
    assert (name, dtype, 1) in calls.seen


@pytest.mark.parametrize("module", ["layerlock.draws", "layerlock.model.cores", "layerlock.model.position"])
def test_what_computes_on_several_threads_imports_them(module: str) -> None:
    program = f"import sys, {module}; sys.exit('layerlock.first_calls' not in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
