from __future__ import annotations

import base64
import io

import pytest
import torch
from PIL import Image

from layerlock.model.patches import patchify
from layerlock.report import pictures

GRID, PATCH = (4, 3, 3), (2, 8, 8)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def decode(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))


@pytest.mark.parametrize(
    ("frames", "picked"), [(16, [0, 5, 10, 15]), (4, [0, 1, 2, 3]), (2, [0, 1]), (1, [0]), (8, [0, 2, 5, 7])]
)
def test_frames_are_spread_from_first_to_last(frames: int, picked: list[int]) -> None:
    assert pictures.pick_frames(frames) == picked


def test_masked_input_shows_exactly_the_context_patches() -> None:
    video = torch.randint(0, 200, (2, 8, 3, 24, 24), dtype=torch.uint8)  # never GREY itself
    context = torch.tensor([[0, 7, 35], [1, 2, 3]])
    masked = patchify(pictures.masked_input(video, context, GRID, PATCH), PATCH)
    for clip, original in enumerate(patchify(video, PATCH)):
        for token in range(36):
            seen = token in context[clip].tolist()
            assert torch.equal(masked[clip, token], original[token]) == seen
            assert (masked[clip, token] == pictures.GREY).all() != seen


def test_reconstruction_is_the_inverse_of_patching_and_clips_to_the_range() -> None:
    video = torch.randint(0, 256, (1, 8, 3, 24, 24), dtype=torch.uint8)
    patches = patchify(video, PATCH).float() / 255
    assert torch.equal(pictures.reconstruction(patches, GRID, PATCH), video)
    assert (pictures.reconstruction(patches + 9, GRID, PATCH) == 255).all()
    assert (pictures.reconstruction(patches * float("nan"), GRID, PATCH) == 0).all()


def test_first_colour_is_the_direction_of_most_variance() -> None:
    x = noise(4, 50, 6) * torch.tensor([1.0, 9.0, 0.1, 3.0, 0.1, 0.1]) + 5
    palette = pictures.fit_palette(x)
    assert palette.axes_d3.abs().argmax(0).tolist() == [1, 3, 0]
    assert torch.allclose(palette.axes_d3.T @ palette.axes_d3, torch.eye(3, dtype=torch.float64), atol=1e-9)
    red = palette.paint(x)[..., 0].double().flatten()
    assert torch.corrcoef(torch.stack([red, x[..., 1].double().flatten()]))[0, 1] > 0.98


def test_equal_features_have_equal_colours_wherever_they_are() -> None:
    x = noise(2, 40, 8)
    palette = pictures.fit_palette(x)
    assert torch.equal(palette.paint(x[1, 3]), palette.paint(x)[1, 3])
    assert torch.equal(palette.paint(x.float()), pictures.fit_palette(x.clone()).paint(x))


def test_signs_follow_other_colours() -> None:
    x = noise(1, 60, 8)
    colours = pictures.fit_palette(x).paint(x)
    assert torch.equal(pictures.fit_palette(x, colours).paint(x), colours)
    turned = pictures.fit_palette(x, 255 - colours).paint(x)
    assert (turned.int() - (255 - colours.int())).abs().max() <= 1


@pytest.mark.parametrize("width", [1, 2, 5])
def test_any_width_and_constant_features_have_colours(width: int) -> None:
    flat = torch.ones(1, 9, width)
    assert (pictures.fit_palette(flat).paint(flat) == 128).all()
    assert pictures.fit_palette(noise(1, 9, width)).paint(noise(1, 9, width)).shape == (1, 9, 3)


def test_what_is_not_a_number_is_grey_and_changes_nothing_else() -> None:
    x = noise(1, 30, 5)
    broken = x.clone()
    broken[0, 4] = float("nan")
    rest = [i for i in range(30) if i != 4]
    painted = pictures.fit_palette(broken).paint(broken)
    assert (painted[0, 4] == pictures.GREY).all()
    assert torch.equal(painted[0, rest], pictures.fit_palette(x[:, rest]).paint(x[0, rest])[:])
    nothing = torch.full((1, 3, 5), float("nan"))
    assert (pictures.fit_palette(nothing).paint(nothing) == pictures.GREY).all()


def test_subset_goes_to_its_places() -> None:
    colours = torch.tensor([[[1, 2, 3], [4, 5, 6]]], dtype=torch.uint8)
    placed = pictures.place(colours, torch.tensor([[2, 0]]), 4)
    grey = [pictures.GREY] * 3
    assert placed.tolist() == [[[4, 5, 6], grey, [1, 2, 3], grey]]


def test_tokens_stand_in_their_row_and_column() -> None:
    colours = torch.arange(36 * 3, dtype=torch.uint8).reshape(1, 36, 3)
    tokens = pictures.token_video(colours, GRID)
    assert tokens.shape == (1, 4, 3, 3, 3)
    assert tokens[0, 2, :, 1, 0].tolist() == colours[0, 2 * 9 + 1 * 3 + 0].tolist()


def test_strips_are_pngs_of_the_pixels() -> None:
    frames = torch.randint(0, 256, (3, 3, 24, 24), dtype=torch.uint8)
    strip = decode(pictures.photo_strip(frames))
    assert strip.size == (3 * 24 + 2 * 2, 24)
    assert strip.getpixel((26 + 5, 7)) == tuple(frames[1, :, 7, 5].tolist())
    assert decode(pictures.photo_strip(torch.zeros(1, 3, 200, 200, dtype=torch.uint8))).size == (96, 96)
    assert decode(pictures.token_strip(torch.zeros(1, 3, 14, 14, dtype=torch.uint8))).size == (84, 84)
