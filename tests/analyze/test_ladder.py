"""The ladder of gratings, climbed by encoders whose features are known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from layerlock.analyze.ladder import climb
from layerlock.model.encoder import ClipShape


class Painter:
    """An encoder that sees the mean colour of each clip where it is lit, and one number that is always the same."""

    name, clip, grid, depth, width = "painter", ClipShape(frames=4, stride=1, size=32), (1, 1, 1), 1, 4

    def prepare(self, device: object, compute: object) -> Painter:
        return self

    def forward_intermediates(self, video_btchw: Tensor, indices: list[int]) -> list[Tensor]:
        assert video_btchw.dtype == torch.uint8
        mean_b3 = video_btchw.float().mean((1, 3, 4))
        colour_bnd = torch.nn.functional.pad(mean_b3 / mean_b3.amax(1, keepdim=True), (0, 1))[:, None]
        return [torch.zeros_like(colour_bnd) if depth == 0 else colour_bnd for depth in indices]


def climbed(occlusion: bool, count: int = 90) -> dict[tuple[str, int], Any]:
    painter: Any = Painter()
    metrics, values = climb(
        {painter.name: painter},
        count,
        occlusion=occlusion,
        batch=32,
        seed=0,
        device=torch.device("cpu"),
        progress=lambda done, total: None,
    )
    assert {each["metric"] for each in values} == {metric.name for metric in metrics}
    return {(each["metric"], each["depth"]): each for each in values}


def test_what_features_hold_is_read_and_nothing_else() -> None:
    found = climbed(occlusion=True)
    assert len(found) == 2 * 2 * (5 + 9)
    assert found["grating: colour", 1]["value"] == 1
    assert found["OccDrop, grating: colour", 1]["value"] == pytest.approx(0, abs=0.03)
    assert found["grating: orientation", 1]["value"] < 0.25
    assert found["grating: colour", 0]["value"] < 0.4
    assert found["two gratings: same spatial frequency", 1]["value"] < 0.85


def test_of_very_few_gratings_there_is_no_figure_but_a_reason() -> None:
    found = climbed(occlusion=False, count=1)
    assert len(found) == 2 * (5 + 9)
    assert {each["why"] for each in found.values()} == {"a probe needs two classes and two groups of videos"}
