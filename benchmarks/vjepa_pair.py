"""A training step of V-JEPA twice: ours, and one built from transformers' VJEPA2 layers.

Their own model encodes all tokens and hides some afterwards; here their layers run on the gathered context alone, as
V-JEPA trains, with a teacher that is averaged in one call. Masks, sizes and loss are the same. Weights are each
side's own: theirs turn queries and keys in every layer, ours add learned positions once (`rotate=False` leaves their
turns out, so that what is left is the same work).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from measure import random_clips
from sides import Geometry, Side, adamw, autocast
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import VJEPA2Config, VJEPA2Model
from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2RopeAttention, apply_masks

from layerlock.config import Config, RunConfig
from layerlock.data import ClipConfig
from layerlock.learn.learner import Learner
from layerlock.learn.masking import Masks, MultiBlockMasking
from layerlock.learn.plans import JointEmbedding
from layerlock.model.separate import SeparateDecoding
from layerlock.model.vit import ViTConfig
from layerlock.train.device import pick_precision
from layerlock.train.loop import build_learner

GEOMETRIES = {
    "base": Geometry(width=768, depth=12, heads=12, size=224, decoder_width=384, decoder_depth=12, decoder_heads=12),
    "small": Geometry(width=384, depth=12, heads=6, size=112, decoder_width=192, decoder_depth=6, decoder_heads=6),
}
EMA = 0.998


def sides(geometry: Geometry, batch: int, run: RunConfig, device: torch.device) -> dict[str, Side]:
    """Ours, and theirs with and without rotations, by name."""
    config = config_of(geometry, batch, run)
    learner = build_learner(config, device, config.build_plan().stage(0, ()))
    video_btchw, index_b = random_clips(config, device)
    ours = Side(
        lambda: learner.step(video_btchw, index_b),
        adamw(learner.live().values()),
        learner,
        lambda: learner.after_step(EMA),
    )
    (masks,) = config.masking.draw(learner.seed, index_b, learner.vit.grid)
    compute = pick_precision(run, device)
    found = {"ours": ours}
    for name, rotate in (("theirs", True), ("theirs, not rotated", False)):
        torch.manual_seed(0)
        theirs = TheirStep(geometry, learner, masks, rotate=rotate).to(device).train()
        found[name] = their_side(theirs, video_btchw / 255, compute)
    return found


def config_of(geometry: Geometry, batch: int, run: RunConfig) -> Config:
    """V-JEPA as in Table 9 of LayerLock: 8 blocks of 0.3, a teacher, absolute errors."""
    decoder = SeparateDecoding(
        width=geometry.decoder_width,
        depth=geometry.decoder_depth,
        heads=geometry.decoder_heads,
        mlp=4 * geometry.decoder_width,
    )
    return Config(
        batch=batch,
        clip=ClipConfig(frames=geometry.frames, size=geometry.size),
        model=ViTConfig(
            width=geometry.width,
            depth=geometry.depth,
            heads=geometry.heads,
            mlp=4 * geometry.width,
            position="learned",
            gelu="exact",
            final_norm=True,
        ),
        masking=MultiBlockMasking(),
        decoder=decoder,
        plan=JointEmbedding(),
        run=run,
    )


class TheirStep(nn.Module):
    """Context encoder, predictor and teacher of their layers; returns the loss of `[B, T, 3, H, W]` clips in [0, 1]."""

    def __init__(self, geometry: Geometry, learner: Learner, masks: Masks, *, rotate: bool) -> None:
        super().__init__()
        model = VJEPA2Model(
            VJEPA2Config(
                patch_size=learner.vit.config.patch[1],
                tubelet_size=learner.vit.config.patch[0],
                crop_size=geometry.size,
                frames_per_clip=geometry.frames,
                hidden_size=geometry.width,
                num_hidden_layers=geometry.depth,
                num_attention_heads=geometry.heads,
                pred_hidden_size=geometry.decoder_width,
                pred_num_hidden_layers=geometry.decoder_depth,
                pred_num_attention_heads=geometry.decoder_heads,
                pred_num_mask_tokens=1,
            )
        )
        self.encoder, self.predictor = model.encoder, model.predictor
        self.teacher = copy.deepcopy(model.encoder).requires_grad_(False)
        self.register_buffer("context_bk", masks.context_bk, persistent=False)
        self.register_buffer("predicted_bq", masks.predicted_bq, persistent=False)
        if not rotate:
            for module in self.modules():
                if isinstance(module, VJEPA2RopeAttention):
                    module.apply_rotary_embeddings = lambda part, positions: part

    def forward(self, video_btchw: Tensor) -> Tensor:
        x_bkd = apply_masks(self.encoder.embeddings(video_btchw), [self.context_bk])
        for layer in self.encoder.layer:
            x_bkd = layer(x_bkd, self.context_bk)[0]
        predicted_bqd = self.predict(self.encoder.layernorm(x_bkd))
        with torch.no_grad():
            h_bnd = self.teacher(video_btchw).last_hidden_state
            target_bnd = F.layer_norm(h_bnd.float(), h_bnd.shape[-1:])
            target_bqd = apply_masks(target_bnd, [self.predicted_bq])
        return F.l1_loss(predicted_bqd.float(), target_bqd)

    def predict(self, x_bkd: Tensor) -> Tensor:
        """Their predictor, which would gather the context a second time, without its sorting."""
        y, position_bn = self.predictor.embeddings(x_bkd, [self.context_bk], [self.predicted_bq])
        for layer in self.predictor.layer:
            y = layer(y, position_bn)[0]
        return self.predictor.proj(self.predictor.layernorm(y)[:, x_bkd.shape[1] :])

    @torch.no_grad()
    def follow(self) -> None:
        """The teacher's average."""
        torch._foreach_lerp_(list(self.teacher.parameters()), list(self.encoder.parameters()), 1 - EMA)


def their_side(model: TheirStep, clips: Tensor, compute: torch.dtype) -> Side:
    """Their step on clips that are floats already."""

    def loss() -> Any:
        with autocast(clips.device, compute):
            found = model(clips)
        found.backward()
        return found.detach()

    live = [p for p in model.parameters() if p.requires_grad]
    return Side(loss, adamw(live), model, model.follow)
