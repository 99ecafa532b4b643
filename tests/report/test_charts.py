from __future__ import annotations

import base64
import math

import pytest

from layerlock.learn.plan import timeline
from layerlock.recipes import recipe
from layerlock.report.charts import Chart, Curve, Mark, alt, charts, draw, thin
from layerlock.report.history import History, Span


def svg(uri: str) -> str:
    return base64.b64decode(uri.removeprefix("data:image/svg+xml;base64,")).decode()


@pytest.mark.parametrize(
    "values",
    [[1.0, 2.0, 3.0], [math.nan] * 3, [0.0, 0.0, 0.0], [-1.0, math.inf, 2.0], [1e-12, 1.0, 1e12], [5.0, 5.0, 5.0]],
)
@pytest.mark.parametrize("log", [True, False])
def test_any_values_make_a_picture(values: list[float], log: bool) -> None:
    curve = Curve(steps=[1, 2, 3], values=values, name="a")
    chart = Chart(title="loss", curves=(curve, curve), log=log, level=1.0, floor=None if log else 0.0)
    assert "<svg" in svg(draw(chart, [Mark(step=2, name="h1")], 3))


def test_same_chart_same_bytes() -> None:
    chart = Chart(title="x", curves=(Curve(steps=[1, 2], values=[3.0, 4.0]),))
    assert draw(chart, [], 2) == draw(chart, [], 2)


def test_many_points_become_means_that_keep_the_area() -> None:
    curve = Curve(steps=range(10_000), values=[float(i % 7) for i in range(10_000)])
    few = thin(curve, 100)
    assert len(few.steps) == len(few.values) == 100
    assert list(few.steps) == sorted(few.steps)
    assert sum(few.values) / 100 == pytest.approx(sum(curve.values) / 10_000)
    assert thin(few, 100) is few


def test_alt_text_tells_first_and_last_value() -> None:
    curve = Curve(steps=[1, 2, 3], values=[math.nan, 0.5, 0.25], name="pixels")
    assert alt(Chart(title="loss", curves=(curve,))) == "Chart of loss over steps: pixels from 0.5 to 0.25"


@pytest.mark.parametrize(
    ("name", "titles", "caption"),
    [
        ("mae-tiny", ["loss, pixels"], "squared error of pixels in the model's units"),
        ("blockwise-tiny", ["loss, pixels"], "squared error of pixels of each patch less its mean"),
        ("vjepa-tiny", ["loss, latent targets"], "absolute error of features"),
        ("distill-tiny", ["loss, latent targets"], "Mean smooth absolute error of features"),
        (
            "layerlock-tiny",
            ["loss, pixels", "loss, latent targets", "loss / variance of the target"],
            "squared error of pixels in the model's units",
        ),
    ],
)
def test_losses_are_called_what_they_are(name: str, titles: list[str], caption: str) -> None:
    config = recipe(name)
    spans = tuple(
        Span(begin=begin, end=begin + 1, frozen=stage.frozen, targets=stage.targets, stage=stage)
        for begin, stage in timeline(config.build_plan(), config.steps)
    )
    lines = tuple(
        {"step": span.end, "losses": dict.fromkeys(span.targets.split("+"), 1.0), "target_variance": {}}
        for span in spans
    )
    found = charts(History(config=config, versions={}, lines=lines, events=(), spans=spans))
    losses = [chart for chart in found if chart.title.startswith("loss")]
    assert [chart.title for chart in losses] == titles
    assert caption in losses[0].caption
