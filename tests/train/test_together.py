"""Two processes of one job, each with half of every batch, go the way of one: the same weights, the same decisions."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file
from test_observed import Falling
from tiny import Noise, config, run_config
from torch import Tensor, distributed
from torch import multiprocessing as mp

from layerlock import together
from layerlock.config import Config, OptimConfig
from layerlock.data import Batch
from layerlock.errors import LayerlockError
from layerlock.learn.masking import TubeMasking
from layerlock.learn.plan import Plan
from layerlock.learn.plans import Blockwise, Progressive
from layerlock.model.separate import SeparateDecoding
from layerlock.train import loop
from layerlock.train.loop import Run, train

OPTIM = OptimConfig(lr=2e-4, warmup=0.2, mini_warmup=0.1, clip_norm=0.5)
BESIDE: dict[str, Any] = {
    "masking": TubeMasking(keep=0.34),
    "decoder": SeparateDecoding(width=12, depth=1, heads=2, mlp=24),
}
METHODS: dict[str, tuple[dict[str, Any], Plan | None]] = {
    "MAE": ({"plan": Progressive()}, None),
    "LayerLock with switches": ({}, None),
    "blockwise": ({"plan": Blockwise(parts=3), **BESIDE}, None),
    "by what is observed": ({"plan": Progressive()}, Falling()),
    "solved heads and measured targets": (
        {"plan": replace(tiny.LOCK, standardized=True), "heads": "solved", "batch": 24, "steps": 8},
        None,
    ),
}


def settings(out: Path, changes: Mapping[str, Any]) -> Config:
    return config(out, **({"optim": OPTIM, "run": run_config(threads=1)} | dict(changes)))


def job(rank: int, folder: Path) -> None:
    """One of two processes: all methods, then a stop and a loss that is not finite in the second process alone."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=2)
    loop.open_source = lambda *_, **__: Noise()  # type: ignore[assignment]
    whole, update = Run.loader, Run.update

    def half(self: Run, *args: Any) -> Generator[Batch]:
        for batch in whole(self, *args):
            size = len(batch.index_b) // 2
            yield batch.slice(rank * size, (rank + 1) * size)

    Run.loader = half  # type: ignore[method-assign]
    for name, (changes, plan) in METHODS.items():
        train(settings(folder / name / str(rank), changes), plan, quiet=True)

    def stopped(self: Run, *args: Any, **kwargs: Any) -> Any:
        if rank == 1 and self.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(self, *args, **kwargs)

    Run.update = stopped  # type: ignore[method-assign]
    outcome = train(settings(folder / "stop" / str(rank), {}), quiet=True)
    Run.update = update  # type: ignore[method-assign]
    (folder / f"stop-{rank}").write_text(f"{outcome.step} {outcome.signal}")
    mse, calls = torch.nn.functional.mse_loss, [0]

    def bad(*args: Tensor) -> Tensor:
        calls[0] += 1
        return mse(*args) * (math.nan if (rank, calls[0]) == (1, 3) else 1.0)

    torch.nn.functional.mse_loss = bad  # type: ignore[assignment]
    try:
        train(settings(folder / "bad" / str(rank), {"plan": Progressive()}), quiet=True)
    except LayerlockError as error:
        (folder / f"bad-{rank}").write_text(str(error))
    torch.nn.functional.mse_loss = mse
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left behind."""
    folder = tmp_path_factory.mktemp("two")
    mp.start_processes(job, (folder,), nprocs=2, start_method="spawn")
    return folder


def lines(out: Path) -> list[dict[str, Any]]:
    found = [json.loads(text) for text in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "timing"} for line in found]


def weights(out: Path) -> dict[str, Tensor]:
    """Of the last checkpoint, decoders and heads too."""
    (place,) = sorted((out / "checkpoints").iterdir())[-1:]
    state = load_file(place / "state.safetensors")
    return {name: value for name, value in state.items() if name.startswith("model/")}


@pytest.mark.usefixtures("noise")
@pytest.mark.parametrize("name", METHODS)
def test_two_processes_go_the_way_of_one(two: Path, tmp_path: Path, name: str) -> None:
    changes, plan = METHODS[name]
    train(settings(tmp_path, changes), plan, quiet=True)
    first, second = (lines(two / name / str(rank)) for rank in (0, 1))
    assert first == second
    alone = lines(tmp_path)
    assert [(line["step"], line["frozen"], line["targets"]) for line in first] == [
        (line["step"], line["frozen"], line["targets"]) for line in alone
    ]
    for a, b in zip(first, alone, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        assert a["gradient_norm"] == pytest.approx(b["gradient_norm"], rel=1e-3)
    one = weights(tmp_path)
    both = [weights(two / name / str(rank)) for rank in (0, 1)]
    assert all(torch.equal(both[0][each], both[1][each]) for each in one)
    largest = max(float((both[0][each] - value).abs().max()) for each, value in one.items())
    print(f"{name}: largest difference of a weight {largest:.1e}")
    assert largest <= (5e-5 if "solved" in name else 1e-5), "a regression magnifies rounding"


def test_a_signal_to_one_process_stops_both_after_the_same_step(two: Path) -> None:
    assert [(two / f"stop-{rank}").read_text() for rank in (0, 1)] == [f"6 {int(signal.SIGTERM)}"] * 2


def test_a_loss_that_is_not_finite_in_one_process_stops_both_and_names_the_step(two: Path) -> None:
    assert all("the loss of step 3 is not finite" in (two / f"bad-{rank}").read_text() for rank in (0, 1))


def test_a_process_alone_keeps_what_it_has() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = gradient = torch.tensor([1.0, 2.0])
    together.reduce_gradients([parameter])
    assert parameter.grad is gradient
    assert together.largest(3) == 3
    assert together.mean_of({"a": 1.0, "b": {"c": 2.0}}) == {"a": 1.0, "b": {"c": 2.0}}
