"""How data become three splits that have nothing in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from evaluations import index

from layerlock.data.index import Index
from layerlock.data.targets import Column
from layerlock.errors import LayerlockError
from layerlock.evaluation.splits.cut import Cutting
from layerlock.evaluation.splits.open import open_splits
from layerlock.evaluation.splits.own import own_splits
from layerlock.evaluation.splits.split import Split, Splits
from layerlock.evaluation.tasks.task import CLASS, DEPTH

CUTTING = Cutting(by="auto", validation=0.1, test=0.2, seed=0, target=CLASS, span=lambda fps: 8)


def opened(found: Index | dict[str, Index], cutting: Cutting = CUTTING, test_data: str | None = None) -> Splits:
    """Splits of indices that would be found at these paths."""
    read: Callable[[str], Index] = (lambda path: found) if isinstance(found, Index) else found.__getitem__
    return open_splits("/data", test_data, cutting, read)


def paths(split: Split) -> set[str]:
    return {video.path for video in split.index.videos}


def test_every_class_has_its_share_of_every_split_and_no_video_two() -> None:
    data = index([0] * 40 + [1] * 20 + [2] * 3, 3)
    splits = opened(data)
    train, validation, test = (Counter(p.index.labels) for p in (splits.train, splits.validation, splits.test))
    assert test == {0: 8, 1: 4, 2: 1}
    assert validation == {0: 4, 1: 2, 2: 1}
    assert train == {0: 28, 1: 14, 2: 1}
    assert paths(splits.train) | paths(splits.validation) | paths(splits.test) == {v.path for v in data.videos}
    label_of = dict(zip((v.path for v in data.videos), data.labels, strict=True))
    for split in (splits.train, splits.validation, splits.test):
        assert [label_of[video.path] for video in split.index.videos] == list(split.index.labels)
    assert not splits.notes


def test_splits_depend_on_the_seed_and_the_names_alone() -> None:
    data = index([0] * 30 + [1] * 30, 2)
    first = opened(data)
    moved = index([0] * 30 + [1] * 30, 2, root="/elsewhere")
    assert {p.replace("/elsewhere", "/data") for p in paths(opened(moved).test)} == paths(first.test)
    shuffled = data.take(range(60)[::-1])
    assert paths(opened(shuffled).test) == paths(first.test)
    assert paths(opened(data, replace(CUTTING, seed=1)).test) != paths(first.test)


def test_a_class_with_one_video_is_trained_on_and_named() -> None:
    splits = opened(index([0] * 10 + [1], 2))
    assert 1 in splits.train.index.labels
    assert 1 not in (*splits.validation.index.labels, *splits.test.index.labels)
    assert splits.notes == (
        "classes with too few videos to be in the test split, 1: class 1",
        "classes with too few videos to be in the validation split, 1: class 1",
    )


def test_scans_of_one_room_stay_together() -> None:
    data = index([-1] * 30)
    named = [f"/data/scene{row // 3:04d}_{row % 3:02d}/x.sens" for row in range(30)]
    data = replace(data, videos=tuple(replace(v, path=p) for v, p in zip(data.videos, named, strict=True)))
    splits = opened(data, replace(CUTTING, target=DEPTH, by="video"))
    rooms = [{path[6:15] for path in paths(p)} for p in (splits.train, splits.validation, splits.test)]
    assert [len(room) for room in rooms] == [7, 1, 2]
    assert not rooms[0] & rooms[1]
    assert not rooms[0] & rooms[2]
    assert not rooms[1] & rooms[2]


def test_one_scene_is_cut_in_time_with_a_clip_between_the_splits() -> None:
    splits = opened(index([-1], frames=200), replace(CUTTING, target=DEPTH))
    assert splits.train.stretches == ((0, 124),)
    assert splits.validation.stretches == ((132, 140), (140, 148))
    assert splits.test.stretches == tuple((at, at + 8) for at in range(160, 200, 8))
    assert len(splits.test) == 5
    with pytest.raises(LayerlockError, match="39 frames are too few to be cut in time for clips that span 8"):
        opened(index([-1], frames=39), replace(CUTTING, target=DEPTH))


def test_test_data_of_its_own_is_the_test_split_and_its_classes_are_told_by_name() -> None:
    train, test = index([0] * 10 + [1] * 10, 2), index([0, 1, 1], 2, root="/test")
    test = replace(test, targets={"label": replace(test.targets["label"], classes=("class 1", "class 0"))})
    splits = opened({"/data": train, "/test": test}, test_data="/test")
    assert splits.test.index.labels == (1, 0, 0)
    assert len(splits.train) + len(splits.validation) == 20
    assert Counter(splits.validation.index.labels) == {0: 1, 1: 1}
    assert "its own training and test split" in splits.how


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (
            index([0] * 9, 1),
            replace(index([0], 1, root="/t"), targets={"label": Column(values=(0,), classes=("dog",))}),
            "no training video has.*dog",
        ),
        (index([0] * 9, 2), index([1], 2, root="/t"), "classes of the test split that no training video has: class 1"),
        (index([0] * 9, 1), index([0], 1), "/data/000.mp4: in the train and in the test split"),
        (index([-1] * 9), index([0], 1, root="/t"), "no video has a label"),
        (index([0] * 9, 1), index([-1] * 2, root="/t"), "no video has a label"),
        (index([0], 1), index([0], 1, root="/t"), "no video is left for the validation split"),
    ],
    ids=[
        "another class",
        "a class without training",
        "a shared video",
        "no labels",
        "no labels to test on",
        "one video",
    ],
)
def test_what_cannot_be_tested_fairly_is_an_error(train: Index, test: Index, message: str) -> None:
    with pytest.raises(LayerlockError, match=message):
        opened({"/data": train, "/t": test}, test_data="/t")


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_a_test_video_that_is_a_link_to_a_training_video_is_an_error(tmp_path: Path, link: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "t").mkdir()
    (tmp_path / "data" / "000.mp4").touch()
    getattr(tmp_path / "t" / "000.mp4", link)(tmp_path / "data" / "000.mp4")
    train, test = index([0] * 9, 1, root=f"{tmp_path}/data"), index([0], 1, root=f"{tmp_path}/t")
    with pytest.raises(LayerlockError, match=r"t/000\.mp4: in the train and in the test split"):
        opened({"/data": train, "/t": test}, test_data="/t")


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
@pytest.mark.parametrize("labelled", [True, False])
def test_links_to_one_video_are_in_one_split(tmp_path: Path, link: str, labelled: bool) -> None:
    for number in range(20):
        (tmp_path / f"{2 * number:03d}.mp4").touch()
        getattr(tmp_path / f"{2 * number + 1:03d}.mp4", link)(tmp_path / f"{2 * number:03d}.mp4")
    cutting = replace(CUTTING, target=CLASS if labelled else DEPTH)
    splits = opened(index([0] * 40 if labelled else [-1] * 40, int(labelled), root=str(tmp_path)), cutting)
    files = [{Path(path).stat().st_ino for path in paths(p)} for p in (splits.train, splits.validation, splits.test)]
    assert [len(split) for split in files] == [14, 2, 4]
    assert len(set[int]().union(*files)) == 20
    assert sum(map(len, (splits.train, splits.validation, splits.test))) == 40
    data = index([0] * 40 if labelled else [-1] * 40, int(labelled), root=str(tmp_path))
    assert paths(opened(replace(data, videos=data.videos[::-1]), cutting).test) == paths(splits.test)


def test_a_video_in_two_classes_and_two_splits_is_an_error(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number:03d}.mp4").touch()
        (tmp_path / f"{number + 20:03d}.mp4").symlink_to(tmp_path / f"{number:03d}.mp4")
    with pytest.raises(LayerlockError, match=r"\.mp4: in the train and in the (validation|test) split"):
        opened(index([0] * 20 + [1] * 20, 2, root=str(tmp_path)))


def test_what_has_a_test_split_is_not_cut_in_time() -> None:
    found = {"/data": index([0] * 9, 1), "/t": index([0], 1, root="/t")}
    with pytest.raises(LayerlockError, match="split_by: time is not available, since /data has a test split"):
        opened(found, replace(CUTTING, by="time"), test_data="/t")


def test_videos_without_a_label_are_left_out_and_named() -> None:
    splits = opened(index([0] * 20 + [-1], 1))
    assert splits.rejected == (("/data/020.mp4", "it has no label"),)
    assert "/data/020.mp4" not in paths(splits.train) | paths(splits.validation) | paths(splits.test)


@pytest.mark.parametrize(
    ("there", "wanted"),
    [
        (["train/", "val/", "test/"], {"train": "train", "validation": "val", "test": "test"}),
        (["train/", "test/", "other/"], {"train": "train", "test": "test"}),
        (["cat/", "dog/"], {"train": ""}),
        (["train/", "cat/"], {"train": ""}),
        (
            ["something-something-v2-train.json", "something-something-v2-validation.json", "videos/"],
            {"train": "something-something-v2-train.json", "validation": "something-something-v2-validation.json"},
        ),
        (
            ["train.csv", "train.json", "validate.csv", "train/", "validate/"],
            {"train": "train.csv", "validation": "validate.csv"},
        ),
        (["contest.csv", "train.csv", "interval.csv"], {"train": ""}),
    ],
    ids=["three folders", "two folders", "classes", "a class called train", "SSv2", "Kinetics", "other words"],
)
def test_the_datas_own_splits_are_found(tmp_path: Path, there: list[str], wanted: dict[str, str]) -> None:
    for name in there:
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).write_text("")
    assert own_splits(str(tmp_path)) == {role: str(tmp_path / name) for role, name in wanted.items()}


def test_own_splits_are_used_and_two_of_them_mean_that_the_second_is_tested_on(tmp_path: Path) -> None:
    for name in ("train", "val", "test"):
        (tmp_path / name).mkdir()
    train, val, test = index([0] * 10, 1), index([0] * 2, 1, root="/val"), index([0] * 3, 1, root="/test")
    found = {str(tmp_path / "train"): train, str(tmp_path / "val"): val, str(tmp_path / "test"): test}
    three = open_splits(str(tmp_path), None, CUTTING, found.__getitem__)
    assert [len(p) for p in (three.train, three.validation, three.test)] == [10, 2, 3]
    unlabelled = found | {str(tmp_path / "test"): index([-1] * 3, root="/test")}
    two = open_splits(str(tmp_path), None, CUTTING, unlabelled.__getitem__)
    assert [len(p) for p in (two.train, two.validation, two.test)] == [9, 1, 2]
    assert paths(two.test) == paths(three.validation)


def test_a_class_whose_videos_are_all_unusable_is_named() -> None:
    splits = opened(index([0] * 10 + [2] * 10, 4))
    assert splits.classes == ("class 0", "class 1", "class 2", "class 3")
    assert splits.notes == ("classes without a usable video to train on, 2: class 1, class 3",)
    assert not opened(index([-1] * 10), replace(CUTTING, target=DEPTH)).notes
