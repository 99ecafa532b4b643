"""A training step of VideoMAE twice: ours, and transformers' VideoMAEForPreTraining with the same weights and masks."""

from __future__ import annotations

from typing import Any

import torch
from measure import random_clips
from sides import Geometry, Side, adamw, autocast
from torch import Tensor, nn
from transformers import VideoMAEConfig, VideoMAEForPreTraining

from layerlock.config import Config, OptimConfig, RunConfig
from layerlock.data import ClipConfig
from layerlock.encoders.videomae_weights import Weights, fields_of, separate_decoding, to_transformers, vit_config
from layerlock.learn.learner import Learner
from layerlock.learn.masking import TubeMasking
from layerlock.learn.plans import Progressive
from layerlock.train.device import pick_precision
from layerlock.train.loop import build_learner

GEOMETRIES = {
    # VideoMAE-B as published (arXiv 2203.12602)
    "base": Geometry(width=768, depth=12, heads=12, size=224, decoder_width=384, decoder_depth=4, decoder_heads=6),
    "small": Geometry(width=384, depth=12, heads=6, size=112, decoder_width=192, decoder_depth=4, decoder_heads=3),
}


def sides(geometry: Geometry, batch: int, run: RunConfig, device: torch.device) -> dict[str, Side]:
    """Ours and theirs, by name. Theirs gets clips that are floats and normalised already, and its masks for nothing."""
    config = config_of(geometry, batch, run)
    learner = build_learner(config, device, config.build_plan().stage(0, ()))
    video_btchw, index_b = random_clips(config, device)
    theirs = their_model(learner, config, device)
    ours = Side(lambda: learner.step(video_btchw, index_b), adamw(learner.live().values()), learner)
    compute = pick_precision(run, device)
    return {"ours": ours, "theirs": their_side(theirs, learner, video_btchw, index_b, compute)}


def config_of(geometry: Geometry, batch: int, run: RunConfig) -> Config:
    """Tube masks that keep a tenth, normalised pixels of masked patches."""
    fields = VideoMAEConfig(
        image_size=geometry.size,
        num_frames=geometry.frames,
        hidden_size=geometry.width,
        num_hidden_layers=geometry.depth,
        num_attention_heads=geometry.heads,
        intermediate_size=4 * geometry.width,
        decoder_hidden_size=geometry.decoder_width,
        decoder_num_hidden_layers=geometry.decoder_depth,
        decoder_num_attention_heads=geometry.decoder_heads,
        decoder_intermediate_size=4 * geometry.decoder_width,
        use_mean_pooling=False,
    ).to_dict()
    return Config(
        batch=batch,
        clip=ClipConfig(frames=geometry.frames, size=geometry.size),
        model=vit_config(fields),
        masking=TubeMasking(keep=0.1),
        decoder=separate_decoding(fields),
        plan=Progressive(masked=True, patches="normalized"),
        optim=OptimConfig(),
        run=run,
    )


def their_model(learner: Learner, config: Config, device: torch.device) -> nn.Module:
    """Their model with the learner's weights."""
    fields = fields_of(learner.vit.config, config.decoder, frames=config.clip.frames, size=config.clip.size)
    model = VideoMAEForPreTraining(VideoMAEConfig(**fields))
    (decoder,), (head,) = learner.decoders.values(), learner.heads.values()
    weights = Weights(*(dict(part.state_dict()) for part in (learner.vit, decoder, head)))
    model.load_state_dict(to_transformers(weights, fields))
    return model.to(device).train()


def their_side(model: nn.Module, learner: Learner, video_btchw: Tensor, index_b: Tensor, compute: torch.dtype) -> Side:
    """Their step on the same clips and masks."""
    (masks,) = learner.masking.draw(learner.seed, index_b, learner.vit.grid)
    seen_bn = torch.zeros(len(index_b), learner.vit.tokens, dtype=torch.bool).scatter(1, masks.context_bk, True)
    masked_bn = ~seen_bn.to(video_btchw.device)
    mean, std = (torch.tensor(getattr(learner.vit.config, n), device=video_btchw.device) for n in ("mean", "std"))
    clips = (video_btchw / 255 - mean[:, None, None]) / std[:, None, None]

    def loss() -> Any:
        with autocast(clips.device, compute):
            found = model(clips, bool_masked_pos=masked_bn).loss
        found.backward()
        return found.detach()

    return Side(loss, adamw(model.parameters()), model)
