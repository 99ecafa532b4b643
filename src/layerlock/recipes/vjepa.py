"""V-JEPA with and without LayerLock: Table 9 of the LayerLock paper (arXiv 2509.10156), results in its Table 1."""

from __future__ import annotations

from dataclasses import replace

from layerlock.config import Config, OptimConfig, RunConfig
from layerlock.data.clips import ClipConfig
from layerlock.learn.masking import MultiBlockMasking, SeveralMaskings
from layerlock.learn.plans import JointEmbedding
from layerlock.model.separate import SeparateDecoding
from layerlock.model.sizes import vit
from layerlock.recipes.four_ds import MINI_WARMUP, SWITCH
from layerlock.recipes.record import Recipe, freezing

STEPS = 262_501
MASKING = MultiBlockMasking(blocks=8, area=(0.3, 0.3), aspect=(0.75, 1.5))
LAST = JointEmbedding()
LADDER = JointEmbedding(climb=True, **freezing(STEPS, start=100_000, interval=6_000, last=24))


def _table_9(name: str, plan: JointEmbedding, masking: MultiBlockMasking | SeveralMaskings = MASKING) -> Config:
    """560 M clips of Kinetics-700, 16 x 224 x 224 at stride 4; ViT-L, learned positions, float32."""
    encoder = vit("L", patch=(2, 16, 16), position="learned", gelu="exact", final_norm=True)
    return Config(
        recipe=name,
        data="kinetics-700",
        steps=STEPS,
        batch=2048,
        clip=ClipConfig(frames=16, stride=4, size=224, resize=1.15, flip=True, jitter=0.8),
        first_weights="normal",
        model=encoder,
        masking=masking,
        decoder=SeparateDecoding(
            width=384,
            depth=12,
            heads=encoder.heads,
            mlp=1536,
            position="learned",
            mask_tokens=len(masking.masks) if isinstance(masking, SeveralMaskings) else 1,
            zero_tokens=True,
        ),
        plan=plan,
        optim=OptimConfig(
            lr=4.17e-4,
            start_lr=1.3e-4,
            end_lr=6.6e-7,
            warmup=90_000 / STEPS,
            mini_warmup=MINI_WARMUP / STEPS,
            weight_decay=0.04,
            end_weight_decay=0.4,
            decay_tokens=True,
            teacher_decay=0.998,
            betas=(0.9, 0.999),
        ),
        run=RunConfig(precision="fp32", workers=16, log_every=50, checkpoint_every=1_000, keep=3),
    )


DECIDED = (
    "AdamW betas are those of the original V-JEPA, (0.9, 0.999). Its gradient clipping is not in Table 9 and not used.",
    "The predictor has 16 heads, as the encoder and the original code, and learned positions, as the encoder.",
    "Initial weights follow the original models: normal with standard deviation 0.02, output projections of block l"
    " divided by sqrt(2 l), mask tokens zero. Weight decay applies to mask tokens, as in the original.",
    "Colour jitter is that of Table 12, applied with probability 0.8.",
    "The teacher's decay is 0.998 throughout: Table 9 gives one number.",
)

RECIPES = (
    Recipe(
        config=_table_9("vjepa-l", LAST),
        about="V-JEPA, ViT-L: predicts the last layer of an averaged teacher",
        source="LayerLock Table 9; Table 1 row 5",
        reaches="SSv2 52.1, Kinetics-700 42.5, ScanNet 0.157",
        decided=DECIDED,
    ),
    Recipe(
        config=_table_9("vjepa-l-layerlock", LADDER),
        about="V-JEPA with LayerLock: one more block frozen every 6k steps from step 100k on, all 24 from step 238k on",
        source="LayerLock Table 9; Table 1 row 6",
        reaches="SSv2 57.0, Kinetics-700 43.5, ScanNet 0.151",
        decided=(*DECIDED, SWITCH, "The first switch keeps the target, the teacher's first layer, and its head."),
    ),
    Recipe(
        config=_table_9("vjepa-l-layerlock-own", replace(LADDER, teacher=False)),
        about="V-JEPA with LayerLock, without a teacher: targets are the model's own layers",
        source="LayerLock Table 9; section A.2",
        reaches="less than with a teacher, without collapse",
        decided=(
            *DECIDED[:-1],
            SWITCH,
            "Until the first switch the target is the model's own first layer, in training; the switch keeps its head.",
        ),
    ),
    Recipe(
        config=_table_9("vjepa-l-two-masks", LAST, SeveralMaskings()),
        about="V-JEPA with two masks per clip, as in the original: 8 blocks of 15 % and 2 of 70 %",
        source="V-JEPA (arXiv 2404.08471), otherwise LayerLock Table 9",
        decided=(
            *DECIDED,
            "Each clip is encoded once per mask. Each mask has its own mask token; the losses are averaged.",
        ),
    ),
)
