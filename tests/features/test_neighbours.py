"""Nearest neighbours against scikit-learn."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from layerlock.features import neighbours as room
from layerlock.features.neighbours import Retrieval, leave_one_out, neighbours


def clusters(count: int, labels: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(labels, (count,), generator=generator)
    return torch.randn(labels, 8, generator=generator)[label] + torch.randn(count, 8, generator=generator), label


def same(a: Retrieval, b: Retrieval) -> bool:
    return torch.equal(a.query_q, b.query_q) and torch.equal(a.first_q, b.first_q)


@pytest.fixture(params=[2**22, 7 * 60, 1], ids=["at once", "in parts", "one by one"])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PAIRS", request.param)


@pytest.mark.usefixtures("block")
def test_neighbours_are_scikit_learns_and_never_oneself() -> None:
    features, _ = clusters(40, 4)
    index, cosine = neighbours(features, 5)
    found = NearestNeighbors(n_neighbors=6, metric="cosine").fit(features.numpy())
    distance, wanted = found.kneighbors(features.numpy())
    assert np.array_equal(index.numpy(), wanted[:, 1:])
    assert np.allclose(cosine.numpy(), 1 - distance[:, 1:], atol=1e-5)
    some, _ = neighbours(features, 5, torch.tensor([3, 39]))
    assert torch.equal(some, index[[3, 39]])


@pytest.mark.usefixtures("block")
def test_mean_average_precision_and_top_k_are_scikit_learns() -> None:
    features, label = clusters(60, 5)
    x = torch.nn.functional.normalize(features.double(), dim=1).numpy()
    cosine, precision, first = x @ x.T, [], {1: [], 5: [], 10: []}
    for query in range(60):
        others = np.arange(60) != query
        hit = (label == label[query]).numpy()[others]
        precision.append(average_precision_score(hit, cosine[query, others]))
        order = np.argsort(-cosine[query, others])
        for k, found in first.items():
            found.append(bool(hit[order[:k]].any()))
    result = leave_one_out(features, label)
    assert result.query_q.tolist() == list(range(60))
    assert result.average_precision_q.numpy() == pytest.approx(np.array(precision), abs=1e-6)
    for k, found in first.items():
        assert (result.first_q < k).tolist() == found


@pytest.mark.usefixtures("block")
def test_a_label_that_stands_alone_asks_nothing_but_can_be_in_the_way() -> None:
    features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    alone = leave_one_out(features, torch.tensor([0, 1, 0]))
    assert (alone.query_q.tolist(), alone.first_q.tolist()) == ([0, 2], [1, 1])
    assert alone.average_precision_q.tolist() == pytest.approx([0.5, 0.5])


@pytest.mark.usefixtures("block")
def test_neighbours_of_the_same_group_do_not_count() -> None:
    features, label = clusters(60, 5)
    group = torch.arange(60) // 3
    x = torch.nn.functional.normalize(features.double(), dim=1).numpy()
    precision = []
    for query in range(60):
        others = (group != group[query]).numpy()
        hit = (label == label[query]).numpy()[others]
        precision.append(average_precision_score(hit, (x @ x.T)[query, others]))
    result = leave_one_out(features, label, group_v=group)
    assert result.average_precision_q.numpy() == pytest.approx(np.array(precision), abs=1e-6)
    assert (group[result.nearest_q] != group[result.query_q]).all()
    assert same(leave_one_out(features, label, group_v=torch.arange(60)), leave_one_out(features, label))
    alone = leave_one_out(torch.eye(5), torch.tensor([0, 0, 1, 1, 1]), group_v=torch.tensor([0, 0, 1, 1, 2]))
    assert alone.query_q.tolist() == [2, 3, 4]
    with pytest.raises(ValueError, match="no label occurs in two groups"):
        leave_one_out(torch.eye(4), torch.tensor([0, 0, 1, 1]), group_v=torch.tensor([0, 0, 1, 1]))


def test_length_does_not_matter() -> None:
    features, label = clusters(30, 3)
    scaled = features * torch.linspace(0.1, 50, 30)[:, None]
    assert same(leave_one_out(features, label), leave_one_out(scaled, label))


def test_perfect_clusters_score_one() -> None:
    label = torch.arange(12) % 3
    assert leave_one_out(torch.eye(3)[label] + 0.01, label).average_precision_q.tolist() == pytest.approx([1.0] * 12)


def test_what_cannot_be_answered_is_an_error() -> None:
    with pytest.raises(ValueError, match="3 neighbours among 3"):
        neighbours(torch.eye(3), 3)
    with pytest.raises(ValueError, match="no label occurs twice"):
        leave_one_out(torch.eye(3), torch.arange(3))


class Kept(TorchDispatchMode):
    """The bytes of all tensors that are alive at once, at most, of those made within it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.seen: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for x in made if isinstance(made, list | tuple) else [made]:
            if isinstance(x, Tensor) and (storage := x.untyped_storage()).data_ptr() not in self.seen:
                self.seen[storage.data_ptr()] = storage.nbytes()
                self.now += storage.nbytes()
                weakref.finalize(storage, self.gone, storage.data_ptr())
        self.most = max(self.most, self.now)
        return made

    def gone(self, place: int) -> None:
        self.now -= self.seen.pop(place)


def most_kept(videos: int, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(room, "PAIRS", 2**14)
    features, label = clusters(videos, 5)
    with Kept() as kept:
        leave_one_out(features, label)
    return kept.most


def test_memory_does_not_grow_with_the_square_of_the_videos(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = most_kept(500, monkeypatch), most_kept(4_000, monkeypatch)
    assert large < 2 * small
