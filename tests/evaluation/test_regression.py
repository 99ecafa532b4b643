"""Regression: numbers of a column, by trained and by solved readouts, against scikit-learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluations import settings, task, tiny_encoder
from safetensors.torch import load_file
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from layerlock.data.synth import SynthConfig, write_videos
from layerlock.errors import ConfigError, LayerlockError
from layerlock.evaluation import words
from layerlock.evaluation.readouts import Candidate, build_readout
from layerlock.evaluation.results import Evaluation
from layerlock.evaluation.run import evaluate
from layerlock.evaluation.sweep import Sweep
from layerlock.evaluation.tasks import Shape
from layerlock.model.encoder import Encoder
from layerlock.report.evaluation import write_evaluation


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of sixty videos with a number each, one of them without."""
    out = tmp_path_factory.mktemp("world")
    paths = write_videos(out, SynthConfig(videos=60, size=32, frames=12), workers=1)
    numbers = ["", *(f"{300 + 7.5 * (number % 13)}" for number in range(1, 60))]
    lines = [f"{path},{number},3.5,a" for path, number in zip(sorted(paths), numbers, strict=True)]
    (out / "list.csv").write_text("\n".join(["file_name,weight,same,name", *lines]))
    return out / "list.csv"


def run(out: Path, data: Path, *, resume: bool = False, **changes: Any) -> Evaluation:
    fields = {"task": "regression", "column": "weight", "data": str(data), **changes}
    return evaluate(settings(out, **fields), tiny_encoder(), resume=resume, quiet=True)


def test_figures_are_scikit_learns_of_every_readout_and_the_mean(tmp_path: Path, world: Path) -> None:
    found = run(tmp_path / "out", world)
    kinds = ["attention", "linear", "solved"]
    assert [(row.encoder, row.kind) for row in found.rows] == [
        *((name, kind) for name in ("encoder", "random weights", "raw pixels", "frame differences") for kind in kinds),
        ("motion statistics", "solved"),
        ("mean of the training split", "constant"),
    ]
    kept, count = load_file(tmp_path / "out" / "test.safetensors"), found.data["videos"]["test"]
    truth = kept["truth"][:count]
    for row in found.rows:
        name = "" if row.kind == "constant" else f"{row.encoder}/{row.kind}/{row.block}/{row.lr or 0:g}"
        guess = kept[f"predicted:{name}"][:count]
        wanted = [figure(truth, guess) for figure in (mean_squared_error, r2_score, mean_absolute_error)]
        assert [row.metrics[metric].mean for metric in ("MSE", "R2", "MAE")] == pytest.approx(wanted)
        assert row.metrics["R2"].low < row.metrics["R2"].mean < row.metrics["R2"].high
        assert (row.lr is None) == (row.kind not in ("attention", "linear"))
    assert found.rows[-1].metrics["R2"].mean <= 0
    assert len(found.sweep) == 2 * (2 * 2 + 2 * 2 + 2) + 2 * (2 + 2 + 1) + 1
    assert [reason for _, reason in found.left_out] == ["it has no weight"]
    assert found.best[0].label
    best = found.rows[0]
    error = truth - kept[f"predicted:{best.encoder}/{best.kind}/{best.block}/{best.lr:g}"][:count]
    assert found.best[0].score == pytest.approx(float(error.square().min()))
    assert "R2" in write_evaluation(found).read_text()


def test_a_solved_readout_alone_trains_nothing_and_is_resumed(
    tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(tmp_path / "out", world, readout="solved", baselines="no", batch=7, workers=1)
    assert [row.kind for row in first.rows] == ["solved", "constant"]
    for name in ("validation", "test"):
        (tmp_path / "out" / f"{name}.safetensors").unlink()
    monkeypatch.setattr("layerlock.evaluation.run.solve", lambda *_: pytest.fail("solved again"))
    monkeypatch.setattr(Sweep, "train_step", lambda *_: pytest.fail("trained"))
    again = run(tmp_path / "out", world, readout="solved", baselines="no", batch=7, workers=1, resume=True)
    assert again.rows == first.rows
    with pytest.raises(ConfigError, match="lrs: nothing is trained with --readout solved"):
        run(tmp_path / "other", world, readout="solved", lrs=(1e-2,))


def test_without_appearance_solved_readouts_read_changes_alone_and_the_results_say_so(
    tmp_path: Path, world: Path
) -> None:
    found = run(
        tmp_path / "out", world, readout="solved", appearance="no", baselines="no", depths=(1.0,), batch=7, workers=1
    )
    (weight,) = [x for name, x in load_file(tmp_path / "out" / "readouts.safetensors").items() if x.ndim == 2]
    changes = min(4, tiny_encoder().grid[0]) - 1
    assert list(weight.shape) == [1, 2 * changes * tiny_encoder().width]
    assert "Solved readouts see changes over time alone." in words.sentences(found)


def test_an_encoder_with_one_token_in_time_has_no_changes_to_read() -> None:
    encoder = tiny_encoder()
    still = Encoder.random(encoder.vit.config, replace(encoder.clip, frames=encoder.vit.config.patch[0]))
    candidate = Candidate(encoder="encoder", kind="solved", block=1, fraction=0.5)
    with pytest.raises(LayerlockError, match="nothing of encoder changes: it has one token in time"):
        build_readout(candidate, still, Shape(outputs=1, appearance=False), seed=0)
    assert build_readout(candidate, still, Shape(outputs=1), seed=0)(torch.ones(2, 3, still.width)).shape == (2, 1, 1)


def test_losses_do_not_depend_on_the_unit_and_unknown_numbers_do_not_count() -> None:
    made = task(settings(task="regression", column="number"))
    assert (made.mean, made.deviation) == (1.5, pytest.approx(1.25**0.5))
    target = torch.tensor([0.0, 3.0, torch.nan])
    prediction = made.predict(made.shape("linear", tiny_encoder()), torch.zeros(3, 1, 1))
    assert prediction[:, 0].tolist() == [1.5, 1.5, 1.5]
    assert float(made.loss(prediction, target)) == pytest.approx(1.5**2 / 1.25)
    assert made.loss(prediction, torch.full((3,), torch.nan)) == 0
    assert made.score(prediction, target).score_vm.isnan().any(1).tolist() == [False, False, True]
    assert made.constant_prediction(made.summary(target), 2).tolist() == [[1.5], [1.5]]


def test_clips_of_a_video_are_averaged() -> None:
    made = task(settings(task="regression", column="number", views=2))
    scored = made.score(torch.tensor([[1.0], [2.0], [5.0], [5.0]]), torch.tensor([1.0, 1.0, 7.0, 7.0]))
    assert scored.score_vm.tolist() == [[0.25, 0.25, 0.5], [4.0, 4.0, 2.0]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"column": "same"}, "same is 3.5 for every video of the training split"),
        ({"column": "height"}, "there is no column height; its columns are: "),
        ({"column": "name"}, "name is 'a'; it has to be a number"),
        ({"task": "action"}, "weight is .*, which is not a class"),
    ],
)
def test_columns_that_cannot_be_read_are_named(
    tmp_path: Path, world: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(LayerlockError, match=message):
        run(tmp_path / "out", world, baselines="no", **changes)
