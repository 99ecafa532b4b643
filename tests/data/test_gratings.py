"""Gratings against their Fourier transform, and their settings against the paper's grids."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layerlock.data.gratings import HALVES, RATE, SINGLE, gratings

ALL = torch.arange(24)


@pytest.mark.parametrize(("kind", "settings"), [(SINGLE, 10_800), (HALVES, 15_552)], ids=["single", "halves"])
def test_every_setting_of_a_grid_comes_once(kind: object, settings: int) -> None:
    made = gratings(kind, 99_999, 0, 128)  # type: ignore[arg-type]
    rows = torch.stack(list(made.settings.values()), 1)
    assert len(made) == len(rows.unique(dim=0)) == settings
    assert len(gratings(kind, 50, 0, 128)) == 50  # type: ignore[arg-type]


@given(st.integers(0, 2**31), st.sampled_from([SINGLE, HALVES]))
def test_they_follow_from_the_seed_and_more_of_them_begin_alike(seed: int, kind: object) -> None:
    few, many = gratings(kind, 5, seed, 64), gratings(kind, 9, seed, 64)  # type: ignore[arg-type]
    assert torch.equal(few.render(ALL[:5], 2, 16), many.render(ALL[:9], 2, 16)[:5])
    assert not torch.equal(few.phase_vp, gratings(kind, 5, seed + 1, 64).phase_vp)  # type: ignore[arg-type]


def test_the_spectrum_has_the_frequency_the_drift_and_the_contrast() -> None:
    """With one frame a second of 6.25 the phase of the strongest wave turns by the temporal frequency over 6.25."""
    size, made = 64, gratings(SINGLE, 24, 3, 64)
    video = made.render(ALL, 5, size).float() / 255
    strongest = video.amax((1, 3, 4)).argmax(1)  # of red, green, blue: one that the colour has in full
    light = video[ALL, :, strongest]
    window = torch.hann_window(size, periodic=False)
    spectrum = torch.fft.fft2((light - 0.5) * window * window[:, None])
    for row in range(24):
        setting = {name: float(values[row]) for name, values in made.settings.items()}
        angle = math.radians(setting["orientation"])
        down, across = (setting["spatial frequency"] * f(angle) for f in (math.sin, math.cos))
        at = round(down) % size, round(across) % size
        peak = spectrum[row, :, at[0], at[1]]
        assert peak.abs().min() > 0.6 * spectrum[row].abs().max()
        turned = (peak[1:] * peak[:-1].conj()).angle() / (2 * math.pi)
        expected = -setting["temporal frequency"] / RATE
        assert ((turned - expected + 0.5).remainder(1) - 0.5).abs().max() < 0.02
        assert light[row].amax() - light[row].amin() == pytest.approx(setting["contrast"], rel=0.1)


def test_each_half_has_its_own_and_its_classes_say_so() -> None:
    made = gratings(HALVES, 600, 0, 64)
    settings, classes = made.settings, made.classes()
    rise = settings["right spatial frequency"] - settings["left spatial frequency"]
    assert [int(label.max()) + 1 for label in classes.values()] == [3, 3, 12, 24, 5, 4, 3, 2, 2]
    assert torch.equal(classes["same spatial frequency"] == 1, rise == 0)
    assert torch.equal(classes["side of the higher spatial frequency"] - 1, rise.sign().long())
    assert torch.equal(classes["spatial frequency difference"], (rise / 6 + 2).long())
    right = (settings["left orientation"] + settings["orientation difference"]) % 360
    assert torch.equal(classes["right orientation"], (right / 15).long())
    video = made.render(torch.arange(600), 1, 32)[:, 0].amax(1).float()
    # columns of a half whose wave is upright are all alike, whatever stands beside it
    upright = (settings["left orientation"] % 180 == 90) & (right % 90 != 0)
    left, beside = video[upright].chunk(2, -1)
    assert upright.sum() > 20
    assert (left - left[..., :1]).abs().max() <= 1
    assert (beside - beside[..., :1]).abs().amax((1, 2)).min() > 20


def test_what_frames_cannot_show_is_left_out() -> None:
    assert gratings(SINGLE, 20_000, 0, 32).settings["spatial frequency"].unique().tolist() == [4, 8, 12]
    assert gratings(HALVES, 20_000, 0, 20).settings["left spatial frequency"].unique().tolist() == [4]
