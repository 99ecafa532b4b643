from __future__ import annotations

import numpy as np
import pytest
import torch

from layerlock.data import Batch, Sample, collate, crop_and_flip, crop_and_flip_depth

SIZE, MARGIN, FRAMES = 7, 10, 3


def random_batch(count: int, seed: int) -> Batch:
    generator = np.random.default_rng(seed)
    samples = [
        Sample(
            index=i,
            name=str(i),
            video_tchw=torch.from_numpy(generator.integers(0, 256, (FRAMES, 3, MARGIN, MARGIN), np.uint8)),
            crop_y=int(generator.integers(0, MARGIN - SIZE + 1)),
            crop_x=int(generator.integers(0, MARGIN - SIZE + 1)),
            flip=bool(generator.integers(0, 2)),
            depth_thw=torch.from_numpy(generator.random((FRAMES, MARGIN, MARGIN), np.float32)),
        )
        for i in range(count)
    ]
    return collate(samples, SIZE)


def by_loop(x_hw: np.ndarray, y: int, x: int, flip: bool) -> np.ndarray:
    """One picture, by slicing: the oracle."""
    cut = x_hw[..., y : y + SIZE, x : x + SIZE]
    return cut[..., ::-1] if flip else cut


@pytest.mark.parametrize("seed", range(5))
def test_equals_a_loop_over_slices(seed: int) -> None:
    batch = random_batch(8, seed)
    video, depth = crop_and_flip(batch), crop_and_flip_depth(batch)
    assert video.shape == (8, FRAMES, 3, SIZE, SIZE)
    assert video.dtype == torch.uint8
    assert video.is_contiguous()
    assert depth.shape == (8, FRAMES, SIZE, SIZE)
    assert depth.dtype == torch.float32
    assert batch.depth_bthw is not None
    for i in range(8):
        how = (*batch.crop_b2[i].tolist(), bool(batch.flip_b[i]))
        np.testing.assert_array_equal(video[i].numpy(), by_loop(batch.video_btchw[i].numpy(), *how))
        np.testing.assert_array_equal(depth[i].numpy(), by_loop(batch.depth_bthw[i].numpy(), *how))


def test_micro_batches_give_the_same() -> None:
    batch = random_batch(6, 0)
    parts = torch.cat([crop_and_flip(batch.slice(0, 1)), crop_and_flip(batch.slice(1, 6))])
    assert torch.equal(parts, crop_and_flip(batch))


def test_no_depth_is_said() -> None:
    batch = random_batch(1, 0)
    without = collate([Sample(index=0, name="", video_tchw=batch.video_btchw[0], crop_y=0, crop_x=0, flip=False)], SIZE)
    with pytest.raises(ValueError, match="no depth"):
        crop_and_flip_depth(without)
