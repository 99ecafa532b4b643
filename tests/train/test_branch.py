"""A branch is the run that its plan would have trained alone, and costs only what comes after."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tiny import config, run_config

from layerlock.config import Config
from layerlock.errors import ConfigError, LayerlockError
from layerlock.learn.plans import Plateau, Progressive
from layerlock.train.branch import branch
from layerlock.train.folder import RunFolder
from layerlock.train.loop import train

pytestmark = pytest.mark.usefixtures("noise", "threads")
PIXELS = Progressive()
FREEZE = Progressive(freezes=((0.5, 2),))


def base_of(out: Path) -> Config:
    return config(out, plan=PIXELS, run=run_config(threads=1, checkpoint_every=100, keep=1, keep_at=(4, 6)))


def comparable(folder: Path) -> list[dict[str, object]]:
    return [{name: value for name, value in line.items() if name != "timing"} for line in RunFolder(folder).lines()]


def weights(folder: Path) -> dict[str, bytes]:
    state = load_file(folder / "checkpoints" / "step-00000012" / "state.safetensors")
    return {name: value.numpy().tobytes() for name, value in state.items()}


@pytest.mark.parametrize("at", [4, 6])
def test_a_branch_is_the_bits_of_the_run_that_its_plan_trains_alone(tmp_path: Path, at: int) -> None:
    train(base_of(tmp_path / "base"), quiet=True)
    base = RunFolder(tmp_path / "base")
    assert [path.name for path in sorted(base.checkpoints.iterdir())] == [f"step-{n:08d}" for n in (4, 6, 12)]
    before = {path: path.read_bytes() for path in sorted((tmp_path / "base").rglob("*")) if path.is_file()}
    made = replace(base_of(tmp_path / "branch"), plan=FREEZE)
    branch(base, at, made)
    assert [line["step"] for line in RunFolder(tmp_path / "branch").lines()] == list(range(1, at + 1))
    train(made, resume=True, quiet=True)
    train(replace(made, out=str(tmp_path / "alone")), quiet=True)
    assert comparable(tmp_path / "branch") == comparable(tmp_path / "alone")
    assert comparable(tmp_path / "branch")[:6] == comparable(tmp_path / "base")[:6]
    assert weights(tmp_path / "branch") == weights(tmp_path / "alone") != weights(tmp_path / "base")
    assert {path: path.read_bytes() for path in before} == before
    events = (tmp_path / "branch" / "events.log").read_text()
    assert f"step {at} branch: from {base.checkpoints}/step-{at:08d}" in events
    assert "step 6 switch: 2 blocks frozen, target pixels" in events


def test_weights_are_linked_where_they_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(base_of(tmp_path / "base"), quiet=True)
    state = Path("checkpoints") / "step-00000006" / "state.safetensors"
    branch(RunFolder(tmp_path / "base"), 6, replace(base_of(tmp_path / "linked"), plan=FREEZE))
    assert (tmp_path / "linked" / state).samefile(tmp_path / "base" / state)

    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    branch(RunFolder(tmp_path / "base"), 6, replace(base_of(tmp_path / "copied"), plan=FREEZE))
    assert not (tmp_path / "copied" / state).samefile(tmp_path / "base" / state)
    assert (tmp_path / "copied" / state).read_bytes() == (tmp_path / "base" / state).read_bytes()


def test_what_cannot_branch_off_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    train(base_of(tmp_path / "base"), quiet=True)
    base, made = RunFolder(tmp_path / "base"), replace(base_of(tmp_path / "branch"), plan=FREEZE)
    with pytest.raises(LayerlockError, match="no checkpoint of step 5 to branch off from"):
        branch(base, 5, made)
    with pytest.raises(ConfigError, match="batch: the run to resume has 4, now 2"):
        branch(base, 6, replace(made, batch=2))
    with pytest.raises(ConfigError, match="plan: its stages before step 6 are not those of"):
        branch(base, 6, replace(made, plan=Progressive(freezes=((0.25, 1),))))
    between = replace(made, plan=FREEZE, run=replace(made.run, log_every=4))
    with pytest.raises(ConfigError, match=r"plan: it switches at step 6, between log lines \(run\.log_every: 4\)"):
        branch(base, 6, between)
    with pytest.raises(ConfigError, match="decides by what it observes has no branches"):
        branch(base, 6, replace(made, plan=Plateau()))
    with pytest.raises(LayerlockError, match="a run is there already"):
        branch(base, 6, replace(made, out=base_of(tmp_path / "base").out))
    facts = base.checkpoints / "step-00000006" / "state.json"
    facts.write_text(json.dumps({"step": 6}))
    with pytest.raises(LayerlockError, match=r"branch: no branch of .*step-00000006"):
        branch(base, 6, made)
    assert not (tmp_path / "branch").exists()
