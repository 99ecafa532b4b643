"""What the machine has, found by looking."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import torch

from layerlock import together
from layerlock.config import RunConfig
from layerlock.data.pool import processors
from layerlock.errors import ConfigError


def pick_device(name: str) -> torch.device:
    """The device asked for; `auto` is CUDA where there is one, else the CPU. Of several processes of a job each has the
    GPU of its own number on the machine. ConfigError for one that is not there, and for one GPU for all of them.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if together.size() > 1 and name.startswith("cuda:"):
        raise ConfigError([f"run.device: {name!r} is one GPU; with {together.size()} processes say cuda: a GPU each"])
    if together.size() > 1 and name == "cuda":
        name = f"cuda:{together.local_rank()}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError([f"run.device: {name!r} is not available ({str(error).splitlines()[0]})"]) from None
    return device


def set_threads(threads: int | None, device: torch.device) -> None:
    """Gives torch that many threads. None: on a CPU one for each processor that this process may use, where torch would
    take one for each physical core; as many as OMP_NUM_THREADS or MKL_NUM_THREADS says, where one is set.
    """
    chosen = {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} & os.environ.keys()
    if threads is None and device.type == "cpu" and not chosen:
        threads = processors()
    if threads is not None and threads != torch.get_num_threads():
        torch.set_num_threads(threads)


def threads_of(device: torch.device) -> int:
    """How many threads share a batch on a CPU, after `set_threads`; 0 elsewhere."""
    return torch.get_num_threads() if device.type == "cpu" else 0


def pick_precision(run: RunConfig, device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it (CUDA from Ampere on; AMX or AVX512-BF16), float32 elsewhere."""
    if run.precision != "auto":
        return torch.bfloat16 if run.precision == "bf16" else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return torch.bfloat16 if capabilities.get("amx_bf16") or capabilities.get("avx512_bf16") else torch.float32


def resolved(device: torch.device, compute: torch.dtype) -> dict[str, str]:
    """What is computed on and in, in words: the device with its name, `fp32` or `bf16`."""
    name = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    return {"device": f"{device.type}{name}", "precision": "bf16" if compute == torch.bfloat16 else "fp32"}


def pick_compile(run: RunConfig, device: torch.device) -> bool:
    """Per-block compilation: by default on CUDA only."""
    return device.type == "cuda" if run.compile == "auto" else run.compile == "yes"


def is_out_of_memory(error: Exception) -> bool:
    """Whether it says that there is no memory left; torch has no class of its own for that on a CPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def memory_bytes(device: torch.device) -> int:
    """Peak memory since the last call on CUDA; elsewhere the resident size of the process (its peak, where the system
    tells no more).
    """
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return peak
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def memory_of(device: torch.device) -> float:
    """Bytes of the device's memory; of a CPU the machine's."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("nan")
    return next((float(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal")), float("nan"))
