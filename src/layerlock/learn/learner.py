"""The one learner: clip -> masking -> encoder -> decoder -> head -> loss <- target, as the Stage in force says.

It owns its backward, so that a plan that detaches its taps frees each stretch's graph before the next is built. It
never clips, steps or logs: that is the loop's.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerlock import draws
from layerlock.learn.decoders import BackboneDecoder, BackboneDecoding
from layerlock.learn.masking import Masking, Masks, move, random_subset
from layerlock.learn.networks import Foreign, Network, Own
from layerlock.learn.plan import Stage, Tap
from layerlock.learn.targets import MODEL, OWN, TEACHER, FeatureTarget, PatchTarget, Source, Target, change_weights
from layerlock.learn.teacher import Teacher
from layerlock.model.patches import Grid, gather_tokens, patchify
from layerlock.model.position import Rotation
from layerlock.model.separate import SeparateDecoder, SeparateDecoding
from layerlock.model.vit import Dense, FirstWeights, ViT, ViTConfig, compile_blocks, initialize

Decoding = BackboneDecoding | SeparateDecoding
"""the decoders that a config can name"""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a tap predicted and what it should have: `[B, Q, P or D]` both, at `positions_bq` (None: all, in order)."""

    tap: Tap
    predicted: Tensor
    target: Tensor
    weight_bq: Tensor | None
    """of each position's error; None: all 1"""
    positions_bq: Tensor | None
    decoded: Tensor
    """what the head was given, `[B, Q, W]`"""

    def loss(self) -> Tensor:
        """Mean of squares (LayerLock section 3.1), of absolute values (V-JEPA), or smooth between them, in float32; of
        weighted positions where the tap weights them.
        """
        error = {"squared": F.mse_loss, "absolute": F.l1_loss, "smooth": F.smooth_l1_loss}[self.tap.error]
        if self.weight_bq is None:
            return error(self.predicted.float(), self.target)
        return (error(self.predicted.float(), self.target, reduction="none").mean(-1) * self.weight_bq).mean()

    def moments(self) -> Tensor:
        """Mean, mean square and mean squared error of each dimension of the target, float64 `[3, P or D]`: those of
        several equal shares of the clips have as their mean those of all clips.
        """
        target_np = self.target.detach().float().flatten(0, 1)
        error_p = (self.predicted.detach().float().flatten(0, 1) - target_np).square().mean(0)
        variance_p, mean_p = torch.var_mean(target_np, dim=0, correction=0)
        return torch.stack([mean_p.double(), variance_p.double() + mean_p.double().square(), error_p.double()])


Latents = dict[Source, Tensor]
"""outputs of blocks that are targets, `[B, N or Q, D]`, by network and block; with a graph where a target wants one"""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What all parts of a pass share: a clip and its patches, the masks, the subset for latent losses."""

    video_btchw: Tensor
    patches_bnp: Tensor
    masks: Masks
    number: int
    """of the masks, among those of the clip"""
    rotation: Rotation | None
    """of the context's tokens"""
    subset_bq: Tensor | None
    subset_alone: bool
    """the target pass sees nothing but the subset"""


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
    moments: dict[str, Tensor]
    """`Prediction.moments`"""
    features_nd: Tensor | None
    """the deepest features that a loss is taken from, of all context tokens"""

    @property
    def target_variance(self) -> dict[str, Tensor]:
        """Variances of the targets over clips and tokens, averaged over their dimensions: 0 when all targets are one
        vector.
        """
        return {name: (m_3p[1] - m_3p[0].square()).clamp(min=0).mean() for name, m_3p in self.moments.items()}

    @property
    def explained(self) -> dict[str, Tensor]:
        """Shares of those variances that the predictions explain: 1 is all of it, 0 what the mean would do."""
        variance = self.target_variance
        return {name: 1 - m_3p[2].mean() / variance[name].clamp(min=1e-30) for name, m_3p in self.moments.items()}


class Learner(nn.Module):
    """A backbone, and the decoders, heads and teacher of the stage in force, from the first one on.

    `enter(stage)` is the only place where structure changes; `step` accumulates gradients and returns figures.
    `recompute`: blocks store no activations and run forward twice; `compiled`: each goes through `torch.compile`.
    `weights` are the backbone's first ones, by name, in place of those of the seed.
    """

    def __init__(
        self,
        model: ViTConfig,
        grid: Grid,
        masking: Masking,
        decoding: Decoding,
        stage: Stage,
        *,
        seed: int = 0,
        compute: torch.dtype = torch.float32,
        recompute: bool = False,
        compiled: bool = False,
        first_weights: FirstWeights = "xavier",
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.vit = ViT(model, grid)
        self.vit.compute = compute
        self.masking, self.decoding, self.seed = masking, decoding, seed
        self.recompute, self.compiled = recompute, compiled
        self.decoder = BackboneDecoder(decoding, self.vit) if isinstance(decoding, BackboneDecoding) else None
        self.decoders = nn.ModuleDict()
        self.heads = nn.ModuleDict()
        self.scales = nn.ParameterDict()
        self.new_heads: set[str] = set()
        """heads that nothing has been learned by or solved for yet"""
        self.teacher: Teacher | None = None
        self.networks: dict[str, Network] = {}
        self.first_weights = first_weights
        initialize(self, draws.generator(seed, "weights"), first_weights)
        if weights is not None:
            self.vit.load_state_dict(weights)
        self.enter(stage)

    # --- structure -------------------------------------------------------------------------------------------------

    def enter(self, stage: Stage) -> None:
        """Freezes and casts the prefix; drops decoders, heads and a teacher that are of no more use, adds new ones.

        What is live stays the same tensor.
        """
        self.stage = stage
        frozen: list[nn.Module] = [self.vit.embed, *self.vit.blocks[: stage.frozen]] if stage.frozen else []
        for module in frozen:
            freeze(module, self.vit.compute)
        if isinstance(self.vit.position, nn.Parameter):
            self.vit.position.requires_grad_(stage.frozen == 0)
        if self.decoder is not None and self.decoder.token is not None:
            self.decoder.token.requires_grad_(stage.frozen <= self.decoder.first)
        for number, block in enumerate(self.vit.blocks[stage.frozen :], stage.frozen):
            block.requires_grad_(number < stage.last)
        if self.vit.norm is not None:
            whole = len(self.vit.blocks)
            self.vit.norm.requires_grad_(stage.frozen < whole and any(tap.depth == whole for tap in stage.taps))
        self._rebuild_networks(stage)
        self._rebuild_decoders(stage)
        self._rebuild_heads(stage)
        if self.compiled:
            compile_blocks(self)

    def _rebuild_decoders(self, stage: Stage) -> None:
        if not isinstance(self.decoding, SeparateDecoding):
            return
        old, self.decoders = self.decoders, nn.ModuleDict()
        for depth in sorted({tap.depth for tap in stage.taps}):
            name = f"at_{depth}"
            shape = self.decoding.after(depth, self.vit.config)
            self.decoders[name] = old[name] if name in old else self._new_decoder(name, shape)

    def _new_decoder(self, name: str, decoding: SeparateDecoding) -> SeparateDecoder:
        decoder = SeparateDecoder(decoding, self.vit.config.width, self.vit.grid)
        initialize(decoder, draws.generator(self.seed, f"decoder/{name}"), self.first_weights)
        if decoding.zero_tokens:
            nn.init.zeros_(decoder.token)
        return decoder.to(self.vit.embed.weight.device)

    def _rebuild_heads(self, stage: Stage) -> None:
        old, self.heads = self.heads, nn.ModuleDict()
        scales, self.scales = self.scales, nn.ParameterDict()
        for tap in stage.taps:
            name = head_name(tap)
            self.heads[name] = old[name] if name in old else self._new_head(name, tap)
            if isinstance(tap.target, FeatureTarget) and tap.target.standardized:
                self.scales[name] = scales[name] if name in scales else self._new_scale(tap.target)
        self.new_heads = (self.new_heads | {name for name in self.heads if name not in old}) & set(self.heads)

    def _new_head(self, name: str, tap: Tap) -> Dense:
        model = self.vit.config
        width = self.decoding.width if isinstance(self.decoding, SeparateDecoding) else model.width
        head = Dense(width, self._target_width(tap.target), device=self.vit.embed.weight.device)
        initialize(head, draws.generator(self.seed, f"head/{name}"), self.first_weights)
        return head

    def _new_scale(self, target: FeatureTarget) -> nn.Parameter:
        """Mean and deviation of each dimension, until they are measured: `[2, D]`."""
        width = self._target_width(target)
        scale = torch.stack([torch.zeros(width), torch.ones(width)]).to(self.vit.embed.weight.device)
        return nn.Parameter(scale, requires_grad=False)

    def _target_width(self, target: Target) -> int:
        """Numbers at each position of what is predicted."""
        return self.vit.config.patch_values if isinstance(target, PatchTarget) else self.networks[target.network].width

    def _rebuild_networks(self, stage: Stage) -> None:
        """Keeps the networks that targets ask for still, makes those that are asked for now."""
        if TEACHER not in stage.networks:
            self.teacher = None
        elif self.teacher is None:
            self.teacher = Teacher(self.vit)
        self.networks = {name: self._network(name) for name in stage.networks}
        for network in self.networks.values():
            network.enter(self.vit, stage.frozen)

    def _network(self, name: str) -> Network:
        if name == MODEL:
            return Own(self.vit, recompute=self.recompute)
        if self.teacher is not None and name == TEACHER:
            return self.teacher
        frames = self.vit.grid[0] * self.vit.config.patch[0]
        return self.networks.get(name) or Foreign(name, frames, self.vit.grid, self.vit.compute)

    def live(self) -> dict[str, nn.Parameter]:
        """The parameters that the stage in force trains, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def state(self) -> dict[str, Tensor]:
        """All weights by name, those that a teacher shares with the model once: what a checkpoint holds."""
        return {name: parameter.detach() for name, parameter in self.named_parameters()}

    def after_step(self, decay: float) -> None:
        """What follows an optimizer step: a teacher keeps `decay` of its weights and takes the rest from the model."""
        for network in self.networks.values():
            network.after_step(self.vit, decay)

    # --- one step --------------------------------------------------------------------------------------------------

    def step(
        self,
        video_btchw: Tensor,
        index_b: Tensor,
        *,
        scale: float = 1.0,
        weights: Mapping[str, float] | None = None,
        watch: bool = False,
        backward: Callable[[Tensor], None] = Tensor.backward,
    ) -> StepFigures:
        """Adds `scale` times the gradients of this micro-batch's loss; `watch` also returns features and variances.

        `backward` is called with each part of that loss whose graph is whole, and may put the gradients elsewhere.
        `video_btchw` is uint8 or in [0, 1]; `index_b` are global sample indices, from which all masks are drawn: on the
        device where the indices are, best on the CPU, since some masks' sizes have to be read. A loss counts with its
        factor in `weights`, by its label; figures are without.
        """
        parts = self.masking.parts(index_b)
        figures = StepFigures(losses={}, moments={}, features_nd=None)
        for part in parts:
            share = len(index_b[part]) / len(index_b)
            latents: Latents = {}
            every = self.masking.draw(self.seed, index_b[part], self.vit.grid)
            for number, masks in enumerate(every):
                if self.stage.trains_targets:  # their graph is gone with the backward of the pass before
                    latents = {source: h for source, h in latents.items() if source[0] != MODEL}
                groups = self.groups(video_btchw[part], index_b[part], masks, latents, number)
                figures = self._learn(groups, figures, scale, share / len(every), weights or {}, watch, backward)
        return figures

    def _learn(
        self,
        groups: Iterator[Group],
        before: StepFigures,
        scale: float,
        share: float,
        weights: Mapping[str, float],
        watch: bool,
        backward: Callable[[Tensor], None],
    ) -> StepFigures:
        """Backward through the groups as they close; the figures `before` with `share` times those of this pass."""
        losses, moments = dict(before.losses), dict(before.moments)
        pending: Tensor | None = None
        features = None
        for group in groups:
            for prediction in group.predictions:
                label = self.stage.label(prediction.tap)
                loss = prediction.loss() * share
                losses[label] = losses.get(label, 0) + loss.detach()
                loss = loss * weights.get(label, 1.0)
                pending = loss if pending is None else pending + loss
                if watch:
                    moments[label] = moments.get(label, 0) + prediction.moments() * share
            if group.closed and pending is not None:
                backward(pending * scale)
                pending = None
            features = group.features_bkd.detach().flatten(0, 1) if watch else None
        if features is not None and before.features_nd is not None:
            features = torch.cat([before.features_nd, features])
        return StepFigures(losses=losses, moments=moments, features_nd=features)

    def groups(
        self,
        video_btchw: Tensor,
        index_b: Tensor,
        masks: Masks | None = None,
        latents: Latents | None = None,
        number: int = 0,
    ) -> Iterator[Group]:
        """Runs the model and yields the predictions depth by depth, shallow first.

        The clips are one of the masking's `parts`. Without `masks` they are the first that it draws; `number` says
        which they are. `latents` are targets of the same clips that are known already, and take those that are computed
        here.
        """
        stage = self.stage
        masks = (masks or self.masking.draw(self.seed, index_b, self.vit.grid)[0]).to(video_btchw.device)
        subset_bq = self._subset(stage, index_b)
        subset_bq = None if subset_bq is None else move(subset_bq, video_btchw.device)
        seen = Seen(
            video_btchw=video_btchw,
            patches_bnp=patchify(video_btchw, self.vit.config.patch),
            masks=masks,
            number=number,
            rotation=self.vit.rotation(masks.context_bk),
            subset_bq=subset_bq,
            subset_alone=subset_bq is not None and not any(tap.full_clip for tap in stage.taps),
        )
        latents = {} if latents is None else latents
        self._complete(latents, stage, seen)
        x = self._prefix(stage, seen)
        at = stage.frozen
        depths = sorted({tap.depth for tap in stage.taps})
        for depth in depths:
            taps = [tap for tap in stage.taps if tap.depth == depth]
            x = self.vit.run(x, seen.rotation, at, depth, recompute=self.recompute)
            at = max(at, depth)
            closed = depth == depths[-1] or taps[0].detach
            features = self.vit.norm_out(x) if depth == len(self.vit.blocks) else x
            yield Group(predictions=self._predict(taps, features, seen, latents), features_bkd=features, closed=closed)
            x = x.detach() if closed else x

    def _subset(self, stage: Stage, index_b: Tensor) -> Tensor | None:
        fractions = {tap.fraction for tap in stage.taps if tap.fraction < 1}
        if not fractions:
            return None
        count = max(1, round(self.vit.tokens * fractions.pop()))
        return random_subset(self.seed, "latent subset", index_b, self.vit.tokens, count)

    def _complete(self, latents: Latents, stage: Stage, seen: Seen) -> None:
        """Adds the latents that are not known yet, each network's in one pass.

        Targets have no graph but where a plan wants one, and see the subset alone unless a tap wants the full clip.
        """
        kept_bq = seen.subset_bq if seen.subset_alone else None
        for name, network in self.networks.items():
            blocks = [block for block in stage.blocks_of(name) if (name, block) not in latents]
            if not blocks:
                continue
            with torch.set_grad_enabled(torch.is_grad_enabled() and stage.trains_targets and name == MODEL):
                features = network.features(seen.video_btchw, seen.patches_bnp, blocks, kept_bq)
            latents |= {(name, block): h for block, h in features.items()}

    def _prefix(self, stage: Stage, seen: Seen) -> Tensor:
        """Context through the projection and the frozen blocks, without a graph where these are frozen."""
        context_bk = seen.masks.context_bk
        with torch.set_grad_enabled(torch.is_grad_enabled() and stage.frozen == 0):
            x = self.vit.project(gather_tokens(seen.patches_bnp, context_bk), context_bk)
            frozen = min([stage.frozen, *(tap.depth for tap in stage.taps)])
            return self.vit.run(x, seen.rotation, 0, frozen) if frozen else x

    @staticmethod
    def _at(index_bq: Tensor | None, x_bnd: Tensor) -> Tensor:
        return x_bnd if index_bq is None else gather_tokens(x_bnd, index_bq)

    def _predict(self, taps: list[Tap], x_bkd: Tensor, seen: Seen, latents: Latents) -> tuple[Prediction, ...]:
        """Decodes once for all taps of a depth: at fewer positions than all where no tap needs more."""
        places = [self._positions(tap, seen) for tap in taps]
        query_bq = places[0] if all(place is places[0] for place in places) else None
        y_bqd = self._decode(taps[0].depth, x_bkd, seen, query_bq)
        predictions = []
        for tap, positions_bq in zip(taps, places, strict=True):
            decoded = y_bqd if positions_bq is query_bq else self._at(positions_bq, y_bqd)
            predictions.append(
                Prediction(
                    tap=tap,
                    predicted=self.heads[head_name(tap)](decoded),
                    target=self._target(tap, seen, latents, positions_bq),
                    weight_bq=self._weights(tap, seen, positions_bq),
                    positions_bq=positions_bq,
                    decoded=decoded,
                )
            )
        return tuple(predictions)

    def _positions(self, tap: Tap, seen: Seen) -> Tensor | None:
        """Where a tap's loss is; None is everywhere."""
        if tap.masked:
            return seen.masks.predicted_bq
        return seen.subset_bq if tap.fraction < 1 else None

    def _decode(self, depth: int, x_bkd: Tensor, seen: Seen, query_bq: Tensor | None) -> Tensor:
        if self.decoder is None:
            decoder = self.decoders[f"at_{depth}"]
            features: Tensor = decoder(
                x_bkd, seen.masks.context_bk, query_bq, mask=seen.number, recompute=self.recompute
            )
            return features
        decoded: Tensor = self.decoder(
            self.vit, x_bkd, seen.rotation, query_bq, frozen=self.stage.frozen, recompute=self.recompute
        )
        return decoded

    def _weights(self, tap: Tap, seen: Seen, positions_bq: Tensor | None) -> Tensor | None:
        if not tap.motion_weight:
            return None
        return change_weights(self._at(positions_bq, seen.patches_bnp), self.vit.config.patch[0], tap.motion_weight)

    def _target(self, tap: Tap, seen: Seen, latents: Latents, positions_bq: Tensor | None) -> Tensor:
        """What a loss at `positions_bq` predicts, in float32; a constant, but where gradients go into it."""
        target = tap.target
        if isinstance(target, PatchTarget):
            return target.of(self._at(positions_bq, seen.patches_bnp), self.vit)
        features = [latents[source] for source in target.sources]
        value = target.of([h if seen.subset_alone else self._at(positions_bq, h) for h in features])
        if not target.standardized:
            return value
        mean_d, deviation_d = self.scales[head_name(tap)]
        return (value - mean_d) / deviation_d


def head_name(tap: Tap) -> str:
    """Heads are kept as long as their depth and target are; those of different encoders have different names."""
    other = [network for network, _ in tap.target.sources if network not in OWN]
    sign = f"_{zlib.crc32(other[0].encode()):08x}" if other else ""
    return f"{tap.target.name}{sign}_at_{tap.depth}"


def freeze(module: nn.Module, compute: torch.dtype) -> None:
    """No gradients, and all weights kept from now on in the type they are computed in. Idempotent."""
    module.requires_grad_(False).to(compute)
    for parameter in module.parameters():
        parameter.grad = None
