from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from tiny import Noise

from layerlock.train import loop

settings.register_profile("layerlock", max_examples=20, deadline=None, derandomize=True, database=None)
settings.load_profile("layerlock")
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # side by side the tests share the cores


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keeps the user's cache and colours out of the tests, and their subprocesses."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAYERLOCK_CACHE", str(folder))
        patch.delenv("FORCE_COLOR", raising=False)
        yield folder


@pytest.fixture
def noise(monkeypatch: pytest.MonkeyPatch) -> Noise:
    """Runs take their clips from here in place of their `data`."""
    source = Noise()
    monkeypatch.setattr(loop, "open_source", lambda *args, **kwargs: source)
    return source


@pytest.fixture
def threads() -> Iterator[None]:
    """Puts back the number of threads that a run has set."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def no_hang() -> Iterator[None]:
    """Ends a test that waits for ever with an error, long after it should have been through."""

    def fail(*_: object) -> None:
        raise AssertionError("it waits for ever")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
