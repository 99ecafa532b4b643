"""What the benchmarks of a step share: seconds, FLOPs, bytes kept for backward, bytes of state, ratios of pairs."""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from layerlock.config import Config
from layerlock.learn.learner import Learner
from layerlock.learn.plan import Stage
from layerlock.process import keep_freed_memory
from layerlock.train.device import pick_device, set_threads


def options(doc: str | None, *, batch: int, rounds: int) -> argparse.ArgumentParser:
    """A parser with what every benchmark of a step takes."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--rounds", type=int, default=rounds, help="steps that are timed")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    return parser


def begin(given: argparse.Namespace) -> torch.device:
    """The device asked for, with the threads and the allocator that a run has; says what they are."""
    device = pick_device(given.device)
    keep_freed_memory(device)
    set_threads(given.threads, device)
    print(machine(device))
    return device


def machine(device: torch.device) -> str:
    """The command, the processor, threads and versions, in two lines."""
    command = " ".join(["python", *sys.argv])
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    return f"$ {command}\n{kind}, {torch.get_num_threads()} threads, {versions}"


def processor() -> str:
    """The processor's name as the system gives it, with what multiplies bfloat16."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    amx = " with AMX" if torch.cpu.get_capabilities().get("amx_bf16") else ""
    return f"{names[0] if names else platform.machine()}{amx}"


def random_clips(config: Config, device: torch.device) -> tuple[Tensor, Tensor]:
    """A batch of noise, uint8 `[B, T, 3, H, W]` on the device, and its sample indices on the CPU."""
    clip, generator = config.clip, torch.Generator().manual_seed(0)
    shape = (config.batch, clip.frames, 3, clip.size, clip.size)
    video = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return video.to(device), torch.arange(config.batch)


def seconds(run: Callable[[], None], device: torch.device) -> float:
    """Of one call, to its end on the device."""
    wait(device)
    begun = time.perf_counter()
    run()
    wait(device)
    return time.perf_counter() - begun


def wait(device: torch.device) -> None:
    """For what the device has still to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def take_turns(
    runs: Sequence[Callable[[], None]], device: torch.device, rounds: int, warmup: int = 2
) -> list[list[float]]:
    """Seconds of each run in each round, `[runs][rounds]`; the order turns round by round."""
    for run in list(runs) * warmup:
        run()
    times: list[list[float]] = [[] for _ in runs]
    for number in range(rounds):
        order = range(len(runs)) if number % 2 == 0 else range(len(runs) - 1, -1, -1)
        for which in order:
            times[which].append(seconds(runs[which], device))
    return times


def median_and_range(values: Iterable[float], form: str = ".2f") -> str:
    """`1.30 (1.20 to 1.40)`."""
    found = list(values)
    return f"{statistics.median(found):{form}} ({min(found):{form}} to {max(found):{form}})"


# --- FLOPs ------------------------------------------------------------


def counted_flops(config: Config, stage: Stage, clips: int = 1) -> float:
    """FLOPs of matrix products that torch's counter sees in a step, for each of `clips` clips; nothing is computed."""
    with torch.device("meta"):
        learner = Learner(config.model, config.grid, config.masking, config.decoder, stage)
        shape = (clips, config.clip.frames, 3, config.clip.size, config.clip.size)
        video = torch.empty(shape, dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter:
        learner.step(video, torch.arange(clips))
    return counter.get_total_flops() / clips


# --- memory ------------------------------------------------------------


def state_bytes(modules: Iterable[nn.Module], optimizer: torch.optim.Optimizer) -> int:
    """Weights, gradients of what is trained, and optimizer state."""
    weights = {id(p): p for module in modules for p in module.parameters()}.values()
    moments = [v for state in optimizer.state.values() for v in state.values()]
    return sum(map(nbytes, [*weights, *(p for p in weights if p.requires_grad), *moments]))


def nbytes(tensor: Tensor) -> int:
    """Of its values."""
    return tensor.numel() * tensor.element_size()


def device_peak(run: Callable[[], None], device: torch.device) -> str:
    """Most GPU memory that is allocated during a call, in MB; `n/a` on other devices, which do not say."""
    if device.type != "cuda":
        return "n/a"
    torch.cuda.reset_peak_memory_stats(device)
    run()
    torch.cuda.synchronize(device)
    return f"{torch.cuda.max_memory_allocated(device) / 1e6:.0f}"
