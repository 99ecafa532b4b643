"""The charts of what every depth knows, and of few training videos."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from layerlock.evaluation import words
from layerlock.evaluation.intervals import Interval
from layerlock.evaluation.results import Evaluation, Row, Swept
from layerlock.report.curves import depth_chart, shots_chart


def found(encoder: str = "runs/mine") -> Evaluation:
    """Two blocks of an encoder and of random weights, one of pixels, and what is constant."""
    value = {"AbsRel": Interval(0.2, 0.1, 0.3)}
    sweep = [
        Swept(encoder=name, kind="linear", block=block, fraction=1.0, lr=lr, score=0.2, metrics=metrics)
        for name, blocks in {"encoder": (6, 3), "random weights": (6, 3), "raw pixels": (1,)}.items()
        for block in blocks
        for lr, metrics in ((1e-3, value), (1e-2, {}))
    ]
    constant = Row(encoder="mean depth image", kind="constant", validation=0.2, metrics=value, baseline=True)
    return Evaluation(
        out="out",
        encoder=encoder,
        task="depth",
        metric="AbsRel",
        higher_is_better=False,
        percent=(),
        data={},
        rows=(constant,),
        sweep=tuple(sweep),
    )


def drawn(evaluation: Evaluation) -> str:
    kind, _, data = depth_chart(evaluation, "linear").partition("base64,")
    assert kind == "data:image/svg+xml;"
    return base64.b64decode(data).decode()


def test_everything_that_was_read_is_in_the_chart() -> None:
    svg = drawn(found())
    for name in ("this encoder", "random weights", "raw pixels", "mean depth image", "AbsRel", "block"):
        assert f"<!-- {name} -->" in svg


@pytest.mark.parametrize("name", ["runs/$a_$b", "runs/\udcff", "_" * 300, "<b>[red]"])
def test_the_name_of_the_encoder_cannot_spoil_it(name: str) -> None:
    assert drawn(found(name)) == drawn(found())


def test_intervals_without_width_are_drawn() -> None:
    off = {"AbsRel": Interval(0.2, 0.2 + 1e-12, 0.2 - 1e-12)}
    flat = replace(found(), sweep=tuple(replace(one, metrics=off) for one in found().sweep))
    assert "<!-- this encoder -->" in drawn(flat)


def test_the_table_has_a_line_for_each_block_and_leaves_out_what_has_one() -> None:
    head, rows = words.by_block(found("random weights"))
    assert head == ["block", "random weights, linear", "random weights, linear"]
    assert rows == [[block, *["0.2000 [0.1000, 0.3000]"] * 2] for block in ("3", "6")]
    one_block = replace(found(), sweep=tuple(one for one in found().sweep if one.block != 3))
    assert words.by_block(one_block) == (["block"], [])


def learned() -> Evaluation:
    """Two and five videos a class and all, of an encoder and of motion statistics, whose two are missing."""
    few = [
        Row(
            encoder=name,
            kind="solved",
            shots=shots,
            validation=0.5,
            metrics={"top-1": Interval(0.1 * (shots or 9), 0.0, 1.0)},
            baseline=name != "encoder",
        )
        for name, numbers in {"encoder": (2, 5, None), "motion statistics": (5, None)}.items()
        for shots in numbers
    ]
    return replace(
        found(),
        metric="top-1",
        percent=("top-1",),
        data={"classes": 4, "shots": {"2": 8, "5": 20}, "videos": {"train": 30}},
        rows=tuple(row for row in few if row.shots is None),
        curve=tuple(row for row in few if row.shots is not None),
    )


def test_curves_have_a_line_for_each_number_of_training_videos() -> None:
    head, rows = words.by_shots(learned())
    assert head == ["shots", "training videos", "runs/mine", "motion statistics"]
    assert rows == [
        ["2", "8", "20.0 [0.0, 100.0]", ""],
        ["5", "20", "50.0 [0.0, 100.0]", "50.0 [0.0, 100.0]"],
        ["all", "30", "90.0 [0.0, 100.0]", "90.0 [0.0, 100.0]"],
    ]
    assert words.by_shots(replace(learned(), curve=()))[1] == []
    svg = base64.b64decode(shots_chart(learned()).partition("base64,")[2]).decode()
    for name in ("this encoder", "motion statistics", "training videos of each class", "2", "5", "all", "top-1 in %"):
        assert f"<!-- {name} -->" in svg
