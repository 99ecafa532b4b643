"""What a step takes of each of several processes, stage by stage, with moments that are divided among them and without.

    OMP_NUM_THREADS=1 python benchmarks/scale.py --processes 1 2 4

LayerLock on eight blocks of width 512, two of which decode, in float32 on this machine's CPU (gloo, a thread each), on
clips of the synthetic world: 8 x 32 x 32, 64 tokens. A row for each number of processes, division and stage: the median
seconds of an update, with its range; megabytes of gradients that each process gives, and what a process sends over the
loopback interface (by the system's counter, so other traffic there is in it); megabytes of weights, of gradients and of
moments of the process that has most; the largest resident size of a process during an update.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any, Literal, get_args

import torch
from measure import nbytes
from torch import multiprocessing as mp

from layerlock import together
from layerlock.config import Config, OptimConfig, RunConfig
from layerlock.data import ClipConfig
from layerlock.learn.decoders import BackboneDecoding
from layerlock.learn.masking import RandomMasking
from layerlock.learn.plans import Progressive
from layerlock.model.vit import ViTConfig
from layerlock.train import loop
from layerlock.train.loop import Run, train

Shard = Literal["no", "yes"]


def main() -> None:
    """Parses the options and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores, torch {torch.__version__}, batches of {given.batch}, {given.steps} steps")
    print("processes | moments | frozen | seconds a step | given | sent | weights | gradients | moments | resident")
    for processes in given.processes:
        for shard in get_args(Shard) if processes > 1 else ("no",):
            with tempfile.TemporaryDirectory() as folder:
                config = config_of(Path(folder), given.steps, given.batch, shard)
                mp.start_processes(measure, (config, processes, free_port()), nprocs=processes, start_method="spawn")
                found = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.rows"))]
            for row in rows_of(found):
                print(f"{processes} | {'divided' if shard == 'yes' else 'whole'} | {row}", flush=True)


def config_of(folder: Path, steps: int, batch: int, shard: Shard) -> Config:
    """A run of four stages."""
    return Config(
        out=str(folder / "run"),
        steps=steps,
        batch=batch,
        clip=ClipConfig(frames=8, stride=1, size=32, resize=1.0),
        model=ViTConfig(width=512, depth=8, mlp=2048, heads=8, patch=(2, 8, 8)),
        masking=RandomMasking(keep=0.25),
        decoder=BackboneDecoding(blocks=2),
        plan=Progressive(target="frozen", start=0.25, interval=0.25, first=2, jump=2, last=6),
        optim=OptimConfig(warmup=0.1),
        run=RunConfig(device="cpu", precision="fp32", workers=0, threads=1, shard=shard, log_every=steps),
    )


def measure(rank: int, config: Config, processes: int, port: int) -> None:
    """One of the processes: trains, and leaves what each update took."""
    torch.set_num_threads(1)
    if processes > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    rows, update = list[dict[str, Any]](), Run.update

    def measured(run: Run, *args: Any, **kwargs: Any) -> Any:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the largest resident size so far is the one of now
        together.meet()
        sent, begun = loopback_bytes(), time.perf_counter()
        figures = update(run, *args, **kwargs)
        together.meet()
        rows.append(
            {"seconds": time.perf_counter() - begun, "sent": (loopback_bytes() - sent) / processes} | state(run)
        )
        return figures

    loop.keep_freed_memory = lambda device: None  # type: ignore[attr-defined]
    Run.update = measured  # type: ignore[method-assign]
    train(config, quiet=True)
    Path(config.out).with_name(f"{rank}.rows").write_text(json.dumps(rows))


def state(run: Run) -> dict[str, Any]:
    """What this process holds, in bytes."""
    status = Path("/proc/self/status").read_text()
    live = run.learner.live().values()
    return {
        "frozen": run.learner.stage.frozen,
        "given": run.exchanged,
        "weights": sum(map(nbytes, run.learner.state().values())),
        "gradients": sum(map(nbytes, live)),  # of one size with their weights
        "moments": sum(nbytes(v) for one in run.optimizer.state.values() for v in one.values()),
        "resident": 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]),
    }


def rows_of(found: Iterable[list[dict[str, Any]]]) -> Iterator[str]:
    """A line for each stage, of what each process has left; the first step of a stage is not timed."""
    steps = [
        {name: max(each[name] for each in processes) for name in processes[0]} for processes in zip(*found, strict=True)
    ]
    for frozen, group in groupby(steps, key=lambda step: step["frozen"]):
        stage = list(group)
        seconds = [step["seconds"] for step in stage[1:]]
        sizes = [stage[-1][name] for name in ("weights", "gradients", "moments")]
        bytes_of = [stage[-1]["given"], median(step["sent"] for step in stage[1:]), *sizes]
        megabytes = [f"{value / 1e6:.0f}" for value in [*bytes_of, max(step["resident"] for step in stage[1:])]]
        times = f"{median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
        yield " | ".join([str(frozen), times, *megabytes])


def loopback_bytes() -> int:
    """What was sent over the loopback interface since the system began."""
    (line,) = re.findall(r"^\s*lo:(.*)$", Path("/proc/net/dev").read_text(), re.MULTILINE)
    return int(line.split()[8])


def free_port() -> int:
    """One that nobody listens at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


if __name__ == "__main__":
    main()
