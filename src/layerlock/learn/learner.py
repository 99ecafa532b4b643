"""The one learner: clip -> masking -> encoder -> decoder -> head -> loss <- target, as the Stage in force says.

It owns its backward, so that a plan that detaches its taps frees each stretch's graph before the next is built. It
never clips, steps or logs: that is the loop's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerlock import draws
from layerlock.learn.decoders import BackboneDecoder, BackboneDecoding
from layerlock.learn.masking import RandomMasking, random_subset
from layerlock.learn.plan import Stage, Tap
from layerlock.model.patches import Grid, gather_tokens, patchify
from layerlock.model.position import Rotation
from layerlock.model.vit import Dense, ViT, ViTConfig, initialize


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a tap predicted and what it should have: `[B, Q, P or D]` both, at `positions_bq` (None: all, in order)."""

    tap: Tap
    predicted: Tensor
    target: Tensor
    positions_bq: Tensor | None

    def loss(self) -> Tensor:
        """Mean squared error in float32 (LayerLock section 3.1)."""
        return F.mse_loss(self.predicted.float(), self.target)

    def target_variance(self) -> Tensor:
        """Variance of the target over clips and tokens, averaged over its dimensions: 0 when all targets are one
        vector.
        """
        return self.target.float().flatten(0, 1).var(dim=0, unbiased=False).mean()


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What all parts of a pass share: a clip's patches, the context's positions, the subset for latent losses."""

    patches_bnp: Tensor
    context_bk: Tensor
    rotation: Rotation | None
    """of the context's tokens"""
    subset_bq: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Group:
    """The predictions of all taps at one depth. `closed`: their gradients end here, so backward can run at once."""

    predictions: tuple[Prediction, ...]
    features_bkd: Tensor
    closed: bool


@dataclass(frozen=True, kw_only=True)
class StepFigures:
    """Figures of one micro-batch, on its device: losses by the stage's labels; the rest only where asked for."""

    losses: dict[str, Tensor]
    target_variance: dict[str, Tensor]
    features_bkd: Tensor | None


class Learner(nn.Module):
    """A backbone, a decoder and the heads of the stage in force.

    `enter(stage)` is the only place where structure changes; `step` accumulates gradients and returns figures.
    """

    def __init__(
        self,
        model: ViTConfig,
        grid: Grid,
        masking: RandomMasking,
        decoding: BackboneDecoding,
        *,
        seed: int = 0,
        compute: torch.dtype = torch.float32,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.vit = ViT(model, grid)
        self.vit.compute = compute
        self.masking, self.seed, self.recompute = masking, seed, recompute
        self.decoder = BackboneDecoder(decoding, self.vit)
        self.heads = nn.ModuleDict()
        self.stage: Stage | None = None
        initialize(self, draws.generator(seed, "weights"))

    # --- structure -------------------------------------------------------------------------------------------------

    def enter(self, stage: Stage) -> None:
        """Freezes and casts the prefix, drops old heads, adds new ones. What is live stays the same tensor."""
        self.stage = stage
        frozen: list[nn.Module] = [self.vit.embed, *self.vit.blocks[: stage.frozen]] if stage.frozen else []
        for module in frozen:
            freeze(module, self.vit.compute)
        if isinstance(self.vit.position, nn.Parameter):
            self.vit.position.requires_grad_(stage.frozen == 0)
        if self.decoder.token is not None:
            self.decoder.token.requires_grad_(stage.frozen <= self.decoder.first)
        for number, block in enumerate(self.vit.blocks[stage.frozen :], stage.frozen):
            block.requires_grad_(number < stage.last)
        self._rebuild_heads(stage)

    def _rebuild_heads(self, stage: Stage) -> None:
        old, self.heads = self.heads, nn.ModuleDict()
        for tap in stage.taps:
            name = head_name(tap)
            self.heads[name] = old[name] if name in old else self._new_head(name, tap)

    def _new_head(self, name: str, tap: Tap) -> Dense:
        out = self.vit.config.width if tap.target.layer else self.vit.config.patch_values
        head = Dense(self.vit.config.width, out, device=self.vit.embed.weight.device)
        initialize(head, draws.generator(self.seed, f"head/{name}"))
        return head

    def live(self) -> dict[str, nn.Parameter]:
        """The parameters that the stage in force trains, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    # --- one step --------------------------------------------------------------------------------------------------

    def step(self, video_btchw: Tensor, index_b: Tensor, *, scale: float = 1.0, watch: bool = False) -> StepFigures:
        """Adds `scale` times the gradients of this micro-batch's loss; `watch` also returns features and variances.

        `video_btchw` is uint8 or in [0, 1]; `index_b` are global sample indices, from which all masks are drawn.
        """
        stage = self.stage
        assert stage is not None, "enter a stage first"
        losses: dict[str, Tensor] = {}
        variance: dict[str, Tensor] = {}
        pending: Tensor | None = None
        features = None
        for group in self.groups(video_btchw, index_b):
            for prediction in group.predictions:
                loss = prediction.loss()
                losses[stage.label(prediction.tap)] = loss.detach()
                pending = loss if pending is None else pending + loss
                if watch:
                    variance[stage.label(prediction.tap)] = prediction.target_variance()
            if group.closed and pending is not None:
                (pending * scale).backward()
                pending = None
            features = group.features_bkd.detach() if watch else None
        return StepFigures(losses=losses, target_variance=variance, features_bkd=features)

    def groups(self, video_btchw: Tensor, index_b: Tensor) -> Iterator[Group]:
        """Runs the model and yields the predictions depth by depth, shallow first."""
        stage = self.stage
        assert stage is not None, "enter a stage first"
        tokens = self.vit.tokens
        context_bk = self.masking.context(self.seed, index_b, tokens)
        seen = Seen(
            patches_bnp=patchify(video_btchw, self.vit.config.patch),
            context_bk=context_bk,
            rotation=self.vit.rotation(context_bk),
            subset_bq=self._subset(stage, index_b),
        )
        x, latents = self._prefix(stage, seen)
        at = stage.frozen
        depths = sorted({tap.depth for tap in stage.taps})
        for depth in depths:
            taps = [tap for tap in stage.taps if tap.depth == depth]
            x = self.vit.run(x, seen.rotation, at, depth, recompute=self.recompute)
            at = max(at, depth)
            closed = depth == depths[-1] or taps[0].detach
            yield Group(predictions=self._predict(taps, x, seen, latents), features_bkd=x, closed=closed)
            x = x.detach() if closed else x

    def _subset(self, stage: Stage, index_b: Tensor) -> Tensor | None:
        fractions = {tap.fraction for tap in stage.taps if tap.fraction < 1}
        if not fractions:
            return None
        count = max(1, round(self.vit.tokens * fractions.pop()))
        return random_subset(self.seed, "latent subset", index_b, self.vit.tokens, count)

    def _prefix(self, stage: Stage, seen: Seen) -> tuple[Tensor, dict[int, Tensor]]:
        """Context through the frozen blocks and the latent targets by layer, block by block together.

        Targets never have a graph, and see the subset alone unless a tap wants the full clip.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and stage.frozen == 0):
            x = self.vit.project(gather_tokens(seen.patches_bnp, seen.context_bk), seen.context_bk)
        frozen = min([stage.frozen, *(tap.depth for tap in stage.taps)])
        wanted = {tap.target.layer for tap in stage.taps}
        full = seen.subset_bq is None or any(tap.full_clip for tap in stage.taps)
        kept_bq = None if full else seen.subset_bq
        latents: dict[int, Tensor] = {}
        with torch.no_grad():
            if stage.target_depth:
                h = self.vit.project(self._at(kept_bq, seen.patches_bnp), kept_bq)
            rotation = self.vit.rotation(kept_bq) if stage.target_depth else None
            for depth in range(1, max(frozen, stage.target_depth) + 1):
                if depth <= frozen:
                    x = self.vit.run(x, seen.rotation, depth - 1, depth)
                if depth <= stage.target_depth:
                    h = self.vit.run(h, rotation, depth - 1, depth)
                    if depth in wanted:
                        latents[depth] = self._at(seen.subset_bq, h) if full else h
        return x, latents

    @staticmethod
    def _at(index_bq: Tensor | None, x_bnd: Tensor) -> Tensor:
        return x_bnd if index_bq is None else gather_tokens(x_bnd, index_bq)

    def _predict(
        self, taps: list[Tap], x_bkd: Tensor, seen: Seen, latents: dict[int, Tensor]
    ) -> tuple[Prediction, ...]:
        """Decodes once for all taps of a depth: at the subset's positions alone where no tap needs all."""
        assert self.stage is not None
        query_bq = seen.subset_bq if all(tap.fraction < 1 for tap in taps) else None
        y_bqd = self.decoder(
            self.vit, x_bkd, seen.rotation, query_bq, frozen=self.stage.frozen, recompute=self.recompute
        )
        found = []
        for tap in taps:
            positions_bq = seen.subset_bq if tap.fraction < 1 else None
            decoded = self._at(positions_bq, y_bqd) if query_bq is None else y_bqd
            target = latents[tap.target.layer].float() if tap.target.layer else self.vit.normalize(seen.patches_bnp)
            predicted = self.heads[head_name(tap)](decoded)
            found.append(Prediction(tap=tap, predicted=predicted, target=target, positions_bq=positions_bq))
        return tuple(found)


def head_name(tap: Tap) -> str:
    """Heads are kept as long as their depth and target are."""
    return f"{tap.target.name}_at_{tap.depth}"


def freeze(module: nn.Module, compute: torch.dtype) -> None:
    """No gradients, and dense weights kept from now on in the type they are computed in. Idempotent."""
    module.requires_grad_(False)
    for part in module.modules():
        if isinstance(part, Dense):
            part.to(compute)
    for parameter in module.parameters():
        parameter.grad = None
