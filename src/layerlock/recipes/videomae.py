"""VideoMAE on Kinetics-400 (arXiv 2203.12602), in the layout of the published weights (`layerlock.encoders`).

Settings are those of the paper and of the training scripts that its authors published.
"""

from __future__ import annotations

from layerlock.config import Config, OptimConfig, RunConfig
from layerlock.data.clips import ClipConfig
from layerlock.encoders.videomae_weights import IMAGENET_MEAN, IMAGENET_STD
from layerlock.learn.masking import TubeMasking
from layerlock.learn.plans import Progressive
from layerlock.model.separate import SeparateDecoding
from layerlock.model.sizes import vit
from layerlock.recipes.record import Recipe

VIDEOS = 240_000
"""of Kinetics-400's training set, as the paper counts them"""
EPOCHS = 1_600
WARMUP_EPOCHS = 40


def _videomae(name: str, size: str, batch: int) -> Config:
    """16 x 224 x 224 at stride 4, 90 % of the tubes masked; the decoder has half the encoder's width and heads."""
    encoder = vit(size)
    return Config(
        recipe=name,
        data="kinetics-400",
        steps=VIDEOS * EPOCHS // batch,
        batch=batch,
        clip=ClipConfig(frames=16, stride=4, size=224, flip=False, area=(0.33, 0.75), aspect=(6 / 7, 7 / 6)),
        model=vit(
            size,
            patch=(2, 16, 16),
            position="sincos-1d",
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            gelu="exact",
            norm_eps=1e-12,
            key_bias=False,
            final_norm=True,
        ),
        masking=TubeMasking(keep=0.1),
        decoder=SeparateDecoding(
            width=encoder.width // 2,
            depth=4,
            heads=encoder.heads // 2,
            mlp=encoder.width * 2,
            position="sincos-1d",
            norm_eps=1e-12,
            final_norm_eps=1e-5,
            key_bias=False,
            input_bias=False,
        ),
        plan=Progressive(masked=True, patches="normalized"),
        optim=OptimConfig(
            lr=1.5e-4 * batch / 256,
            start_lr=1e-6 * batch / 256,
            end_lr=1e-5 * batch / 256,
            warmup=WARMUP_EPOCHS / EPOCHS,
            weight_decay=0.05,
            betas=(0.9, 0.95),
        ),
        run=RunConfig(workers=16, log_every=50, checkpoint_every=1_000, keep=3),
    )


DECIDED = (
    "1,600 epochs of 240,000 videos; batch and learning rates (scaled with the batch) follow the published script.",
    "Crops are random rectangles with 33 to 75 % of the frame's area; the original's are square or nearly so, with"
    " sides of 0.66 to 1 of the short side. No flips.",
    "LayerNorm's epsilon is 1e-12, as in transformers; the authors' code has 1e-6.",
)

RECIPES = (
    Recipe(
        config=_videomae("videomae-s", "S", 1_024),
        about="VideoMAE, ViT-S: normalised pixels of masked tubes",
        source="VideoMAE (arXiv 2203.12602), Kinetics-400, 1,600 epochs",
        reaches="Kinetics-400 79.0 after fine-tuning",
        decided=DECIDED,
    ),
    Recipe(
        config=_videomae("videomae-b", "B", 2_048),
        about="VideoMAE, ViT-B: normalised pixels of masked tubes",
        source="VideoMAE (arXiv 2203.12602), Kinetics-400, 1,600 epochs",
        reaches="Kinetics-400 81.5 after fine-tuning",
        decided=DECIDED,
    ),
)
