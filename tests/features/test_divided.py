"""Two processes of one job read clips for the first one: what it finds is what one process finds, bit by bit."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import MODEL
from torch import Tensor
from torch import multiprocessing as mp

import layerlock
from layerlock import cli, together
from layerlock.data.decode.video import UnreadableVideo
from layerlock.data.folder import FolderSource
from layerlock.data.synth import SynthConfig, write_videos
from layerlock.encoders import FrozenEncoder
from layerlock.errors import LayerlockError
from layerlock.evaluation.sweep import Sweep
from layerlock.features.divided import divided, led
from layerlock.model.encoder import ClipShape, Encoder

VIDEOS, LOST = 52, 7
COMMON: dict[str, Any] = {"workers": 0, "device": "cpu", "batch": 4}
EVALUATION: dict[str, Any] = {
    **COMMON,
    **{"depths": [0.5], "lrs": [1e-3], "channels": 16, "heads": 2, "test_share": 0.4, "examples": 24},
    **{"threads": 1, "quiet": True, "precision": "fp32"},
}
EVALUATIONS: dict[str, dict[str, Any]] = {
    "readouts of classes": {"baselines": "no"},
    "augmented clips": {"augment": "yes", "readout": "linear"},
    "features kept on the disk": {"cache": True, "augment": "no", "readout": "linear", "baselines": "no"},
    "retrieval": {"task": "retrieval", "baselines": "no"},
    "depth": {"task": "depth", "baselines": "no", "readout": "solved"},
}
ANALYSIS: dict[str, Any] = {
    **COMMON,
    **{"occlusion": True, "views": 2, "ladder": 8, "threads": 1, "precision": "fp32", "quiet": True},
}


def tiny_encoder(folder: Path) -> Path:
    return Encoder.random(replace(MODEL, depth=2), ClipShape(frames=8, stride=1, size=24), seed=2).save_pretrained(
        folder / "tiny"
    )


def evaluate(made: Path, out: Path, changes: Mapping[str, Any], **how: Any) -> Any:
    settings = EVALUATION | dict(changes)
    if settings.get("readout") == "solved" or settings.get("task") == "retrieval":
        settings = {k: v for k, v in settings.items() if k not in ("lrs", "channels", "heads", "examples")}
    elif settings.get("readout") == "linear":
        settings = {k: v for k, v in settings.items() if k not in ("channels", "heads")}
    return layerlock.evaluate(made / "tiny", made / "world", out=out, **settings, **how)


def all_verbs(made: Path, out: Path) -> None:
    with lossy():
        for name, changes in EVALUATIONS.items():
            evaluate(made, out / name, changes)
        layerlock.analyze_depth(made / "tiny", made / "world", out=out / "depth", **ANALYSIS)
    for per in ("video", "clip", "token"):
        layerlock.embed(made / "tiny", made / "world", per=per, depth=[1, 2], out=out / f"{per}.npz", **COMMON)  # type: ignore[arg-type]


@contextmanager
def lossy() -> Iterator[None]:
    """Within it a video cannot be decoded any more."""
    view = FolderSource.view

    def failing(self: FolderSource, video: int, *at: float) -> Any:
        if self.video_name(video).endswith(f"{LOST:06d}.mp4"):
            raise UnreadableVideo(self.video_name(video), "it is gone")
        return view(self, video, *at)

    with replaced(FolderSource, "view", failing):
        yield


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    yield
    setattr(owner, name, before)


class Broken(Encoder):
    """An encoder that fails in one process at its third batch."""

    rank, calls = 0, 0

    def forward_intermediates(self, *given: Any) -> list[Tensor]:
        self.calls += 1
        if self.calls == 3 and together.rank() == self.rank:
            raise LayerlockError("the encoder is broken")
        return super().forward_intermediates(*given)


class Numbers:
    """A series of numbers, each a tensor with what made it."""

    def __call__(
        self, encoders: Mapping[str, FrozenEncoder], device: torch.device, numbers: range
    ) -> Generator[tuple[int, int, Tensor]]:
        for number in numbers:
            yield number, together.rank(), torch.full((number % 2, 3), number, dtype=torch.bfloat16)


def in_turns() -> list[Any]:
    """Some series in the first process: one, one that is left early, one that is left open, one without items."""

    def work() -> list[Any]:
        def items(numbers: range) -> Generator[Any]:
            return divided(Numbers(), {}, torch.device("cpu"), numbers)

        found = list(items(range(3, 8)))
        for early in (1, 2, 3):
            left = items(range(9))
            found += [next(left) for _ in range(early)]
            left.close()
        found += list(items(range(2, 2)))
        left = items(range(5))
        found.append(next(left))
        return [[number, rank, x.shape[0], x.sum().item()] for number, rank, x in found]

    with together.job():
        return led({}, torch.device("cpu"), work)


@contextmanager
def stopped() -> Iterator[None]:
    """Within it a training of readouts gets SIGTERM before its fourth step."""
    train_step = Sweep.train_step

    def stopping(self: Sweep, *given: Any) -> Any:
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(self, *given)

    with replaced(Sweep, "train_step", stopping):
        yield


def job(rank: int, folder: Path, port: int) -> None:
    """One of two processes; what it leaves behind is for the tests below."""
    torch.set_num_threads(1)
    together.TIMEOUT = timedelta(seconds=60)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "RANK": str(rank)}
    out = folder / "two"
    (folder / f"turns-{rank}").write_text(json.dumps(in_turns()))
    all_verbs(folder, out)
    world, changes = folder / "world", EVALUATIONS["augmented clips"]
    with stopped():
        found = evaluate(folder, out / "stopped", changes)
    (folder / f"stop-{rank}").write_text(str(found.signal))
    found = evaluate(folder, out / "stopped", changes, resume=True)
    (folder / f"rows-{rank}").write_text(repr(found.rows))
    vectors = layerlock.embed(folder / "tiny", world, **COMMON)
    (folder / f"vectors-{rank}").write_text(f"{len(vectors.features)} {len(vectors.files)}")
    for broken in (0, 1):
        encoder = Broken.random(MODEL, ClipShape(frames=8, stride=1, size=24))
        encoder.rank = broken
        try:
            layerlock.embed(encoder, world, **COMMON)
        except LayerlockError as error:
            (folder / f"broken {broken}-{rank}").write_text(f"{type(error).__name__}: {error}")
    commands = {
        "there": ["evaluate", str(folder / "tiny"), "--data", str(world), "--out", str(out / "retrieval")],
        "other": [
            "embed",
            str(folder / "tiny"),
            "--data",
            str(world),
            "--out",
            str(out / "o.npz"),
            "--depth",
            f"{rank}",
        ],
        "synth": ["synth", str(out / "synth")],
        "convergence": ["analyze", "convergence", "mae-tiny"],
        "usage": ["embed", "--dep", "3"],
    }
    for name, arguments in commands.items():
        said = io.StringIO()
        with redirect_stdout(said), redirect_stderr(said):
            try:
                cli.main(arguments)
            except SystemExit as end:
                (folder / f"{name}-{rank}").write_text(f"{end.code} {said.getvalue()}")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process and what two left behind, each with a cache of its own."""
    folder, before = tmp_path_factory.mktemp("divided"), torch.get_num_threads()
    write_videos(folder / "world", SynthConfig(videos=VIDEOS, size=24, frames=12), workers=1)
    tiny_encoder(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAYERLOCK_CACHE", str(folder / "cache of one"))
        torch.set_num_threads(1)
        all_verbs(folder, folder / "one")
        torch.set_num_threads(before)
        patch.setenv("LAYERLOCK_CACHE", str(folder / "cache of two"))
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = int(taken.getsockname()[1])
        mp.start_processes(job, (folder, port), nprocs=2, start_method="spawn")
    return folder


def test_items_come_in_turns_and_in_order(made: Path) -> None:
    wanted = [(n, (n - 3) % 2) for n in range(3, 8)]
    for early in (1, 2, 3):
        wanted += [(n, n % 2) for n in range(early)]
    wanted.append((0, 0))
    found = [[n, rank, n % 2, 3 * n * (n % 2)] for n, rank in wanted]
    assert [json.loads((made / f"turns-{rank}").read_text()) for rank in (0, 1)] == [found] * 2


@pytest.mark.parametrize("name", EVALUATIONS)
def test_an_evaluation_is_that_of_one_process(made: Path, name: str) -> None:
    one, two = ((made / many / name) for many in ("one", "two"))
    results = [json.loads((out / "results.json").read_text()) for out in (one, two)]
    for found in results:
        found["out"] = found["settings"]["config"]["out"] = ""
    assert results[0] == results[1]
    for file in sorted(path.name for path in one.glob("*.safetensors")):
        first, second = load_file(one / file), load_file(two / file)
        assert first.keys() == second.keys()
        for key, value in first.items():  # nan where a video is lost
            torch.testing.assert_close(second[key], value, rtol=0, atol=0, equal_nan=True, msg=f"{file}: {key}")
    assert (two / "report.html").exists()


def test_an_analysis_is_that_of_one_process(made: Path) -> None:
    one, two = ((made / many / "depth" / "depth.json").read_text() for many in ("one", "two"))
    assert one == two
    assert "it is gone" in one
    assert (made / "two" / "depth" / "report.html").exists()


@pytest.mark.parametrize("per", ["video", "clip", "token"])
def test_vectors_are_those_of_one_process_and_the_first_one_has_them(made: Path, per: str) -> None:
    one, two = (np.load(made / many / f"{per}.npz") for many in ("one", "two"))
    assert sorted(one) == sorted(two)
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])
    assert (made / "vectors-1").read_text() == "0 0"
    assert int((made / "vectors-0").read_text().split()[0]) > VIDEOS / 2


def test_a_signal_stops_all_and_the_evaluation_goes_on(made: Path) -> None:
    assert [(made / f"stop-{rank}").read_text() for rank in (0, 1)] == [str(int(signal.SIGTERM))] * 2
    states = [load_file(made / "two" / name / "readouts.safetensors") for name in ("stopped", "augmented clips")]
    assert all(torch.equal(states[0][key], value) for key, value in states[1].items())
    assert (made / "rows-0").read_text() == (made / "rows-1").read_text()


@pytest.mark.usefixtures("threads")
def test_a_restart_goes_on_with_the_evaluation_that_its_launch_began(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = EVALUATIONS["augmented clips"]
    monkeypatch.setattr(together, "launch", lambda: "5e1f.1")
    with stopped():
        assert evaluate(made, tmp_path, changes).signal == signal.SIGTERM
    monkeypatch.setattr(together, "launch", lambda: "another.1")
    with pytest.raises(LayerlockError, match="an evaluation is there already"):
        evaluate(made, tmp_path, changes)
    monkeypatch.setattr(together, "launch", lambda: "5e1f.2")
    began, load = list[int](), Sweep.load
    monkeypatch.setattr(Sweep, "load", lambda self, state, step: (began.append(step), load(self, state, step)))
    assert evaluate(made, tmp_path, changes, overwrite=True).signal is None
    assert began == [4]


@pytest.mark.parametrize("broken", [0, 1])
def test_what_one_process_alone_meets_ends_both(made: Path, broken: int) -> None:
    first, second = ((made / f"broken {broken}-{rank}").read_text() for rank in (0, 1))
    assert "the encoder is broken" in first
    assert second.startswith("ToldElsewhere")
    assert ("process 1 on" in first) == (broken == 1)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("there", "an evaluation is there already"),
        ("other", "depth: 1 here, 0 in the first process"),
        ("synth", "synth: is not divided, so that each of 2 processes would do all of it"),
        ("convergence", "analyze convergence: is not divided"),
        ("usage", "layerlock embed"),
    ],
)
def test_the_command_tells_what_is_wrong_once(made: Path, name: str, text: str) -> None:
    first, second = ((made / f"{name}-{rank}").read_text() for rank in (0, 1))
    assert first.startswith("2 ")
    assert text in first
    assert second == "2 "
    assert not (made / "two" / "synth").exists()


def test_one_process_alone_makes_all_itself() -> None:
    def work() -> list[Any]:
        return list(divided(Numbers(), {}, torch.device("cpu"), range(4)))

    assert [number for number, *_ in led({}, torch.device("cpu"), work)] == [0, 1, 2, 3]
