from __future__ import annotations

import pickle

import pytest
import torch

from layerlock.data import Batch, ClipConfig, Sample, collate


def make(index: int, *, skipped: tuple[tuple[str, str], ...] = (), depth: bool = False) -> Sample:
    return Sample(
        index=index,
        name=f"video {index}",
        video_tchw=torch.full((2, 3, 9, 9), index, dtype=torch.uint8),
        crop=(index % 2, 1, 8, 8),
        flip=index % 2 == 0,
        targets={"label": torch.tensor(index + 5), "speed": torch.tensor(index / 4)}
        | ({"depth": torch.full((2, 9, 9), float(index))} if depth else {}),
        skipped=skipped,
    )


def test_resize_side_and_span() -> None:
    assert ClipConfig().resize_side == 258
    assert ClipConfig(size=64).resize_side == 74
    assert ClipConfig(frames=16, stride=2).cut(0).span(25) == 31
    assert ClipConfig(frames=1, stride=9).cut(0).span(25) == 1
    assert ClipConfig(frames=16, fps=10).cut(0).span(25) == 39


@pytest.mark.parametrize("field", ["frames", "stride", "size", "per_decode"])
def test_each_bad_field_is_named(field: str) -> None:
    assert ClipConfig().problems() == []
    (problem,) = ClipConfig(**{field: 0}).problems()
    assert f"clip.{field} is 0" in problem


@pytest.mark.parametrize("resize", [0.99, 100.0, float("nan")])
def test_bad_resize_is_named(resize: float) -> None:
    assert "clip.resize" in ClipConfig(resize=resize).problems()[0]


def test_all_problems_come_together() -> None:
    assert len(ClipConfig(frames=0, stride=-1, size=0, resize=0.0).problems()) == 4


def test_collate_stacks_in_order_and_gathers_what_was_skipped() -> None:
    batch = collate([make(3), make(4, skipped=(("a.mp4", "empty"),))], size=8)
    assert batch.index_b.tolist() == [3, 4]
    assert batch.names == ("video 3", "video 4")
    assert batch.video_btchw.shape == (2, 2, 3, 9, 9)
    assert batch.crop_b4.tolist() == [[1, 1, 8, 8], [0, 1, 8, 8]]
    assert batch.flip_b.tolist() == [False, True]
    assert {name: target.tolist() for name, target in batch.targets.items()} == {"label": [8, 9], "speed": [0.75, 1.0]}
    assert batch.skipped == (("a.mp4", "empty"),)
    assert len(batch) == 2
    assert (batch.index_b.dtype, batch.crop_b4.dtype, batch.flip_b.dtype) == (torch.int64, torch.float32, torch.bool)
    assert (batch.targets["label"].dtype, batch.targets["speed"].dtype) == (torch.int64, torch.float32)


def test_slices_put_together_are_the_batch() -> None:
    batch = collate([make(i, depth=True, skipped=((f"{i}", "bad"),)) for i in range(5)], size=8)
    parts = [batch.slice(0, 2), batch.slice(2, 4), batch.slice(4, 5)]
    assert torch.equal(torch.cat([part.video_btchw for part in parts]), batch.video_btchw)
    for name, target in batch.targets.items():
        assert torch.equal(torch.cat([part.targets[name] for part in parts]), target)
    assert sum((part.names for part in parts), ()) == batch.names
    assert sum((part.skipped for part in parts), ()) == batch.skipped


def test_every_other_clip_is_a_batch_too() -> None:
    batch = collate([make(i, depth=True) for i in range(5)], size=8).slice(0, 5, 2)
    assert batch.names == ("video 0", "video 2", "video 4")
    assert batch.index_b.tolist() == [0, 2, 4]
    assert batch.targets["label"].tolist() == [5, 7, 9]
    assert len(batch.video_btchw) == len(batch.targets["depth"]) == len(batch.crop_b4) == 3


def test_batch_moves_and_pickles() -> None:
    batch = collate([make(1, depth=True)], size=8)
    assert batch.to("meta").video_btchw.device.type == "meta"
    assert batch.to("meta").targets["depth"].device.type == "meta"
    again: Batch = pickle.loads(pickle.dumps(batch))
    assert torch.equal(again.video_btchw, batch.video_btchw)
