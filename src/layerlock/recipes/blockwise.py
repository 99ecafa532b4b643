"""Blockwise learning of video transformers (Roemer and Dickscheid, arXiv 2601.09040), its baselines and controls."""

from __future__ import annotations

from dataclasses import replace

from layerlock.config import Config, OptimConfig, RunConfig
from layerlock.data.clips import ClipConfig
from layerlock.encoders.videomae_weights import IMAGENET_MEAN, IMAGENET_STD
from layerlock.learn.masking import TubeMasking
from layerlock.learn.plans import Blockwise
from layerlock.model.separate import SeparateDecoding
from layerlock.model.sizes import vit
from layerlock.recipes.record import Recipe

VIDEOS = 9_537
"""of UCF101's first training split"""
BATCH = 64
WARMUP = 0.05
"""of each cycle of the learning rate"""

# what follows `blockwise-deit-`: size, epochs
SIZES = {"tiny": ("Ti", 150), "small": ("S", 300)}


def _config(name: str, size: str, epochs: int, plan: Blockwise) -> Config:
    """16 x 128 x 128 at stride 4, tubelets 8 x 16 x 16, 90 % of the tubes masked; `epochs` of UCF101 in all."""
    cycles = plan.parts if plan.regime == "sequential" else 1
    return Config(
        recipe=name,
        data="ucf101",
        steps=round(epochs * VIDEOS / BATCH),
        batch=BATCH,
        clip=ClipConfig(frames=16, stride=4, size=128, resize=1.15, flip=True),
        model=vit(
            size,
            patch=(8, 16, 16),
            position="sincos",
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            gelu="exact",
            final_norm=True,
        ),
        masking=TubeMasking(keep=0.1),
        decoder=SeparateDecoding(width=192, depth=4, heads=3, mlp=768),
        plan=plan,
        optim=OptimConfig(
            lr=1e-4, warmup=WARMUP / cycles, cycles=cycles, mini_warmup=0.0, weight_decay=0.05, betas=(0.9, 0.95)
        ),
        run=RunConfig(workers=8, log_every=50, checkpoint_every=1_000),
    )


FOUR = Blockwise(parts=4)
SEQUENTIAL = replace(FOUR, regime="sequential")
DECIDED = (
    "The batch size of the paper is not known; here it is 64.",
    "Warm-up takes the first 5 % of the steps; AdamW betas are (0.9, 0.95); crops and flips are those of LayerLock;"
    " pixels are normalised as in VideoMAE.",
)
RESTARTS = ("Each stage has its own warm-up and cosine decay, like a separate run.",)
# what follows the size: plan, how often the epochs are gone through, what it is, decisions beside the shared ones
ROWS: tuple[tuple[str, Blockwise, int, str, tuple[str, ...]], ...] = (
    ("", FOUR, 1, "four parts at once, no gradient between them", ()),
    ("-k6", replace(FOUR, parts=6), 1, "six parts at once, no gradient between them", ()),
    ("-sequential", SEQUENTIAL, 4, "four parts one after the other, all epochs for each", RESTARTS),
    (
        "-sequential-matched",
        SEQUENTIAL,
        1,
        "four parts one after the other, the epochs divided among them: as many passes over the data as end to end",
        (*RESTARTS, "Not in the paper: this separates the effect of the training order from that of the budget."),
    ),
    ("-end-to-end", replace(FOUR, regime="end-to-end"), 1, "one loss at the end: the baseline", ()),
    (
        "-deep-supervision",
        replace(FOUR, regime="deep-supervision"),
        1,
        "four losses, gradients through all blocks: the control",
        ("Not in the paper: this separates the effect of the losses' places from that of the stopped gradients.",),
    ),
)
GAPS = {"tiny": "0.02 (mAP: 0.015)", "small": "0.04 (mAP: 0.02)"}


def _row(deit: str, ending: str, plan: Blockwise, times: int, about: str, decided: tuple[str, ...]) -> Recipe:
    size, epochs = SIZES[deit]
    published = ending in ("", "-k6", "-sequential")
    return Recipe(
        config=_config(f"blockwise-deit-{deit}{ending}", size, epochs * times, plan),
        about=f"Blockwise learning, DeiT-{deit.title()}: {about}",
        source="Blockwise learning (arXiv 2601.09040)",
        reaches=f"a linear probe within {GAPS[deit]} of end to end" if published else "",
        decided=(*DECIDED, *decided),
    )


RECIPES = tuple(_row(deit, *row) for deit in SIZES for row in ROWS)
