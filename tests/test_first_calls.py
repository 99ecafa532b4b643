"""Kernels are chosen before several threads ask for them."""

from __future__ import annotations

import runpy
import subprocess
import sys

import pytest
import torch
from torch.overrides import TorchFunctionMode

from layerlock import first_calls


class Calls(TorchFunctionMode):
    """Writes down which functions are called on tensors, and on what."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[str, torch.dtype, int]] = set()

    def __torch_function__(self, func: object, types: object, args: tuple = (), kwargs: dict | None = None) -> object:  # type: ignore[type-arg]
        if args and isinstance(args[0], torch.Tensor):
            self.seen.add((func.__name__, args[0].dtype, args[0].numel()))  # type: ignore[attr-defined]
        return func(*args, **(kwargs or {}))  # type: ignore[operator]


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
