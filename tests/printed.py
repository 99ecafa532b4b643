"""A config in the units of the papers' tables: whatever a table can print, and the rest of what is learned."""

from __future__ import annotations

from typing import Any

from layerlock.config import Config
from layerlock.learn.decoders import BackboneDecoding
from layerlock.learn.masking import FutureMasking, Maskings, MultiBlockMasking, RandomMasking, SeveralMaskings
from layerlock.learn.plan import Stage, timeline, weights_of
from layerlock.learn.targets import FeatureTarget, PatchTarget
from layerlock.model.separate import SeparateDecoding


def printed(config: Config) -> dict[str, Any]:
    """Settings by the names of `paper_tables.ROWS`; a mini warm-up that nothing follows is None."""
    clip, model, optim, steps = config.clip, config.model, config.optim, config.steps
    plan = config.build_plan()
    stages = timeline(plan, steps)
    has_teacher = any("teacher" in stage.networks for _, stage in stages)
    factor = [weights_of(plan, step, ()) for step in (0, steps // 2, steps - 1)]
    return {
        "size": (model.width, model.depth, model.mlp, model.heads),
        "steps": steps,
        "batch": config.batch,
        "frames": clip.frames,
        "stride": clip.stride if clip.fps is None else f"{clip.fps} a second",
        "resolution": clip.size,
        "resize": clip.resize,
        "flip": clip.flip,
        "area": None if clip.area is None else (*clip.area, *clip.aspect),
        "jitter": clip.jitter,
        "grayscale": clip.grayscale,
        "patch": model.patch,
        "position": model.position,
        "rope": (model.rope_wavelength, *model.rope_fractions),
        "pixels": (model.mean, model.std),
        "block": (model.gelu, model.norm_eps, model.key_bias),
        "final norm": model.final_norm,
        "masking": masking(config.masking),
        "decoder": decoder(config),
        "mask tokens": mask_tokens(config),
        "first weights": config.first_weights,
        "heads": config.heads,
        "start lr": optim.start_lr,
        "lr": optim.lr,
        "end lr": optim.end_lr,
        "warmup": round(optim.warmup * steps),
        "mini warmup": round(optim.mini_warmup * steps),
        "falls over": optim.decay,
        "cycles": optim.cycles,
        "weight decay": ends(optim.weight_decay, optim.end_weight_decay),
        "betas": optim.betas if optim.name == "adamw" else (optim.name, optim.betas),
        "clip norm": optim.clip_norm,
        "ema": ends(optim.teacher_decay, optim.end_teacher_decay) if has_teacher else None,
        "precision": config.run.precision,
        "loss": losses([stage for _, stage in stages]),
        "factor": tuple(round(next(iter(each.values()), 1.0), 3) for each in factor) if any(factor) else None,
        "stages": [(begin, stage.frozen, stage.targets) for begin, stage in stages],
        "stops": any(tap.detach for _, stage in stages for tap in stage.taps),
        "both sides": any(stage.trains_targets for _, stage in stages),
    }


def ends(first: float, last: float | None) -> tuple[float, float]:
    """Where a schedule begins and ends."""
    return first, first if last is None else last


def masking(config: Maskings) -> Any:
    """Shares as the papers print them: what is masked, not what is kept."""
    if isinstance(config, SeveralMaskings):
        return [masking(each) for each in config.masks]
    if isinstance(config, MultiBlockMasking):
        return "blocks", config.blocks, config.area, config.aspect, config.group
    if isinstance(config, FutureMasking):
        return "future", config.past, config.keep, config.predict
    masked = round(1 - config.keep, 9)
    if isinstance(config, RandomMasking):
        some = () if config.predict is None else ("predicted", config.predict)
        some += () if config.keep_to is None else ("to", round(1 - config.keep_to, 9), config.group)
        return ("random", masked, *some, *(("masks", config.masks) if config.masks > 1 else ()))
    return ("tube", masked, *(() if config.predict == 1 else ("predicted", config.predict)))


def decoder(config: Config) -> tuple[Any, ...]:
    """Of the backbone's own blocks, what its tokens are: RoPE alone can be applied to a constant."""
    made = config.decoder
    if isinstance(made, BackboneDecoding):
        return "backbone", made.blocks, made.tokens if config.model.position == "rope" else "learned"
    assert isinstance(made, SeparateDecoding)
    shape = (made.width, made.depth, made.mlp, made.heads)
    block = (made.gelu, made.norm_eps, made.key_bias)
    return "separate", shape, made.position, block, made.final_norm_eps, made.input_bias, made.input_norm


def mask_tokens(config: Config) -> tuple[int, str, bool]:
    """How many, how they begin, whether they decay; of the backbone's own blocks, learned decoding tokens."""
    made = config.decoder
    separate = isinstance(made, SeparateDecoding)
    zero = separate and made.zero_tokens
    return made.mask_tokens if separate else 1, "zero" if zero else "random", config.optim.decay_tokens


def losses(stages: list[Stage]) -> tuple[Any, ...]:
    """What all losses of a run have in common; latent ones say which share of the patches they are on."""
    taps = [tap for stage in stages for tap in stage.taps]
    (error,), (masked,) = {tap.error for tap in taps}, {tap.masked for tap in taps}
    where = "masked" if masked else "everywhere"
    where += ", targets of the full clip" if any(tap.full_clip for tap in taps) else ""
    kinds = {tap.target.kind for tap in taps if isinstance(tap.target, PatchTarget)}
    fraction = min(tap.fraction for tap in taps)
    latent = {tap.target.normalized for tap in taps if isinstance(tap.target, FeatureTarget)}
    scaled = {tap.target.standardized for tap in taps if isinstance(tap.target, FeatureTarget)}
    moving = max(tap.motion_weight for tap in taps)
    normed = ["normalized"] if kinds == {"normalized"} else []
    normed += ["normed features"] if latent == {True} else []
    normed += ["standardized features"] if True in scaled else []
    return (error, where, fraction, *normed, *(["by motion", moving] if moving else []))
