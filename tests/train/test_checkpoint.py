"""Checkpoints: exact, whole or not at all."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import DECODING, PIXEL_STAGE, learner, lock_stage, video

from layerlock.config import OptimConfig
from layerlock.encoders.run import FACTS, TENSORS
from layerlock.errors import LayerlockError
from layerlock.learn.learner import Learner
from layerlock.learn.plan import Stage, Switch
from layerlock.train import checkpoint
from layerlock.train.optimizer import build_optimizer, moments_of

OPTIM = OptimConfig(lr=1e-2)


def trained(stage: Stage = PIXEL_STAGE, compute: torch.dtype = torch.float32) -> tuple[Learner, torch.optim.AdamW]:
    made = learner(compute=compute, stage=stage)
    optimizer = build_optimizer(made, OPTIM)
    update(made, optimizer)
    return made, optimizer


def update(made: Learner, optimizer: torch.optim.Optimizer) -> float:
    loss = sum(made.step(video(2), torch.arange(2)).losses.values())
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss)


def save(folder: Path, step: int, made: Learner, optimizer: torch.optim.AdamW, **changes: Any) -> Path:
    pending, keep = changes.pop("pending", {}), changes.pop("keep", 2)
    fields: dict[str, Any] = {"log": (), "monitor": {}, "skipped": [], "data": "noise", "plan": {}, "stage": {}}
    fields |= {"device": "cpu", "precision": "fp32", "networks": {}, "threads": 1, "processes": 1}
    facts = checkpoint.Facts(step=step, **(fields | changes))
    return checkpoint.save(
        folder, learner=made, moments=moments_of(made, optimizer), pending=pending, keep=keep, facts=facts
    )


@contextmanager
def full_disk(size: int = 4096) -> Iterator[None]:
    """No file can grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stage", [PIXEL_STAGE, lock_stage(2)], ids=["pixels", "latent"])
def test_a_restored_run_goes_on_bit_for_bit(tmp_path: Path, stage: Stage, compute: torch.dtype) -> None:
    made, optimizer = trained(stage, compute)
    log, monitor = (
        (Switch(1, lock_stage(1)), Switch(4, lock_stage(1, 2, fraction=0.5), "it was time")),
        {"best": {"a": 0.1}, "turned": ["b"]},
    )
    pending = {"h2": torch.tensor([0.1, 0.2])}
    place = save(tmp_path, 7, made, optimizer, log=log, monitor=monitor, pending=pending)
    wanted = [update(made, optimizer) for _ in range(2)]
    state = checkpoint.read(place)
    assert (state.step, state.log, state.monitor) == (7, log, monitor)
    assert torch.equal(state.pending["h2"], pending["h2"])
    again = Learner(made.vit.config, made.vit.grid, made.masking, DECODING, stage, seed=99, compute=compute)
    again.seed = made.seed
    restored = checkpoint.restore(state, again, OPTIM)
    assert [update(again, restored) for _ in range(2)] == wanted
    for (name, a), b in zip(made.state_dict().items(), again.state_dict().values(), strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b), name
    first, second = moments_of(made, optimizer), moments_of(again, restored)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[n][kind], second[n][kind]) for n in first for kind in first[n])


def test_the_last_n_are_kept(tmp_path: Path) -> None:
    made, optimizer = trained()
    for step in (1, 2, 10, 100):
        place = save(tmp_path, step, made, optimizer, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000010", "step-00000100"]
    assert checkpoint.latest(tmp_path) == place


def test_half_a_checkpoint_is_not_taken_for_one(tmp_path: Path) -> None:
    made, optimizer = trained()
    good = save(tmp_path, 3, made, optimizer)
    (tmp_path / "step-00000009").mkdir()
    (tmp_path / ".part-00000009").mkdir()
    assert checkpoint.latest(tmp_path) == good
    assert checkpoint.latest(tmp_path / "nowhere") is None


def digest(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(place.iterdir())}


@pytest.mark.parametrize("call", ["save_file", "sync"])
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    made, optimizer = trained()
    good = save(tmp_path, 3, made, optimizer)
    before = digest(good)

    def fail(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, call, fail)
    with pytest.raises(LayerlockError, match="No space left") as error:
        save(tmp_path, 4, made, optimizer, keep=1)
    assert "step-00000004" in str(error.value)
    assert "last good checkpoint" in str(error.value)
    assert digest(good) == before
    assert not list(tmp_path.glob(".part*"))
    newest = checkpoint.latest(tmp_path)
    assert newest is not None
    checkpoint.read(newest)


def test_a_full_disk_leaves_the_checkpoint_before_and_says_so(tmp_path: Path) -> None:
    made, optimizer = trained()
    good = save(tmp_path, 3, made, optimizer)
    before = digest(good)
    with full_disk(), pytest.raises(LayerlockError, match=f"last good checkpoint: {good}"):
        save(tmp_path, 4, made, optimizer, keep=1)
    assert checkpoint.latest(tmp_path) == good
    assert digest(good) == before
    assert not list(tmp_path.glob(".part*"))


@pytest.mark.parametrize("damage", ["cut", "empty", "facts", "not a table", "fields"])
def test_a_damaged_checkpoint_is_an_error_for_people(tmp_path: Path, damage: str) -> None:
    place = save(tmp_path, 3, *trained())
    tensors, facts = place / TENSORS, place / FACTS
    if damage in ("cut", "empty"):
        tensors.write_bytes(tensors.read_bytes()[: 1000 if damage == "cut" else 0])
    else:
        facts.write_text({"facts": "{", "not a table": "[]", "fields": '{"step": 3}'}[damage])
    with pytest.raises(LayerlockError, match=f"{place}: a damaged checkpoint"):
        checkpoint.read(place)


def test_a_checkpoint_of_another_model_names_the_tensor(tmp_path: Path) -> None:
    state = checkpoint.read(save(tmp_path, 3, *trained()))
    other = learner(stage=lock_stage(1))
    with pytest.raises(LayerlockError, match=r"heads\.h1_at_4"):
        checkpoint.restore(state, other, OPTIM)
