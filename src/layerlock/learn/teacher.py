"""The running average of a model's weights, whose features are targets (V-JEPA; LayerLock section 3.5)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from layerlock import torch_private
from layerlock.learn.networks import backbone_features
from layerlock.model.vit import ViT


class Teacher(nn.Module):
    """A `Network` that is a ViT which follows another one. What is frozen in the student is shared with it, not
    averaged.
    """

    def __init__(self, student: ViT) -> None:
        super().__init__()
        self.vit = ViT(student.config, student.grid).to(student.embed.weight.device)
        self.vit.compute = student.compute
        self.vit.load_state_dict(student.state_dict())
        self.vit.requires_grad_(False)

    @property
    def width(self) -> int:
        """Length of a feature, D."""
        return self.vit.config.width

    @torch.no_grad()
    def features(
        self, video_btchw: Tensor, patches_bnp: Tensor, blocks: Sequence[int], kept_bq: Tensor | None
    ) -> dict[int, Tensor]:
        """As every `Network`."""
        return backbone_features(self.vit, patches_bnp, blocks, kept_bq)

    def enter(self, student: ViT, frozen: int) -> None:
        """The first `frozen` blocks, and what comes before them and after all blocks, are the student's own."""
        if frozen:
            self.vit.embed = student.embed
            self.vit.position = student.position
        for number in range(frozen):
            self.vit.blocks[number] = student.blocks[number]
        if frozen == len(student.blocks):
            self.vit.norm = student.norm

    @torch.no_grad()
    def after_step(self, student: ViT, decay: float) -> None:
        """`decay` of each weight, and the rest of the student's. Shared weights stay as they are."""
        pairs = [
            (own, others)
            for own, others in zip(self.vit.parameters(), student.parameters(), strict=True)
            if own is not others
        ]
        if pairs:
            own, others = (list(side) for side in zip(*pairs, strict=True))
            torch_private.lerp(own, others, 1 - decay)
