"""Processes that divide the optimizer's moments among them go the way of those that do not, and of one alone."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from test_together import BESIDE, OPTIM, assert_alike, at_step, events, free_port, lines, settings, weights
from tiny import Noise, config, run_config
from torch import multiprocessing as mp

from layerlock import exchange, together
from layerlock.budget.devices import DEVICES, Machine
from layerlock.budget.fit import fit
from layerlock.budget.forecast import forecast
from layerlock.budget.stages import budget, divides
from layerlock.budget.words import on_what
from layerlock.config import Config
from layerlock.learn.masking import MultiBlockMasking
from layerlock.learn.plans import Blockwise, JointEmbedding
from layerlock.train import loop, owners
from layerlock.train.loop import Run, train
from layerlock.train.owners import Owners

LOCK = "LayerLock with switches"
METHODS: dict[str, dict[str, Any]] = {
    LOCK: {},
    "V-JEPA": {
        **BESIDE,
        "plan": JointEmbedding(climb=True, start=0.3, interval=0.3, first=2, jump=2, last=6),
        "masking": MultiBlockMasking(blocks=2, group=4),
    },
    "blockwise": {"plan": Blockwise(parts=3), **BESIDE},
    "without a limit": {"optim": replace(OPTIM, clip_norm=None, name="sgd")},
}


def divided(out: Path, changes: dict[str, Any], shard: str = "yes") -> Config:
    return settings(out, {"run": run_config(threads=1, shard=shard)} | changes)


@contextmanager
def held(bytes_of: list[int]) -> Iterator[None]:
    """What moments and gradients this process has at each update."""
    update = Run.update

    def noting(self: Run, *args: Any, **kwargs: Any) -> Any:
        figures = update(self, *args, **kwargs)
        bytes_of.append(sum(v.numel() for state in self.optimizer.state.values() for v in state.values()))
        return figures

    Run.update = noting  # type: ignore[method-assign]
    yield
    Run.update = update  # type: ignore[method-assign]


def job(rank: int, folder: Path, port: int, processes: int) -> None:
    """One of several processes; what it leaves behind is for the tests below."""
    torch.set_num_threads(1)
    together.TIMEOUT = timedelta(seconds=60)
    exchange.BUCKET_BYTES = 8_000
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(processes),
        "RANK": str(rank),
    }
    loop.open_source = lambda *_, **__: Noise(skips=23)  # type: ignore[assignment]
    if processes > 2:
        train(divided(folder / "four", {}), quiet=True)
        return
    for name, changes in METHODS.items():
        numbers: list[int] = []
        with held(numbers):
            train(divided(folder / name, changes), quiet=True)
        (folder / f"{name}-{rank}").write_text(json.dumps(numbers))
    train(divided(folder / "whole", {}, "no"), quiet=True)
    for name in ("stopped", "by one"):
        with at_step(5, lambda: os.kill(os.getpid(), signal.SIGTERM), 1):
            train(divided(folder / name, {}), quiet=True)
    train(divided(folder / "stopped", {}), resume=True, quiet=True)
    owners.memory_of = lambda device: 1e5  # type: ignore[assignment]
    train(divided(folder / "auto", {}, "auto"), quiet=True)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left behind, and one that goes on with what they began."""
    folder, before = tmp_path_factory.mktemp("owners"), torch.get_num_threads()
    mp.start_processes(job, (folder, free_port(), 2), nprocs=2, start_method="spawn")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "open_source", lambda *_, **__: Noise(skips=23))
        train(divided(folder / "by one", {}), resume=True, quiet=True)
        for name, changes in METHODS.items():
            train(settings(folder / f"{name} of one", changes), quiet=True)
    torch.set_num_threads(before)
    return folder


@pytest.mark.parametrize("name", METHODS)
def test_two_that_divide_go_the_way_of_one(many: Path, name: str) -> None:
    assert_alike(many / f"{name} of one", many / name, name)
    assert [text for text in events(many / name) if "divided" not in text] == events(many / f"{name} of one")


@pytest.mark.parametrize("name", METHODS)
def test_each_holds_about_half_of_the_moments_and_less_after_each_switch(many: Path, name: str) -> None:
    first, second = (json.loads((many / f"{name}-{rank}").read_text()) for rank in (0, 1))
    timing = [json.loads(text)["timing"] for text in (many / name / "metrics.jsonl").read_text().splitlines()]
    moments = 1 if "limit" in name else 2
    for one, other, given in zip(first, second, [each["gradient_bytes"] // 4 for each in timing], strict=True):
        assert moments * given <= one + other <= 1.02 * moments * given, "with a step's number for each parameter"
        assert max(one, other) < 0.66 * (one + other), "those that a process has stay with it"
    assert max(first[0], second[0]) < 0.52 * (first[0] + second[0])
    if lines(many / name)[-1]["frozen"]:
        assert max(first[-1], second[-1]) < min(first[0], second[0])


def test_weights_and_checkpoints_are_the_bits_of_those_that_do_not_divide(many: Path) -> None:
    for name in ("stopped", "auto", LOCK):
        ours = weights(many / name, "")
        assert all(torch.equal(ours[key], value) for key, value in weights(many / "whole", "").items()), name
        assert ours.keys() == weights(many / "whole", "").keys()
        assert lines(many / name) == lines(many / "whole")
    assert any("moments are divided among 2 processes" in text for text in events(many / "auto"))
    assert not any("divided" in text for text in events(many / "whole"))


def test_one_goes_on_with_what_two_have_divided(many: Path) -> None:
    assert_alike(many / "by one", many / "whole", "two, then one")


def test_four_processes_go_the_way_of_one(many: Path) -> None:
    mp.start_processes(job, (many, free_port(), 4), nprocs=4, start_method="spawn")
    assert_alike(many / f"{LOCK} of one", many / "four", "four")


def test_parameters_stay_with_their_owners_and_new_ones_go_to_the_least_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "size", lambda: 3)
    live = {f"p{size}": torch.nn.Parameter(torch.zeros(size)) for size in (5, 9, 2, 7, 4)}
    found = Owners(divided=True)
    found.enter(live)
    own = []
    for rank in range(3):
        monkeypatch.setattr(together, "rank", lambda rank=rank: rank)
        own.append(set(found.own(live)))
    assert own == [{"p9"}, {"p7", "p2"}, {"p5", "p4"}]
    del live["p9"], live["p7"]
    live["p8"] = torch.nn.Parameter(torch.zeros(8))
    found.enter(live)
    monkeypatch.setattr(together, "rank", lambda: 0)
    assert set(found.own(live)) == {"p8"}
    monkeypatch.setattr(together, "rank", lambda: 2)
    assert set(found.own(live)) == {"p5", "p4"}


def test_the_planner_divides_moments_where_they_do_not_fit_or_where_it_is_told() -> None:
    def machine(memory: float, gpus: int = 2) -> Machine:
        return Machine(device=replace(DEVICES["h100"], memory=memory), gpus=gpus)

    made = config(Path("run"), batch=24)
    whole = budget(made, machine=machine(1e9))
    peak = max(stage.peak for stage in whole)
    plan = made.build_plan()
    assert not divides(made, plan, machine(peak / 0.89))
    assert divides(made, plan, machine(peak / 0.91))
    assert not divides(made, plan, machine(peak / 0.91, gpus=1))
    told = {shard: replace(made, run=replace(made.run, shard=shard)) for shard in ("yes", "no")}
    assert divides(told["yes"], plan, machine(1e9))
    assert not divides(told["no"], plan, machine(peak / 0.91))
    half = budget(told["yes"], machine=machine(1e9))
    assert [stage.moments for stage in half] == [stage.moments / 2 for stage in whole]
    assert [a.peak - b.peak for a, b in zip(whole, half, strict=True)] == [stage.moments for stage in half]
    assert on_what(forecast(told["yes"], machine=machine(1e9))).endswith("moments divided")
    planned = forecast(made, machine=machine(1e9))
    assert "divided" not in on_what(planned)
    assert fit(planned, 0.95 * peak)[0].total.peak < peak
