"""Two processes of one job, each with half of every batch, go the way of one: the same weights, decisions and ends."""

from __future__ import annotations

import io
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file
from test_observed import Falling
from tiny import Noise, config, run_config
from torch import Tensor
from torch import multiprocessing as mp

from layerlock import cli, exchange, together
from layerlock.config import Config, OptimConfig
from layerlock.data import ClipConfig, Sample
from layerlock.data.synth import SynthConfig, write_videos
from layerlock.errors import LayerlockError
from layerlock.learn.masking import TubeMasking
from layerlock.learn.plan import Plan, Tap
from layerlock.learn.plans import Blockwise, Progressive
from layerlock.model.separate import SeparateDecoding
from layerlock.train import checkpoint, loop
from layerlock.train.loop import Run, train

OPTIM = OptimConfig(lr=2e-4, warmup=0.2, mini_warmup=0.1, clip_norm=0.5)
BESIDE: dict[str, Any] = {
    "masking": TubeMasking(keep=0.34),
    "decoder": SeparateDecoding(width=12, depth=1, heads=2, mlp=24),
}
LOCK = "LayerLock with switches"
METHODS: dict[str, tuple[dict[str, Any], Plan | None]] = {
    "MAE in micro-batches": ({"plan": Progressive(), "optim": replace(OPTIM, accumulate=2)}, None),
    LOCK: ({}, None),
    "blockwise": ({"plan": Blockwise(parts=3), **BESIDE}, None),
    "by what is observed": ({"plan": Progressive()}, Falling()),
    "solved heads and measured targets": (
        {"plan": replace(tiny.LOCK, standardized=True), "heads": "solved", "batch": 24, "steps": 8},
        None,
    ),
}
SHORT = [
    *("--steps", "12", "--batch", "4", "--clip.frames", "8", "--clip.size", "24", "--clip.resize", "1.0"),
    *("--model.width", "24", "--model.mlp", "48", "--model.heads", "2", "--run.threads", "1", "--run.workers", "0"),
    *("--run.device", "cpu", "--run.precision", "fp32", "--run.log-every", "1", "--run.checkpoint-every", "3"),
]


def settings(out: Path, changes: Mapping[str, Any]) -> Config:
    return config(out, **({"optim": OPTIM, "run": run_config(threads=1)} | dict(changes)))


@dataclass(frozen=True)
class Lost(Noise):
    """A source whose samples are nowhere from the second process's share of the fifth batch on."""

    def sample(self, index: int) -> Sample:
        if index > 17:
            raise LayerlockError(f"sample {index} cannot be made")
        return super().sample(index)


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    yield
    setattr(owner, name, before)


def at_step(step: int, does: Callable[[], object], rank: int) -> Any:
    """An update before which process `rank` alone does something."""
    update = Run.update

    def wrapped(self: Run, *args: Any, **kwargs: Any) -> Any:
        if self.step == step and together.rank() == rank:
            does()
        return update(self, *args, **kwargs)

    return replaced(Run, "update", wrapped)


def fail(error: Exception) -> None:
    raise error


def not_finite_in_the_second(step: int) -> Any:
    mse, calls = torch.nn.functional.mse_loss, [0]

    def bad(*args: Tensor) -> Tensor:
        calls[0] += 1
        return mse(*args) * (math.nan if (together.rank(), calls[0]) == (1, step) else 1.0)

    return replaced(torch.nn.functional, "mse_loss", bad)


def disk_full(*_: Any) -> None:
    raise OSError(28, "No space left on device")


FAULTS: dict[str, tuple[Callable[[], Any], dict[str, Any], str]] = {
    "loss": (lambda: not_finite_in_the_second(3), {"plan": Progressive()}, "the loss of step 3 is not finite"),
    "data": (lambda: replaced(loop, "open_source", lambda *_, **__: Lost()), {}, "sample 18 cannot be made"),
    "memory": (lambda: at_step(2, lambda: fail(MemoryError("9 GB")), 1), {}, "out of memory on cpu (9 GB)"),
    "mistake": (lambda: at_step(2, lambda: fail(KeyError("h7")), 1), {}, "KeyError: 'h7'"),
    "disk": (lambda: replaced(checkpoint, "sync", disk_full), {}, "the checkpoint could not be written"),
    "shares": (nullcontext, {"batch": 5}, "5 clips cannot be divided equally among 2"),
}
"""How a run is spoilt, in the second process or in the first that writes; what is said of it."""


def job(rank: int, folder: Path, port: int) -> None:
    """One of two processes; what it leaves behind is for the tests below."""
    torch.set_num_threads(1)
    together.TIMEOUT = timedelta(seconds=60)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "RANK": str(rank)}
    loop.open_source = lambda *_, **__: Noise(skips=23)  # type: ignore[assignment]
    for name, (changes, plan) in METHODS.items():
        train(settings(folder / name, changes), plan, quiet=True)
    with at_step(5, lambda: os.kill(os.getpid(), signal.SIGTERM), 1):
        outcome = train(settings(folder / "stopped", {}), quiet=True)
    (folder / f"stop-{rank}").write_text(f"{outcome.step} {outcome.signal}")
    with together.job():
        together.of_first(lambda: shutil.copytree(folder / "stopped", folder / "resumed"))
    for name in ("resumed", "of one"):
        train(settings(folder / name, {}), resume=True, quiet=True)
    for name, (spoil, changes, _) in FAULTS.items():
        with spoil():
            try:
                train(settings(folder / "faults" / name, changes), quiet=True)
            except Exception as error:
                (folder / f"{name}-{rank}").write_text(f"{type(error).__name__}: {error}")
    commands = {
        "there": ["--out", str(folder / LOCK)],
        "other": ["--out", str(folder / "other"), "--seed", str(rank)],
        "usage": ["--sted", "3"],
    }
    for name, more in commands.items():
        said = io.StringIO()
        with redirect_stdout(said), redirect_stderr(said):
            try:
                cli.main(["pretrain", "mae-tiny", *SHORT, *more])
            except SystemExit as end:
                (folder / f"{name}-{rank}").write_text(f"{end.code} {said.getvalue()}")


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left behind; they went on with a run of one as well."""
    folder = tmp_path_factory.mktemp("two")
    before = torch.get_num_threads()
    with (
        replaced(loop, "open_source", lambda *_, **__: Noise(skips=23)),
        at_step(5, lambda: os.kill(os.getpid(), signal.SIGTERM), 0),
    ):
        train(settings(folder / "of one", {}), quiet=True)
    torch.set_num_threads(before)
    mp.start_processes(job, (folder, free_port()), nprocs=2, start_method="spawn")
    return folder


def lines(out: Path) -> list[dict[str, Any]]:
    found = [json.loads(text) for text in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "timing"} for line in found]


def events(out: Path) -> list[str]:
    """Without their times and the numbers that are rounded."""
    told = (out / "events.log").read_text().splitlines()
    return [re.sub(r"\d\.\d+", "", text.split(" ", 1)[1]) for text in told]


def weights(out: Path, kind: str = "model/") -> dict[str, Tensor]:
    """Of the last checkpoint, decoders and heads too; of another kind, moments; of "", all."""
    (place,) = sorted((out / "checkpoints").iterdir())[-1:]
    state = load_file(place / "state.safetensors")
    return {name: value for name, value in state.items() if name.startswith(kind)}


def assert_alike(first: Path, second: Path, name: str) -> None:
    """The same decisions and, up to rounding, the same figures and weights."""
    for a, b in zip(lines(first), lines(second), strict=True):
        assert a.keys() == b.keys()
        for figure in ("step", "frozen", "targets", "skipped"):
            assert a[figure] == b[figure]
        for figure in ("loss", "gradient_norm"):
            assert a[figure] == pytest.approx(b[figure], rel=1e-4), figure
        if "micro" not in name:  # these are of the last micro-batch, which has other clips
            for figure in ("effective_rank", "token_cosine", "target_variance", "explained"):
                assert a[figure] == pytest.approx(b[figure], rel=1e-4, abs=1e-5), figure
    one, other = weights(first), weights(second)
    largest = max(float((other[each] - value).abs().max()) for each, value in one.items())
    print(f"{name}: largest difference of a weight {largest:.1e}")
    assert largest <= (5e-5 if "solved" in name else 1e-5), "a regression magnifies rounding"


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.usefixtures("threads")
def test_two_processes_go_the_way_of_one(two: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "open_source", lambda *_, **__: Noise(skips=23))
    changes, plan = METHODS[name]
    train(settings(tmp_path, changes), plan, quiet=True)
    assert_alike(tmp_path, two / name, name)
    assert events(two / name) == events(tmp_path)
    assert sum("broken.mp4" in text for text in events(two / name)) == 1, "the second process met it, the first told"


def test_what_is_exchanged_is_the_gradients_of_what_learns_and_falls_at_each_switch(two: Path) -> None:
    found = [json.loads(text) for text in (two / LOCK / "metrics.jsonl").read_text().splitlines()]
    exchanged = {line["frozen"]: line["timing"]["gradient_bytes"] for line in found}
    stages = {frozen: tiny.lock_stage(frozen) if frozen else tiny.PIXEL_STAGE for frozen in exchanged}
    live = {frozen: tiny.learner(stage=stage).live().values() for frozen, stage in stages.items()}
    assert exchanged == {frozen: 4 * sum(p.numel() for p in parameters) for frozen, parameters in live.items()}
    assert len(exchanged) == 3
    assert list(exchanged.values()) == sorted(exchanged.values(), reverse=True)


def test_a_signal_to_one_process_stops_both_after_the_same_step_and_saves_once(two: Path) -> None:
    assert [(two / f"stop-{rank}").read_text() for rank in (0, 1)] == [f"6 {int(signal.SIGTERM)}"] * 2
    assert (two / "resumed" / "events.log").read_text().count("resume: from") == 1


def test_a_run_is_resumed_with_the_same_bits_by_as_many_and_up_to_rounding_by_others(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: None
) -> None:
    assert lines(two / "resumed") == lines(two / LOCK)
    again = weights(two / "resumed")
    assert all(torch.equal(again[name], value) for name, value in weights(two / LOCK).items())
    monkeypatch.setattr(loop, "open_source", lambda *_, **__: Noise(skips=23))
    shutil.copytree(two / "stopped", tmp_path / "run")
    train(settings(tmp_path / "run", {}), resume=True, quiet=True)
    assert_alike(tmp_path / "run", two / LOCK, "two, then one")
    assert_alike(two / "of one", two / LOCK, "one, then two")
    assert any("with 2 processes, before with 1: from here on" in text for text in events(two / "of one"))
    assert not any("warning" in text for text in events(two / "resumed"))


@pytest.mark.parametrize("name", FAULTS)
def test_what_one_process_alone_meets_ends_both(two: Path, name: str) -> None:
    first, second = ((two / f"{name}-{rank}").read_text() for rank in (0, 1))
    text = FAULTS[name][2]
    assert text in first
    assert text in second
    assert second.startswith("KeyError" if name == "mistake" else "ToldElsewhere")
    assert ("process 1 on" in first) == (name in ("data", "memory", "mistake")), "those of the second process alone"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("there", "a run is there already"),
        ("other", "seed: 1 here, 0 in the first process"),
        ("usage", "--sted"),
    ],
)
def test_the_command_tells_what_is_wrong_once(two: Path, name: str, text: str) -> None:
    first, second = ((two / f"{name}-{rank}").read_text() for rank in (0, 1))
    assert first.startswith("2 ")
    assert text in first
    assert second == "2 "


@contextmanager
def started(arguments: list[str], **environment: str) -> Iterator[subprocess.Popen[str]]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    command = [sys.executable, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as begun:
        try:
            yield begun
        finally:
            begun.kill()


def wait_for_line(out: Path, step: int) -> None:
    until = time.monotonic() + 90
    while not (out / "metrics.jsonl").exists() or len(lines(out)) < step:
        assert time.monotonic() < until, "it does not begin"
        time.sleep(0.02)


@pytest.mark.usefixtures("threads")
def test_torchrun_is_stopped_by_sigterm_and_its_run_goes_on_in_one_process(tmp_path: Path) -> None:
    write_videos(tmp_path / "world", SynthConfig(videos=6, size=24, frames=12), workers=1)
    (tmp_path / "world" / "bad.mp4").write_text("no video")
    command = ["pretrain", "layerlock-tiny", "--data", str(tmp_path / "world"), *SHORT, "--steps", "100000"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "layerlock"]
    with started([*torchrun, *command, "--out", str(tmp_path / "two")]) as launcher:
        wait_for_line(tmp_path / "two", 4)
        launcher.send_signal(signal.SIGTERM)
        said, _ = launcher.communicate(timeout=60)
    assert said.count("everything is saved") == 1
    (stopped,) = re.findall(r"stop: after step (\d+)", "\n".join(events(tmp_path / "two")))
    for how, out in ([*command, "--out"], "one"), (["pretrain", "layerlock-tiny", "--resume", "--out"], "two"):
        step = 4 if out == "one" else int(stopped) + 2
        with at_step(step, lambda: os.kill(os.getpid(), signal.SIGTERM), 0), pytest.raises(SystemExit) as end:
            cli.main([*how, str(tmp_path / out)])
        assert end.value.code == 143
    two, one = lines(tmp_path / "two"), lines(tmp_path / "one")
    assert [line["step"] for line in two] == list(range(1, int(stopped) + 4))
    assert [line["skipped"] for line in two[:4]] == [1] * 4
    assert [line["loss"] for line in two[:4]] == pytest.approx([line["loss"] for line in one[:4]], rel=1e-5)


def test_a_process_that_is_killed_is_named_by_those_that_are_left(tmp_path: Path) -> None:
    job = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    command = ["-m", "layerlock", "pretrain", "mae-tiny", *SHORT, "--steps", "100000", "--out", str(tmp_path)]
    with started(command, **job, RANK="0") as first, started(command, **job, RANK="1") as second:
        wait_for_line(tmp_path, 1)
        second.kill()
        _, error = first.communicate(timeout=60)
    assert first.returncode == 2
    assert f"ended, or did not come to an exchange for 30 minutes: 1 on {socket.gethostname()}" in error


def test_shares_are_equal_and_keep_the_clips_of_a_decode_together() -> None:
    made = config(Path("run"), batch=24, clip=ClipConfig(per_decode=3), optim=OptimConfig(accumulate=4))
    assert [not made.share_problems(processes, ()) for processes in (1, 2, 3, 4, 5, 24, 48)] == [True, True] + [
        False
    ] * 5
    assert "batch: 24 clips cannot" in made.share_problems(5, ())[0]
    assert made.share_problems(4, ())[0].startswith("optim.accumulate: 4 does not divide the 6 clips")
    assert made.share_problems(12, ())[0].startswith("clip.per_decode: 3 does not divide the 2 clips")


def test_weights_by_the_motion_of_a_whole_batch_are_for_one_process() -> None:
    stages = [replace(tiny.PIXEL_STAGE, taps=(Tap(depth=tiny.ENCODER_DEPTH, motion_weight=0.5),))]
    assert config(Path("run")).share_problems(1, stages) == []
    assert config(Path("run")).share_problems(2, stages)[0].startswith("stage.taps.motion_weight: weights are relative")


def test_a_process_alone_keeps_what_it_has() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = gradient = torch.tensor([1.0, 2.0])
    assert exchange.reduce_gradients([parameter]) == 0
    assert parameter.grad is gradient
    assert together.largest(3) == 3
    assert together.gathered("ab") == ["a", "b"]
    assert together.of_first(lambda: 5) == 5
    assert torch.equal(exchange.first_rows(torch.eye(3), 2), torch.eye(3)[:2])
