"""How alike tokens are before any training, by depth: with pixels as the papers feed them, and centred.

    python benchmarks/first_step.py

Prints the mean cosine of layer-normed tokens after 0 .. L blocks of `layerlock-tiny`, on 16 clips of the synthetic
world.
"""

from __future__ import annotations

from dataclasses import replace

import torch

import layerlock
from layerlock.data.synthetic import render_clip
from layerlock.model.encoder import ClipShape
from layerlock.train.monitors import token_cosine


def main() -> None:
    """A row for each way to feed pixels and to scale what a block adds."""
    config = layerlock.recipe("layerlock-tiny")
    size = config.clip.size
    clips = torch.stack([render_clip(0, i, height=size, width=size).video_tchw for i in range(16)])
    plain = replace(config.model, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    for name, model in (("pixels in [0, 1]", plain), ("centred", config.model)):
        for scaled in (False, True):
            shape = ClipShape(frames=config.clip.frames, stride=1, size=size)
            encoder = layerlock.Encoder.random(model, shape, seed=0)
            if not scaled:
                for block in encoder.vit.blocks:
                    for dense in (block.proj, block.fc2):
                        dense.weight.mul_((2 * model.depth) ** 0.5)
            features = encoder.forward_intermediates(clips, range(model.depth + 1))
            words = f"{name}, blocks {'scaled by 1/sqrt(2L)' if scaled else 'unscaled'}"
            print(f"{words:42}", " ".join(f"{token_cosine(x):.2f}" for x in features))


if __name__ == "__main__":
    main()
