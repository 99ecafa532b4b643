"""Every verb leaves the process as it found it, also when it fails."""

from __future__ import annotations

import gc
import locale
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av.logging
import numpy as np
import pytest
import torch
from tiny import MODEL, config, run_config

import layerlock
from layerlock import api, process
from layerlock.config import Config, OptimConfig
from layerlock.data import ClipConfig
from layerlock.encoders import open_encoder
from layerlock.errors import LayerlockError
from layerlock.model.encoder import ClipShape, Encoder
from layerlock.train.loop import Run, train

CLIP = ClipConfig(frames=8, stride=1, size=24, resize=1.0, flip=True)
EVALUATION: dict[str, Any] = {
    **{"depths": [0.5], "lrs": [1e-3], "readout": "linear", "baselines": "no", "test_share": 0.4},
    **{"examples": 16, "batch": 4, "workers": 0, "device": "cpu", "threads": 1, "quiet": True},
}
ANALYSIS: dict[str, Any] = {"workers": 0, "batch": 8, "device": "cpu", "threads": 1, "quiet": True}
CONVERGENCE: dict[str, Any] = {"layers": [1], "times": [0.5], "seeds": [0], "probe_clips": 8, "quiet": True}


def settings() -> dict[str, object]:
    """What holds for the whole process."""
    mask = os.umask(0)
    os.umask(mask)
    levels = {name: logging.getLogger(name).level for name in ("torch", "transformers", "matplotlib", "PIL")}
    return {
        "threads": torch.get_num_threads(),
        "threads between operations": torch.get_num_interop_threads(),
        "type": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "products": torch.get_float32_matmul_precision(),
        "fused attention": torch.backends.cuda.flash_sdp_enabled(),
        "sharing": torch.multiprocessing.get_sharing_strategy(),
        "random numbers of torch": torch.get_rng_state().tolist(),
        "random numbers of numpy": str(np.random.get_state()),
        "random numbers of python": random.getstate(),
        "errors of numpy": np.geterr(),
        "printing": np.get_printoptions(),
        "filters": list(warnings.filters),
        "handlers": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "blocked signals": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "environment": dict(os.environ),
        "folder": Path.cwd(),
        "mask": mask,
        "locale": locale.setlocale(locale.LC_ALL),
        "logging": (logging.getLogger().level, len(logging.getLogger().handlers), levels),
        "decoder's messages": av.logging.get_level(),
        "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook, sys.displayhook, sys.stdout, sys.stderr),
        "garbage": (gc.isenabled(), gc.get_threshold()),
        "recursion": sys.getrecursionlimit(),
        "memory": process._memory_kept,
    }


def run_of(out: Path, **changes: Any) -> Config:
    return config(out, clip=CLIP, batch=2, steps=4, plan=layerlock.Progressive(), run=run_config(threads=1), **changes)


def learning(out: Path) -> Config:
    return replace(run_of(out), steps=12, optim=OptimConfig(lr=3e-3, warmup=0.1))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world of videos and a run."""
    folder = tmp_path_factory.mktemp("made")
    layerlock.synth(folder / "world", videos=40, size=32, frames=12, workers=1)
    train(run_of(folder / "run"), quiet=True)
    return folder


Verb = Callable[[Path, Path], object]
"""called with what was made and with an empty folder"""
VERBS: dict[str, Verb] = {
    "list_recipes": lambda made, out: layerlock.list_recipes(),
    "describe_recipe": lambda made, out: layerlock.describe_recipe("layerlock-tiny"),
    "recipe": lambda made, out: layerlock.recipe("layerlock-tiny"),
    "plan": lambda made, out: layerlock.plan(run_of(out / "run"), out=out / "plan"),
    "plan of what is measured": lambda made, out: layerlock.plan(run_of(out / "run"), device="measured", quiet=True),
    "fit": lambda made, out: layerlock.fit(layerlock.plan(run_of(out / "run")), "24GB"),
    "pretrain": lambda made, out: layerlock.pretrain(run_of(out / "run"), quiet=True),
    "resume": lambda made, out: layerlock.pretrain(run_of(made / "run"), quiet=True, resume=True),
    "train": lambda made, out: train(run_of(out / "run"), quiet=True),
    "load": lambda made, out: layerlock.load(made / "run"),
    "random": lambda made, out: Encoder.random(MODEL, ClipShape(frames=8, stride=1, size=24)),
    "open_encoder": lambda made, out: open_encoder(f"random:{made / 'run'}"),
    "analyze_depth": lambda made, out: layerlock.analyze_depth(made / "run", made / "world", out=out / "a", **ANALYSIS),
    "analyze_convergence": lambda made, out: layerlock.analyze_convergence(learning(out / "a"), **CONVERGENCE),
    "embed": lambda made, out: layerlock.embed(made / "run", made / "world", workers=0, out=out / "a.npz"),
    "embed clips": lambda made, out: layerlock.embed(made / "run", made / "world", per="clip", workers=1),
    "embed with workers": lambda made, out: layerlock.embed(made / "run", made / "world", workers=1),
    "evaluate": lambda made, out: layerlock.evaluate(made / "run", made / "world", out=out / "a", **EVALUATION),
    "index": lambda made, out: layerlock.index(made / "world", workers=0, cache=False, quiet=True),
    "info": lambda made, out: layerlock.info(made / "run"),
    "pack": lambda made, out: layerlock.pack(made / "world", out / "pack", workers=0, quiet=True),
    "synth": lambda made, out: layerlock.synth(out / "world", videos=2, size=16, frames=4, workers=1),
    "write_report": lambda made, out: layerlock.write_report(made / "run"),
}
FAIL: dict[str, Verb] = {
    "describe_recipe": lambda made, out: layerlock.describe_recipe("none"),
    "recipe": lambda made, out: layerlock.recipe("none"),
    "plan": lambda made, out: layerlock.plan(run_of(out / "run"), device="abacus"),
    "fit": lambda made, out: layerlock.fit(layerlock.plan(run_of(out / "run")), "1kB"),
    "pretrain": lambda made, out: layerlock.pretrain(run_of(out / "run", seed=13), quiet=True),
    "resume": lambda made, out: layerlock.pretrain(run_of(made / "run", seed=3), quiet=True, resume=True),
    "load": lambda made, out: layerlock.load(made),
    "open_encoder": lambda made, out: open_encoder("random:none"),
    "analyze_depth": lambda made, out: layerlock.analyze_depth(
        made / "none", made / "world", out=out / "a", **ANALYSIS
    ),
    "embed": lambda made, out: layerlock.embed(made / "run", made / "world", workers=0, depth=99),
    "embed nothing": lambda made, out: layerlock.embed(made / "run", made / "none"),
    "evaluate": lambda made, out: layerlock.evaluate(made / "run", made / "none", out=out / "a", **EVALUATION),
    "index": lambda made, out: layerlock.index(made / "none", quiet=True),
    "info": lambda made, out: layerlock.info(made),
    "pack": lambda made, out: layerlock.pack(made / "world", made / "run", workers=0, quiet=True),
    "synth": lambda made, out: layerlock.synth(made / "run", videos=2),
    "write_report": lambda made, out: layerlock.write_report(made),
}


@pytest.fixture(autouse=True)
def two_threads(threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    original = Run.update

    def failing(self: Run, *given: Any, **named: Any) -> Any:
        if self.config.seed == 13 and self.step == 2:
            raise LayerlockError("in the middle of training")
        return original(self, *given, **named)

    monkeypatch.setattr(Run, "update", failing)


def test_all_verbs_are_here() -> None:
    called = {name.split()[0] for name in VERBS}
    assert {name for name in api.__all__ if name[0].islower()} <= called


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_leaves_the_process_as_it_was(made: Path, tmp_path: Path, name: str) -> None:
    before = settings()
    VERBS[name](made, tmp_path)
    after = settings()
    assert {key: after[key] for key in after if after[key] != before[key]} == {}


@pytest.mark.parametrize("name", FAIL)
def test_a_verb_that_fails_does_too(made: Path, tmp_path: Path, name: str) -> None:
    before = settings()
    with pytest.raises(LayerlockError):
        FAIL[name](made, tmp_path)
    after = settings()
    assert {key: after[key] for key in after if after[key] != before[key]} == {}


def test_memory_is_kept_until_the_last_of_several_verbs_ends() -> None:
    with process.put_back():
        with process.put_back():
            process.keep_freed_memory(torch.device("cpu"))
        assert process._memory_kept == (sys.platform == "linux")
    assert not process._memory_kept


def test_what_is_changed_within_is_put_back_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYERLOCK_TEST", "before")
    before = settings()

    @process.put_back()
    def change() -> None:
        torch.set_num_threads(1)
        torch.rand(3), np.random.rand(3), random.random()
        os.environ.update(LAYERLOCK_TEST="after", LAYERLOCK_OTHER="new")
        warnings.simplefilter("ignore")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        change()
    assert settings() == before
    with pytest.warns(UserWarning, match="again"):
        warnings.warn("again", UserWarning, stacklevel=1)
