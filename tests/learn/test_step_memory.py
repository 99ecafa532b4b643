"""Bytes and FLOPs of a step from shapes, against saved-tensor hooks, the learner's own parameters and torch's counter.

On meta a layer norm casts its input as on a GPU; PyTorch's fused attention, which meta has not, is stood in for by what
it keeps: queries, keys, values, its output and a number for each row of the softmax.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any
from weakref import finalize

import pytest
import torch
from saved import SavedForBackward
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from layerlock.budget.devices import DEVICES, Machine
from layerlock.budget.stages import stage_budget
from layerlock.config import Config
from layerlock.learn.learner import Learner
from layerlock.learn.masking import Counts
from layerlock.learn.plan import timeline
from layerlock.learn.step_memory import StepShape, step_memory
from layerlock.model.cost import Numerics
from layerlock.recipes import recipe

BF16, FP32 = torch.bfloat16, torch.float32


class Fused(torch.autograd.Function):
    """Attention that computes nothing."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out_bkhd = torch.empty_like(q.transpose(1, 2).contiguous())
        ctx.save_for_backward(q, k, v, out_bkhd, q.new_empty(q.shape[:-1], dtype=torch.float32))
        return out_bkhd.transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        return tuple(map(torch.empty_like, ctx.saved_tensors[:3]))


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(F, "scaled_dot_product_attention", Fused.apply)


def assert_measured(
    config: Config, device: str, compute: torch.dtype, batch: int = 3, picked: Iterable[int] | None = None
) -> None:
    """Kept bytes are within 2 %, weights and parameters exact, in each (or each picked) stage."""
    stages = [stage for _, stage in timeline(config.build_plan(), config.steps)]
    numerics = Numerics(compute=compute.itemsize, cpu=device == "cpu")
    clip, index_b = config.clip, torch.arange(batch)
    with torch.device(device):
        learner = Learner(config.model, config.grid, config.masking, config.decoder, stages[0], compute=compute)
        video = torch.zeros(batch, clip.frames, 3, clip.size, clip.size, dtype=torch.uint8)
    rotation = learner.vit.rotation()  # kept by the model for all steps
    tables = [] if rotation is None else [rotation.cos, rotation.sin]
    for number in range(len(stages)) if picked is None else picked:
        stage = stages[number]
        learner.enter(stage)
        masks = config.masking.draw(0, index_b, config.grid)
        counts = [
            Counts(each.context_bk.shape[1], 0 if each.predicted_bq is None else each.predicted_bq.shape[1])
            for each in masks
        ]
        shape = StepShape(
            model=config.model,
            decoding=config.decoder,
            stage=stage,
            grid=config.grid,
            numerics=numerics,
            recompute=False,
        )
        memory = step_memory(shape, counts)
        saved = SavedForBackward([*learner.parameters(), *learner.buffers(), *tables])
        with saved:
            learner.step(video, index_b)
        learner.zero_grad()
        where = f"{config.recipe}, stage {number}"
        assert memory.kept.clip * batch + memory.kept.fixed == pytest.approx(saved.peak, rel=0.02), where
        assert memory.live == sum(parameter.numel() for parameter in learner.live().values()), where
        assert memory.weights == sum({id(p): p.nbytes for p in learner.parameters()}.values()), where


@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize("compute", [BF16, FP32], ids=str)
@pytest.mark.parametrize(
    "name",
    [
        "layerlock-tiny",
        "layerlock-multi-tiny",
        "layerlock-sparse-tiny",
        "live-latents-tiny",
        "videomae-tiny",
        "vjepa-tiny",
        "vjepa-layerlock-tiny",
        "vjepa-layerlock-own-tiny",
        "blockwise-tiny",
        "blockwise-sequential-tiny",
        "deep-supervision-tiny",
    ],
)
def test_bytes_of_every_stage_are_those_that_are_kept(name: str, compute: torch.dtype) -> None:
    assert_measured(recipe(name), "meta", compute)


@pytest.mark.parametrize("compute", [BF16, FP32], ids=str)
@pytest.mark.parametrize("name", ["layerlock-nano", "vjepa-layerlock-nano", "blockwise-sequential-nano"])
def test_bytes_of_every_stage_are_those_that_are_kept_on_a_cpu(name: str, compute: torch.dtype) -> None:
    assert_measured(recipe(name), "cpu", compute)


@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize(
    ("name", "picked"),
    [
        ("4ds-g-layerlock", (0, 1, 32)),
        ("vit-g-250m-freeze", (0, 4)),
        ("vit-b-50m-layerlock-jump-4", (0, 2)),
        ("vjepa-l-two-masks", (0,)),
    ],
)
def test_bytes_of_the_papers_models_are_those_that_are_kept(name: str, picked: tuple[int, ...]) -> None:
    assert_measured(recipe(name), "meta", BF16, batch=2, picked=picked)


@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize("position", ["rope-attention", "sincos", "learned"])
def test_bytes_follow_the_way_positions_are_told(position: Any) -> None:
    made = recipe("layerlock-multi-tiny")
    assert_measured(replace(made, model=replace(made.model, position=position, final_norm=True)), "meta", BF16)


class Live(TorchDispatchMode):
    """Counts the bytes of all storages that operators return, as long as they live: `live` now, `peak` the most."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.sizes: dict[int, int] = {}

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.sizes:
            self.sizes[storage._cdata] = storage.nbytes()
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            finalize(storage, self.remove, storage._cdata)

    def remove(self, where: int) -> None:
        self.live -= self.sizes.pop(where)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self.add(tensor)
        return out


@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize(
    ("name", "micro", "accumulate", "recompute"),
    [
        ("layerlock-tiny", 32, 1, False),
        ("layerlock-tiny", 32, 2, False),
        ("live-latents-tiny", 16, 1, False),
        ("videomae-small", 16, 1, False),
        ("vjepa-layerlock-tiny", 24, 1, False),
        ("blockwise-sequential-tiny", 16, 1, False),
        ("deep-supervision-tiny", 16, 1, False),
        ("vit-g-250m-freeze", 64, 1, False),
        ("vit-g-250m-freeze", 64, 2, False),
        ("vit-g-250m-freeze", 64, 1, True),
        ("vit-b-50m-layerlock", 16, 1, False),
    ],
)
def test_the_peak_is_that_of_all_that_lives(name: str, micro: int, accumulate: int, recompute: bool) -> None:
    made = recipe(name)
    made = replace(
        made,
        batch=micro * accumulate,
        optim=replace(made.optim, accumulate=accumulate),
        run=replace(made.run, recompute=recompute),
    )
    stages = [stage for _, stage in timeline(made.build_plan(), made.steps)]
    for stage in (stages[0], stages[-1]):
        with torch.device("meta"):
            learner = Learner(
                made.model, made.grid, made.masking, made.decoder, stage, compute=BF16, recompute=recompute
            )
            moments = [torch.empty_like(p) for p in learner.live().values() for _ in range(2)]
        live = Live()
        for tensor in (*learner.parameters(), *moments):
            live.add(tensor)
        with live:
            for _ in range(accumulate):
                shape = (micro, made.clip.frames, 3, made.clip.size, made.clip.size)
                learner.step(torch.empty(shape, dtype=torch.uint8, device="meta"), torch.arange(micro))
        budget = stage_budget(made, stage, 0, 1, Machine(device=DEVICES["h100"]))
        assert budget.peak == pytest.approx(live.peak, rel=0.05), f"{stage.frozen} frozen"


@pytest.mark.parametrize("name", ["layerlock-tiny", "live-latents-tiny", "blockwise-tiny", "vjepa-layerlock-tiny"])
def test_flops_of_recomputation_are_the_counters(name: str) -> None:
    made = recipe(name)
    stages = [stage for _, stage in timeline(made.build_plan(), made.steps)]
    with torch.device("meta"):
        learner = Learner(made.model, made.grid, made.masking, made.decoder, stages[0])
        video = torch.empty(1, made.clip.frames, 3, made.clip.size, made.clip.size, dtype=torch.uint8)
    for stage in stages:
        learner.enter(stage)
        found = []
        for recompute in (False, True):
            learner.recompute = recompute
            for network in learner.networks.values():
                setattr(network, "recompute", recompute)  # noqa: B010 - that of the model alone has it
            with FlopCounterMode(display=False) as counter:
                learner.step(video, torch.arange(1))
            learner.zero_grad()
            found.append(counter.get_total_flops())
        once, twice = found
        cost = made.cost(stage)
        assert cost.recomputed / cost.total == pytest.approx(twice / once - 1, rel=0.05)
