from __future__ import annotations

import colorsys
import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from layerlock import draws
from layerlock.data import Batch, ClipConfig, Sample, collate, crop_and_flip, crop_and_flip_target
from layerlock.data.augment import augment, random_box

module = importlib.import_module("layerlock.data.augment")  # the package may name the function the same

SIZE, MARGIN, FRAMES = 7, 10, 3
WHITE, BLACK = 190, 60
COLOURS = [(160, 120, 80), (160, 80, 120), (120, 160, 80), (120, 80, 160), (80, 160, 120), (80, 120, 160)]
CHART = np.array([*COLOURS, (WHITE,) * 3, (BLACK,) * 3], np.uint8)
"""Eight pixels whose channels have one mean, so that contrast leaves every hue as it is."""


def random_batch(count: int, seed: int) -> Batch:
    generator = np.random.default_rng(seed)
    samples = [
        Sample(
            index=i,
            name=str(i),
            video_tchw=torch.from_numpy(generator.integers(0, 256, (FRAMES, 3, MARGIN, MARGIN), np.uint8)),
            crop=(*generator.integers(0, MARGIN - SIZE + 1, 2).tolist(), SIZE, SIZE),
            flip=bool(generator.integers(0, 2)),
            targets={
                "depth": torch.from_numpy(generator.random((FRAMES, MARGIN, MARGIN), np.float32)),
                "label": torch.tensor(i),
            },
        )
        for i in range(count)
    ]
    return collate(samples, SIZE)


def boxed(batch: Batch, seed: int = 0) -> Batch:
    """The batch with boxes of random size, some smaller than the crop and some larger."""
    clip = ClipConfig(size=SIZE, resize=MARGIN / SIZE, area=(0.1, 1.0), aspect=(0.5, 2.0))
    u_b4 = np.random.default_rng(seed).random((len(batch), 4)).tolist()
    return replace(batch, crop_b4=torch.tensor([random_box(u_4, MARGIN, MARGIN, clip) for u_4 in u_b4]))


def clip_config(**changes: object) -> ClipConfig:
    return replace(ClipConfig(frames=FRAMES, size=SIZE, resize=MARGIN / SIZE), **changes)


def pictures(picture_thwc: np.ndarray, count: int) -> Batch:
    """The same clip `count` times, its whole square the crop."""
    video_tchw = torch.from_numpy(picture_thwc).permute(0, 3, 1, 2)
    size = picture_thwc.shape[1]
    samples = [
        Sample(index=i, name="", video_tchw=video_tchw, crop=(0, 0, size, size), flip=False) for i in range(count)
    ]
    return collate(samples, size)


def by_loop(x_hw: np.ndarray, y: int, x: int, flip: bool) -> np.ndarray:
    """One picture, by slicing: the oracle."""
    cut = x_hw[..., y : y + SIZE, x : x + SIZE]
    return cut[..., ::-1] if flip else cut


def let_draw(monkeypatch: pytest.MonkeyPatch, row_b: Sequence[Sequence[float]]) -> None:
    """Clip `i` draws these numbers: jitter or not, grayscale or not, brightness, saturation, contrast, hue."""

    def uniform(seed: int, purpose: str, index_b: torch.Tensor, count: int) -> torch.Tensor:
        assert count == len(row_b[0])
        return torch.tensor(row_b, dtype=torch.float64)[index_b]

    monkeypatch.setattr(draws, "uniform", uniform)


def saturated(rgb: Sequence[float], factor: float) -> tuple[float, float, float]:
    """By colorsys. A pixel without a positive channel has no saturation."""
    if max(rgb) <= 0:
        return (max(rgb),) * 3
    hue, saturation, value = colorsys.rgb_to_hsv(*rgb)
    return colorsys.hsv_to_rgb(hue, min(1.0, saturation * factor), value)


def turned(rgb: Sequence[float], turn: float) -> tuple[float, float, float]:
    hue, saturation, value = colorsys.rgb_to_hsv(*rgb)
    return colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)


def pixel_by_pixel(
    change: Callable[..., tuple[float, float, float]], frame_hwc: np.ndarray, amount: float
) -> np.ndarray:
    return np.array([[change(pixel.tolist(), amount) for pixel in row] for row in frame_hwc])


def jittered(frame_hwc: np.ndarray, u_4: Sequence[float]) -> np.ndarray:
    """Table 12 for one frame in 0..1, one pixel after the other: the oracle."""
    x = frame_hwc + (-0.125 + 0.25 * u_4[0])
    x = pixel_by_pixel(saturated, x, 0.6 + 0.8 * u_4[1])
    mean = x.mean(axis=(0, 1))
    x = (x - mean) * (0.6 + 0.8 * u_4[2]) + mean
    return pixel_by_pixel(turned, x, -0.2 + 0.4 * u_4[3]).clip(0, 1)


@pytest.mark.parametrize("seed", range(5))
def test_equals_a_loop_over_slices(seed: int) -> None:
    batch = random_batch(8, seed)
    video, depth = crop_and_flip(batch), crop_and_flip_target(batch, "depth")
    assert video.shape == (8, FRAMES, 3, SIZE, SIZE)
    assert video.dtype == torch.uint8
    assert video.is_contiguous()
    assert depth.shape == (8, FRAMES, SIZE, SIZE)
    assert depth.dtype == torch.float32
    for i in range(8):
        how = (*batch.crop_b4[i, :2].int().tolist(), bool(batch.flip_b[i]))
        np.testing.assert_array_equal(video[i].numpy(), by_loop(batch.video_btchw[i].numpy(), *how))
        np.testing.assert_array_equal(depth[i].numpy(), by_loop(batch.targets["depth"][i].numpy(), *how))


def test_no_depth_is_said() -> None:
    batch = random_batch(1, 0)
    without = collate(
        [Sample(index=0, name="", video_tchw=batch.video_btchw[0], crop=(0, 0, SIZE, SIZE), flip=False)], SIZE
    )
    with pytest.raises(ValueError, match="no target depth; it has: none"):
        crop_and_flip_target(without, "depth")


def test_targets_of_whole_clips_are_not_cropped() -> None:
    assert crop_and_flip_target(random_batch(5, 0), "label").tolist() == [0, 1, 2, 3, 4]


def test_without_colour_there_is_only_crop_and_flip(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = random_batch(4, 0)
    monkeypatch.delattr(module, "_colour")
    assert torch.equal(augment(batch, clip_config(), seed=0), crop_and_flip(batch))


@pytest.mark.parametrize("seed", range(5))
def test_random_size_crop_equals_pillow(seed: int) -> None:
    """Pillow has finer weights; it may round to the next grey level now and then."""
    batch = boxed(random_batch(12, seed), seed)
    found = augment(batch, clip_config(area=(0.1, 1.0)), seed=0)
    assert found.shape == (12, FRAMES, 3, SIZE, SIZE)
    assert found.is_contiguous()
    wanted = np.empty((12, FRAMES, SIZE, SIZE, 3), np.uint8)
    for i, (top, left, height, width) in enumerate(batch.crop_b4.tolist()):
        for t, frame_chw in enumerate(batch.video_btchw[i].numpy()):
            picture = Image.fromarray(np.ascontiguousarray(frame_chw.transpose(1, 2, 0)))
            box = (left, top, min(left + width, MARGIN), min(top + height, MARGIN))
            taken = np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box))
            wanted[i, t] = taken[:, ::-1] if batch.flip_b[i] else taken
    difference = np.abs(found.permute(0, 1, 3, 4, 2).numpy().astype(int) - wanted)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


def test_random_size_crop_of_whole_pixels_is_a_plain_one() -> None:
    batch = random_batch(6, 0)
    assert torch.equal(augment(batch, clip_config(area=(0.1, 1.0)), seed=0), crop_and_flip(batch))


def test_depth_of_a_random_size_crop_is_that_of_the_nearest_pixels() -> None:
    batch = boxed(random_batch(12, 0))
    found = crop_and_flip_target(batch, "depth")
    for i, (top, left, height, width) in enumerate(batch.crop_b4.tolist()):
        for y in range(SIZE):
            for x in range(SIZE):
                row = math.floor(top + (y + 0.5) * height / SIZE)
                column = math.floor(left + (x + 0.5) * width / SIZE)
                at = SIZE - 1 - x if batch.flip_b[i] else x
                assert torch.equal(found[i, :, y, at], batch.targets["depth"][i, :, row, column])


@pytest.mark.parametrize("values", [1, module.VALUES_AT_ONCE])
def test_any_splitting_gives_the_same(values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, clip = boxed(random_batch(16, 0)), clip_config(area=(0.1, 1.0), jitter=0.5, grayscale=0.3)
    whole = augment(batch, clip, seed=3)
    monkeypatch.setattr(module, "VALUES_AT_ONCE", values)
    parts = [augment(batch.slice(start, stop), clip, seed=3) for start, stop in ((0, 1), (1, 6), (6, 16))]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(augment(batch, clip, seed=4), whole)


def test_jitter_equals_a_loop_over_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = random_batch(12, 0)
    batch.video_btchw[:, 1] //= 8  # a dark frame: brightness makes it negative, and its own mean is far from others'
    batch.video_btchw[:, 2] |= 0xE0
    u_b6 = np.random.default_rng(1).random((12, 6)) * [0, 1, 1, 1, 1, 1]
    let_draw(monkeypatch, u_b6.tolist())
    found = augment(batch, clip_config(jitter=1.0), seed=0).permute(0, 1, 3, 4, 2).numpy()
    plain = crop_and_flip(batch).permute(0, 1, 3, 4, 2).numpy()
    for i in range(12):
        for t in range(FRAMES):
            wanted = jittered(plain[i, t] / 255, u_b6[i, 2:].tolist()) * 255
            assert np.abs(found[i, t] - wanted).max() < 0.501


def test_neutral_amounts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = random_batch(8, 0)
    batch.video_btchw[0] = 0
    batch.video_btchw[1] = 255
    batch.video_btchw[2] = batch.video_btchw[2, :, :1]  # grey
    let_draw(monkeypatch, [[0, 1, 0.5, 0.5, 0.5, 0.5]] * 8)
    assert torch.equal(augment(batch, clip_config(jitter=1.0), seed=0), crop_and_flip(batch))


def test_grayscale_is_luma_of_what_the_jitter_left(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = random_batch(6, 0)
    let_draw(monkeypatch, [[0, i % 2, 0.9, 0.1, 0.8, 0.3] for i in range(6)])
    found = augment(batch, clip_config(jitter=1.0, grayscale=0.5), seed=0)
    coloured = augment(batch, clip_config(jitter=1.0), seed=0)
    assert torch.equal(found[1::2], coloured[1::2])
    for i in range(0, 6, 2):
        red, green, blue = coloured[i].permute(1, 0, 2, 3).numpy().astype(float)
        luma = np.rint(0.2989 * red + 0.5870 * green + 0.1140 * blue)
        for channel in range(3):
            np.testing.assert_array_equal(found[i, :, channel].numpy(), luma)


@pytest.mark.parametrize(("jitter", "grayscale"), [(0.8, 0.0), (0.0, 0.1), (0.2, 0.0), (0.0, 0.7)])
def test_as_many_clips_change_as_the_probability_says(jitter: float, grayscale: float) -> None:
    batch = pictures(np.tile(CHART[None, :, None], (2, 1, 8, 1)), 2_000)
    found = augment(batch, ClipConfig(frames=2, size=8, jitter=jitter, grayscale=grayscale), seed=0)
    changed = (found != batch.video_btchw).flatten(1).any(dim=1).sum().item()
    assert stats.binomtest(int(changed), 2_000, jitter + grayscale).pvalue > 0.001


def test_jitter_and_grayscale_are_drawn_apart() -> None:
    batch = pictures(np.tile(CHART[None, :, None], (1, 1, 8, 1)), 2_000)
    found = augment(batch, ClipConfig(frames=1, size=8, jitter=0.5, grayscale=0.5), seed=0)
    grey = (found == found[:, :, :1]).flatten(1).all(dim=1)
    white = found[:, 0, 0, 6, 0]
    jitter = (white != WHITE) | (found[:, 0, 0, 7, 0] != BLACK)
    table = torch.stack([grey & jitter, grey & ~jitter, ~grey & jitter, ~grey & ~jitter]).sum(dim=1)
    assert stats.chisquare(table.numpy()).pvalue > 0.001


def amounts_of(found_p3: np.ndarray) -> tuple[float, float, float, float]:
    """Brightness, saturation, contrast and hue, by algebra from what has become of the chart."""
    white, black = found_p3[6].mean(), found_p3[7].mean()
    contrast = (white - black) / (WHITE - BLACK)
    high, span = found_p3[:6].max(axis=1), np.ptp(found_p3[:6], axis=1)
    saturation = span.mean() / contrast / 80
    mean = (6 * (160 - 40 * saturation) + WHITE + BLACK) / 8
    brightness = (high.mean() - ((160 - mean) * contrast + mean)) / 255
    after, before = (np.array([colorsys.rgb_to_hsv(*rgb)[0] for rgb in x[:6].astype(float)]) for x in (found_p3, CHART))
    turn = (after - before + 0.5) % 1 - 0.5
    return brightness, saturation, contrast, turn.mean()


def test_amounts_are_uniform_in_the_ranges_of_table_12() -> None:
    count = 1_000
    batch = pictures(np.tile(CHART[None, :, None], (2, 1, 8, 1)), count)
    found = augment(batch, ClipConfig(frames=2, size=8, jitter=1.0), seed=0)
    assert torch.equal(found[:, 0], found[:, 1])
    amount_b4 = np.array([amounts_of(clip[0, :, :, 0].T.numpy().astype(float)) for clip in found])
    for column, (low, high) in enumerate([(-0.125, 0.125), (0.6, 1.4), (0.6, 1.4), (-0.2, 0.2)]):
        assert stats.kstest(amount_b4[:, column], "uniform", args=(low, high - low)).pvalue > 0.001
    assert np.abs(np.corrcoef(amount_b4.T) - np.eye(4)).max() < 4 / math.sqrt(count)


def boxes_in_picture(height: int, width: int, clip: ClipConfig, count: int = 4_000) -> np.ndarray:
    """Random boxes `[count, 4]`: top, left, height, width, in pixels of the picture."""
    u_b4 = np.random.default_rng(0).random((count, 4)).tolist()
    boxes = np.array([random_box(u_4, height, width, clip) for u_4 in u_b4])
    return boxes / clip.resize_side * [height, width, height, width]


@pytest.mark.parametrize(("height", "width"), [(120, 120), (90, 160), (160, 90)])
def test_boxes_have_the_area_and_aspect_that_were_asked_for(height: int, width: int) -> None:
    clip = ClipConfig(size=48, area=(0.1, 0.3), aspect=(0.6, 1.8))
    top, left, tall, wide = boxes_in_picture(height, width, clip).T
    area, aspect = tall * wide / (height * width), np.log(wide / tall)
    assert stats.kstest(area, "uniform", args=(0.1, 0.2)).pvalue > 0.001
    assert stats.kstest(aspect, "uniform", args=(math.log(0.6), math.log(3))).pvalue > 0.001
    assert stats.kstest(top / (height - tall), "uniform").pvalue > 0.001
    assert stats.kstest(left / (width - wide), "uniform").pvalue > 0.001
    columns = np.stack([area, aspect, top / (height - tall), left / (width - wide)])
    assert np.abs(np.corrcoef(columns) - np.eye(4)).max() < 4 / math.sqrt(4_000)


@pytest.mark.parametrize(("height", "width"), [(120, 120), (90, 160), (100, 1_000), (1_000, 100)])
def test_boxes_stay_inside(height: int, width: int) -> None:
    clip = ClipConfig(size=224, area=(0.3, 1.0), aspect=(0.5, 2.0))
    top, left, tall, wide = boxes_in_picture(height, width, clip).T
    assert min(top.min(), left.min()) >= 0
    assert min(tall.min(), wide.min()) > 0
    assert (top + tall).max() <= height * (1 + 1e-9)
    assert (left + wide).max() <= width * (1 + 1e-9)


def test_a_side_that_is_too_long_is_cut() -> None:
    clip = ClipConfig(size=100, resize=1.0, area=(1.0, 1.0), aspect=(2.0, 2.0))
    assert random_box((0, 0, 0.5, 0.5), 60, 60, clip) == pytest.approx((50 * (1 - 0.5**0.5), 0, 100 * 0.5**0.5, 100))


def test_no_random_box_without_an_area() -> None:
    with pytest.raises(ValueError, match=r"clip\.area"):
        random_box((0, 0, 0, 0), 10, 10, ClipConfig())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same() -> None:
    batch, clip = boxed(random_batch(16, 0)), clip_config(area=(0.1, 1.0), jitter=0.5, grayscale=0.3)
    assert torch.equal(augment(batch.to("cuda"), clip, seed=3).cpu(), augment(batch, clip, seed=3))
