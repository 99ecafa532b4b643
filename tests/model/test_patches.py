"""Patches in token order (t, h, w), values within one in the order (t, h, w, channel)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layerlock.model.patches import gather_tokens, patchify, token_grid, unpatchify
from layerlock.model.vit import ViT, ViTConfig

SMALL = st.integers(1, 3)


def test_tokens_and_values_stand_where_a_loop_puts_them() -> None:
    video = np.random.default_rng(0).integers(0, 256, (2, 4, 3, 6, 8), dtype=np.uint8)
    wanted = []
    for t in range(0, 4, 2):
        for h in range(0, 6, 3):
            for w in range(0, 8, 2):
                part = video[:, t : t + 2, :, h : h + 3, w : w + 2]
                wanted.append(part.transpose(0, 1, 3, 4, 2).reshape(2, -1))
    found = patchify(torch.from_numpy(video), (2, 3, 2))
    assert found.dtype == torch.uint8
    assert np.array_equal(found.numpy(), np.stack(wanted, axis=1))


@given(grid=st.tuples(SMALL, SMALL, SMALL), patch=st.tuples(SMALL, SMALL, SMALL), channels=st.integers(1, 3))
def test_unpatchify_is_the_inverse(grid: tuple[int, int, int], patch: tuple[int, int, int], channels: int) -> None:
    t, h, w = (n * p for n, p in zip(grid, patch, strict=True))
    video = torch.arange(2 * t * channels * h * w).reshape(2, t, channels, h, w)
    assert torch.equal(unpatchify(patchify(video, patch), grid, patch), video)


def test_gathering_before_projecting_is_projecting_and_then_gathering() -> None:
    vit = ViT(ViTConfig(width=8, depth=1, mlp=8, heads=1, patch=(1, 2, 2), position="sincos"), (2, 3, 4)).double()
    vit.compute = torch.float64
    patches, index = torch.rand(2, 24, 12, dtype=torch.float64), torch.tensor([[3, 17, 0], [23, 5, 6]])
    late = torch.stack([vit.project(patches)[b, index[b]] for b in range(2)])
    assert torch.allclose(vit.project(gather_tokens(patches, index), index), late, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("size", "name"), [((5, 8, 8), "frames"), ((4, 9, 8), "height"), ((4, 8, 9), "width")])
def test_a_patch_that_does_not_divide_the_clip_is_named(size: tuple[int, int, int], name: str) -> None:
    with pytest.raises(ValueError, match=f"2x4x4 does not divide \\d {name}"):
        token_grid(*size, (2, 4, 4))
