"""Blocks through torch.compile: the same losses, all blocks wherever they stand, nothing new at later switches."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
import torch
from torch._dynamo.utils import counters

from layerlock.learn.learner import Decoding, Learner
from layerlock.learn.masking import Masking, MultiBlockMasking, TubeMasking
from layerlock.learn.plan import Stage
from layerlock.learn.plans import Blockwise, JointEmbedding, Plans, Progressive
from layerlock.model.separate import SeparateDecoding
from layerlock.model.vit import Block
from layerlock.train.loop import build_learner

pytestmark = pytest.mark.filterwarnings("ignore")  # the compiler's own; the same code runs elsewhere without it
SEPARATE = SeparateDecoding(width=12, depth=2, heads=2, mlp=24)
TUBE = TubeMasking(keep=0.34)
LOCK = Progressive(target="frozen", start=0.2, interval=0.2, last=4)
LADDER = JointEmbedding(climb=True, start=0.2, interval=0.2, last=4)
METHODS: dict[str, tuple[Masking, Decoding, Plans]] = {
    "LayerLock": (tiny.MASKING, tiny.DECODING, LOCK),
    "blockwise": (TUBE, SEPARATE, Blockwise(parts=3)),
    "blockwise, sequential": (TUBE, SEPARATE, Blockwise(regime="sequential", parts=6)),
    "LayerLock on V-JEPA": (MultiBlockMasking(blocks=2, group=4), SEPARATE, LADDER),
}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Nothing compiled before or left behind."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture
def graphs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are captured as always, but run as they are: no compiler is called."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))


def stages(plan: Plans, decoding: Decoding) -> list[Stage]:
    encoder_depth = 6 if isinstance(decoding, SeparateDecoding) else tiny.ENCODER_DEPTH
    return [stage for _, stage in plan.build(30, encoder_depth, 6).timeline]


def losses(made: Learner, step: int) -> list[float]:
    figures = made.step(tiny.video(4, seed=step), torch.arange(4) + 4 * step)
    made.zero_grad()
    return [float(loss) for loss in figures.losses.values()]


@pytest.mark.usefixtures("graphs_alone")
@pytest.mark.parametrize("name", METHODS)
def test_losses_are_the_same_and_later_switches_compile_nothing(name: str) -> None:
    masking, decoding, plan = METHODS[name]
    every = stages(plan, decoding)
    eager, compiled = (
        Learner(tiny.MODEL, tiny.GRID, masking, decoding, every[0], seed=3, compiled=compiled)
        for compiled in (False, True)
    )
    captured = []
    for number, stage in enumerate(every):
        eager.enter(stage)
        compiled.enter(stage)
        for step in (2 * number, 2 * number + 1):
            assert losses(compiled, step) == pytest.approx(losses(eager, step), rel=1e-4)
        captured.append(counters["frames"]["ok"])
        assert counters["frames"]["total"] == counters["frames"]["ok"], "none falls back to eager"
        assert all(b._compiled_call_impl is not None for b in compiled.modules() if isinstance(b, Block))
    assert captured[0] > 0
    assert captured[2:] == captured[2:3] * len(captured[2:]), "all that a frozen prefix needs is there"


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no compiler")
def test_a_config_that_asks_for_it_is_compiled_and_computes_the_same(tmp_path: Path) -> None:
    found = []
    for compile in ("no", "yes"):
        config = tiny.config(tmp_path, run=tiny.run_config(compile=compile))
        made = build_learner(config, torch.device("cpu"), tiny.PIXEL_STAGE)
        figures = made.step(tiny.video(4), torch.arange(4))
        assert (counters["frames"]["ok"] > 0) == (compile == "yes")
        found.append([figures.losses["pixels"], *(p.grad for p in made.live().values())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
