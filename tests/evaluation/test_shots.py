"""Learning curves: which training videos are drawn, and that all of them are the evaluation without curves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluations import settings, tiny_encoder
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from layerlock.data.synth import SynthConfig, write_videos
from layerlock.errors import ConfigError, LayerlockError
from layerlock.evaluation import words
from layerlock.evaluation.baselines import MotionStatistics
from layerlock.evaluation.results import Evaluation
from layerlock.evaluation.run import evaluate
from layerlock.evaluation.splits.shots import DRAWS, ranks

videos = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), min_size=1, max_size=40)
"""(class, group) of each"""


@given(videos, st.integers(0, 2**40), st.integers(0, 9))
def test_draws_are_nested_balanced_grouped_and_the_seeds_alone(
    found: list[tuple[int, int]], seed: int, draw: int
) -> None:
    label_v, group_v = torch.tensor(found).T
    rank_v = ranks(label_v, group_v, seed=seed, draw=draw)
    assert torch.equal(rank_v, ranks(label_v, group_v, seed=seed, draw=draw))
    for label in label_v.unique():
        # places in a class are 0, 1, 2, ...: k shots are k videos of each or all, and part of k + 1 shots
        own_v = rank_v[label_v == label]
        assert own_v.sort().values.tolist() == list(range(len(own_v)))
        # of every number of shots one group of a class at most is cut
        in_order = group_v[label_v == label][own_v.argsort()]
        assert len(in_order.unique_consecutive()) == len(in_order.unique())


def test_groups_come_in_the_same_order_in_every_class_and_draws_and_seeds_differ() -> None:
    label_v, group_v = torch.arange(400) % 4, torch.arange(400) // 8 % 10
    first = ranks(label_v, group_v, seed=0, draw=0)
    assert len({tuple(group_v[(label_v == c) & (first < 10)].unique().tolist()) for c in range(4)}) == 1
    others = [ranks(label_v, group_v, seed=seed, draw=draw) for seed, draw in ((0, 1), (1, 0))]
    assert not any(torch.equal(first < 5, other < 5) for other in others)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty videos in two classes, which no feature tells apart, and a number each."""
    out = tmp_path_factory.mktemp("world")
    paths = write_videos(out, SynthConfig(videos=60, size=32, frames=12), workers=1)
    lines = [f"{path},{'ab'[n % 2]},{n % 7}" for n, path in enumerate(sorted(paths))]
    (out / "list.csv").write_text("\n".join(["file_name,label,number", *lines]))
    return out / "list.csv"


def run(out: Path, data: Path, *, resume: bool = False, **changes: Any) -> Evaluation:
    fields = {"readout": "solved", "baselines": "no", "data": str(data), **changes}
    return evaluate(settings(out, **fields), tiny_encoder(), resume=resume, quiet=True)


def test_all_is_the_evaluation_without_shots_bit_for_bit_and_a_resume_repeats_the_curve(
    tmp_path: Path, world: Path
) -> None:
    plain = run(tmp_path / "plain", world, baselines="yes")
    found = run(tmp_path / "out", world, baselines="yes", shots=(8, 2, 90, "all"))
    assert (found.rows, found.sweep, found.compared) == (plain.rows, plain.sweep, plain.compared)
    a, b = (load_file(tmp_path / name / "readouts.safetensors") for name in ("plain", "out"))
    assert all(torch.equal(weight, b[name]) for name, weight in a.items())
    names = ("encoder", "random weights", "raw pixels", "frame differences", "motion statistics")
    assert [(row.encoder, row.shots) for row in found.curve] == [(name, n) for name in names for n in (2, 8, 90)]
    for row in found.curve:
        whole = next(one for one in plain.rows if (one.encoder, one.kind) == (row.encoder, "solved"))
        assert row.ahead == {}
        if row.shots == 90:  # more than there are: each draw is the whole split
            assert row.metrics["top-1"].mean == whole.metrics["top-1"].mean
            assert (row.block, row.validation) == (whole.block, whole.validation)
    train = found.data["videos"]["train"]
    assert found.data["shots"] == {"2": 4, "8": 16, "90": train}
    (note,) = found.data["notes"]
    assert note.startswith("Classes with fewer than 90 training videos, all of which are used, 2: a (")
    assert f"means over {DRAWS} draws" in " ".join(words.sentences(found))
    assert json.loads((tmp_path / "out" / "results.json").read_text())["curve"][0]["shots"] == 2
    (tmp_path / "out" / "test.safetensors").unlink()
    again = run(tmp_path / "out", world, baselines="yes", shots=(8, 2, 90, "all"), resume=True)
    assert (again.curve, again.rows) == (found.curve, found.rows)


def test_the_figure_of_few_videos_is_that_of_scikit_learn_on_the_videos_drawn(
    tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their five motion statistics, at the penalty without cross-validation, which one video a class has."""
    from layerlock.evaluation import sweep as sweeping

    read: dict[str, np.ndarray] = {}
    original = sweeping.solve

    def noted(sweep: Any, steps: Any, *given: Any) -> None:
        def kept() -> Any:
            batches = list(steps)
            read["x"] = torch.cat([features["motion statistics", 1][:, 0] for features, _ in batches]).numpy()
            read["y"] = torch.cat([target for _, target in batches]).numpy()
            yield from batches

        original(sweep, kept(), *given)

    monkeypatch.setattr("layerlock.evaluation.run.solve", noted)
    run(tmp_path / "out", world, baselines="yes", shots=(1,))
    kept = load_file(tmp_path / "out" / "readouts.safetensors")
    for draw in range(DRAWS):
        drawn = (ranks(torch.from_numpy(read["y"]), torch.arange(len(read["y"])), seed=0, draw=draw) < 1).numpy()
        assert sorted(read["y"][drawn]) == [0, 1]
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1e-2, tol=1e-8))
        logit = model.fit(read["x"][drawn], read["y"][drawn]).decision_function(read["x"])
        name = f"motion statistics/solved/1/0/1 shots{f'/seed {draw}' if draw else ''}/out"
        weight, bias = kept[f"{name}.weight"][:, :5].double().numpy(), kept[f"{name}.bias"].double().numpy()
        ours = read["x"] @ (weight[1] - weight[0]) + bias[1] - bias[0]
        np.testing.assert_allclose(ours, logit, atol=1e-2 * np.abs(logit).max())


def test_shots_of_a_number_are_videos_and_of_other_readouts_nothing_changes(tmp_path: Path, world: Path) -> None:
    changes: dict[str, Any] = {"task": "regression", "column": "number", "readout": "all"}
    plain, found = (run(tmp_path / str(shots), world, shots=shots, **changes) for shots in ((), (6, 99)))
    assert found.rows == plain.rows
    assert [(row.kind, row.shots) for row in found.curve] == [("solved", 6), ("solved", 99)]
    train = found.data["videos"]["train"]
    assert found.data["shots"] == {"6": 6, "99": train}
    assert found.data["notes"] == [f"Training videos: {train}, fewer than 99; all are used"]


@pytest.mark.parametrize("changes", [{"readout": "linear"}, {"task": "retrieval", "readout": None}])
def test_motion_statistics_in_place_of_an_encoder_are_read_by_solved_readouts_alone(
    tmp_path: Path, world: Path, changes: dict[str, Any]
) -> None:
    motion = MotionStatistics(tiny_encoder().clip)
    fields = {"data": str(world), "baselines": "no"}
    found = evaluate(settings(tmp_path / "out", readout="solved", **fields), motion, quiet=True)
    assert [row.kind for row in found.rows] == ["solved", "constant"]
    with pytest.raises(LayerlockError, match="motion statistics: numbers of whole clips, which solved readouts"):
        evaluate(settings(tmp_path / "other", **fields, **changes), motion, quiet=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shots": (0,)}, "shots: 0 is less than 1"),
        ({"shots": (-3, "all")}, "shots: -3 is less than 1"),
        ({"shots": (1,), "task": "regression"}, "shots: 1 is less than 2"),
        ({"shots": ("some",)}, "shots: .*'some'"),
        ({"shots": (1.5,)}, "shots: .*1.5"),
        ({"shots": (1,), "readout": "linear"}, "shots: only used by solved readouts"),
        ({"shots": (1,), "task": "depth"}, "shots: not used by --task depth, only by action, regression"),
        ({"shots": (1,), "task": "retrieval"}, "shots: not used by --task retrieval"),
    ],
)
def test_what_has_no_curve_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(**changes).check()
