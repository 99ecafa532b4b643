"""Where the time of a training step goes: a profile of a recipe's first stage, or of another.

    python benchmarks/profile_step.py --recipe videomae-tiny --batch 16 [--stage 0] [--rows 25] [--threads 1]
    python benchmarks/profile_step.py --pair vjepa --size small --batch 4 [--side theirs]

Time inside operators, without that of the operators they call, summed over `--rounds` updates: first by kind, with the
share of matrix products, then the slowest operators with the shapes they ran on.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import torch
from measure import begin, options, random_clips
from step import Update
from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import ProfilerActivity, profile

import layerlock
from layerlock.config import RunConfig
from layerlock.learn.plan import timeline
from layerlock.train.device import pick_device, pick_precision
from layerlock.train.loop import build_learner

KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm", "mkldnn", "scaled_dot_product", "flash", "linear", "gemm"),
    "softmax": ("softmax",),
    "LayerNorm": ("layer_norm",),
    "GELU": ("gelu",),
    "optimizer and average": ("adam", "foreach", "lerp"),
    "copies and casts": ("copy", "cat", "clone", "contiguous", "to", "stack"),
    "gather and scatter": ("index", "gather", "scatter", "take"),
    "sums": ("sum", "mean", "var", "std"),
    "elementwise": ("add", "mul", "sub", "div", "neg", "where", "pow", "sqrt"),
}
"""parts of operators' names; the first kind that has one counts"""


def main() -> None:
    """Parses the options, runs the updates under the profiler and prints both tables."""
    parser = options(__doc__, batch=16, rounds=5)
    parser.add_argument("--recipe", default="layerlock-tiny")
    parser.add_argument("--stage", type=int, default=0, help="number of the stage, from 0")
    parser.add_argument("--pair", choices=("videomae", "vjepa"), help="a side of against_transformers.py instead")
    parser.add_argument("--size", default="small", choices=("base", "small"))
    parser.add_argument("--side", default="ours")
    parser.add_argument("--rows", type=int, default=25)
    given = parser.parse_args()
    device = begin(given)
    run = RunConfig(device=given.device, precision=given.precision, compile="no")
    print(f"{given.batch} clips, {str(pick_precision(run, device)).removeprefix('torch.')}, {given.rounds} updates")
    update = side(given.pair, given.size, given.side, given.batch, run) if given.pair else stage_update(given, run)
    show(update, given.rounds, given.rows, device)


def stage_update(given: argparse.Namespace, run: RunConfig) -> Update:
    """Of the recipe and the stage asked for."""
    config = replace(layerlock.recipe(given.recipe), batch=given.batch, run=run)
    device = pick_device(run.device)
    stage = timeline(config.build_plan(), config.steps)[given.stage][1]
    return Update(config, build_learner(config, device, stage), stage, *random_clips(config, device))


def side(pair: str, size: str, name: str, batch: int, run: RunConfig) -> Callable[[], None]:
    """A side of the comparison with transformers, which is imported only here."""
    import videomae_pair
    import vjepa_pair

    module = {"videomae": videomae_pair, "vjepa": vjepa_pair}[pair]
    return module.sides(module.GEOMETRIES[size], batch, run, pick_device(run.device))[name]


def show(update: Callable[[], None], rounds: int, rows: int, device: torch.device) -> None:
    """Both tables."""
    update()
    update()
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities, record_shapes=True) as found:
        for _ in range(rounds):
            update()

    def own_ms(event: FunctionEventAvg) -> float:
        return (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e3 / rounds

    kinds: Counter[str] = Counter()
    for event in found.key_averages():
        kinds[kind_of(event.key)] += own_ms(event)
    whole = sum(kinds.values())
    print(f"{whole:.1f} ms in operators, a step")
    for kind, ms in kinds.most_common():
        print(f"{kind:24} {ms:8.2f} ms {ms / whole:6.1%}")
    print()
    events = sorted(found.key_averages(group_by_input_shape=True), key=own_ms, reverse=True)
    for event in events[:rows]:
        shapes = " ".join("x".join(map(str, shape)) for shape in event.input_shapes if shape)
        print(f"{own_ms(event):8.2f} ms {event.count // rounds:5} x {event.key[:44]:44} {shapes[:70]}")


def kind_of(name: str) -> str:
    """The kind of an operator, by its name."""
    plain = name.rpartition("::")[2].lower()
    for kind, words in KINDS.items():
        if any(word in plain for word in words):
            return kind
    return "other"


if __name__ == "__main__":
    main()
