"""What autograd keeps for backward at the fullest moment of a step, by regime and by stage."""

from __future__ import annotations

import tiny
import torch
from saved import SavedForBackward, saved_bytes

from layerlock.learn.learner import Learner
from layerlock.learn.masking import TubeMasking
from layerlock.learn.plan import Stage
from layerlock.learn.plans import Blockwise
from layerlock.model.separate import SeparateDecoding

DECODING = SeparateDecoding(width=12, depth=1, heads=2, mlp=24)


def kept(made: Learner, stage: Stage) -> int:
    """Bytes of a step in a stage."""
    made.enter(stage)
    return saved_bytes(lambda: made.step(tiny.video(4), torch.arange(4)), [made])


def regime(name: str) -> tuple[list[int], list[int]]:
    """Of each stage: bytes kept for backward, and parameters that are trained."""
    stages = [stage for _, stage in Blockwise(regime=name, parts=3).build(30, 6, 6).timeline]  # type: ignore[arg-type]
    made = Learner(tiny.MODEL, tiny.GRID, TubeMasking(keep=0.34), DECODING, stages[0])
    figures = [(kept(made, stage), sum(p.numel() for p in made.live().values())) for stage in stages]
    return [saved for saved, _ in figures], [trained for _, trained in figures]


def test_parts_that_learn_alone_keep_less_than_all_at_once() -> None:
    (whole,), (whole_trained,) = regime("end-to-end")
    (together,), (together_trained,) = regime("simultaneous")
    (supervised,), _ = regime("deep-supervision")
    alone, alone_trained = regime("sequential")
    assert together < 0.8 * whole, "the graph of a part is let go before the next is built"
    assert supervised > whole
    assert max(alone) <= together
    assert max(alone[1:]) < together, "the first part alone has patches to project"
    assert max(alone_trained) < min(whole_trained, together_trained)


def test_less_is_kept_after_every_switch() -> None:
    made = tiny.learner()
    found = [kept(made, tiny.PIXEL_STAGE), *(kept(made, tiny.lock_stage(layer)) for layer in (1, 2, 3, 4))]
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == len(found)


def test_storages_count_once_and_go_when_backward_is_done() -> None:
    weight = torch.randn(8, 8, requires_grad=True)
    x = torch.randn(4, 8)
    saved = SavedForBackward([weight])
    with saved:
        y = x @ weight  # keeps x; and the weight only where x needs a gradient
        z = (y.exp() * y).sum()  # keeps the exponential, for two reasons, and y
        assert saved.live == saved.peak == 3 * 4 * 8 * 4
        z.backward()
        assert saved.live == 0
    assert saved.peak == 3 * 4 * 8 * 4
