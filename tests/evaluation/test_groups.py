"""Videos that are not independent stay in one split, whatever says that they are not."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from evaluations import index
from hypothesis import given
from hypothesis import strategies as st

from layerlock.data.index import Index, list_videos
from layerlock.errors import LayerlockError
from layerlock.evaluation.splits.cut import Cutting, by_video
from layerlock.evaluation.splits.groups import group_videos
from layerlock.evaluation.splits.open import open_splits
from layerlock.evaluation.splits.split import Splits
from layerlock.evaluation.tasks.task import CLASS, DEPTH

CUTTING = Cutting(by="auto", validation=0.1, test=0.2, seed=0, target=CLASS, span=lambda fps: 8)


def named(names: Sequence[str], labels: Sequence[int] | None = None, root: str = "/data", **changes: object) -> Index:
    """An index of videos that are not there, called so below its root."""
    labels = [-1] * len(names) if labels is None else labels
    found = index(list(labels), max(labels) + 1, root=root)
    videos = tuple(replace(video, path=f"{root}/{name}") for video, name in zip(found.videos, names, strict=True))
    return replace(found, videos=videos, **changes)  # type: ignore[arg-type]


def opened(found: Index, **changes: object) -> Splits:
    return open_splits("/data", None, replace(CUTTING, **changes), lambda path: found)  # type: ignore[arg-type]


def shared(splits: Splits) -> set[str]:
    """Groups of the test split that other splits have too."""
    return set(splits.test.groups) & {*splits.train.groups, *splits.validation.groups}


UCF = [
    (f"{name}/v_{name}_g{g:02d}_c{c:02d}.avi", n)
    for n, name in enumerate(("Archery", "Yo"))
    for g in range(1, 26)
    for c in range(1, 5)
]
HMDB = [
    (f"{name}/tape_{g}_{name}_u_nm_np1_ba_goo_{c}.avi", n)
    for n, name in enumerate(("brush_hair", "run"))
    for g in range(20)
    for c in range(3)
]
KINETICS = [
    (f"{name}/{g:02d}-_bcdefghi_{10 * c:06d}_{10 * c + 10:06d}.mp4", n)
    for n, name in enumerate(("abseil", "zumba"))
    for g in range(20)
    for c in range(3)
]
PIECES = [
    (f"{name}/{name}{g}{mark}{c}.mp4", n)
    for n, name in enumerate("ab")
    for mark, g in (("_part", 0), ("-chunk", 1), ("_part", 2), (" pt", 3))
    for c in range(3)
]
NUMBERED = [(f"{name}/day{g}{name}_{c:03d}.mp4", n) for n, name in enumerate("ab") for g in range(9) for c in range(4)]
SUBJECTS = [
    (f"person{g:02d}_{name}_d{c}_uncomp.avi", n)
    for n, name in enumerate(("boxing", "walking"))
    for g in range(1, 26)
    for c in range(1, 5)
]


@pytest.mark.parametrize(
    ("videos", "count", "words"),
    [
        (UCF, 50, "UCF101"),
        (HMDB, 20, "HMDB51"),
        (KINETICS, 20, "Kinetics"),
        (PIECES, 8, "numbered pieces"),
        (NUMBERED, 18, "count the pieces of a recording"),
        (SUBJECTS, 25, "KTH"),
    ],
    ids=["UCF101", "HMDB51", "Kinetics", "parts", "numbers", "subjects"],
)
def test_known_names_are_groups_and_no_group_is_in_two_splits(
    videos: list[tuple[str, int]], count: int, words: str
) -> None:
    splits = opened(named(*zip(*videos, strict=True)))  # type: ignore[arg-type]
    assert words in splits.grouping
    assert "cut by group" in splits.how
    groups = [set(split.groups) for split in (splits.train, splits.validation, splits.test)]
    assert len(set[str]().union(*groups)) == sum(map(len, groups)) == count
    for split, share in ((splits.test, 0.2), (splits.validation, 0.1)):
        of = Counter(split.index.labels)
        for label, total in Counter(label for _, label in videos).items():
            largest = max(
                Counter(g for g, own in zip(split.groups, split.index.labels, strict=True) if own == label).values()
            )
            assert abs(of[label] - share * total) <= largest


@pytest.mark.parametrize(
    "names",
    [[f"{n}.webm" for n in range(60)], [f"{'ab'[n % 2]}/{'ab'[n % 2]}_{n:03d}.mp4" for n in range(60)]],
    ids=["numbers", "class and number"],
)
def test_numbers_of_videos_are_no_groups(names: list[str]) -> None:
    splits = opened(named(names, [n % 2 for n in range(60)]))
    assert splits.grouping.startswith("none")
    assert not splits.notes
    assert len(set(splits.test.groups)) == len(splits.test) == 12


def test_rooms_of_sequences_stay_together_and_one_room_alone_is_one_group() -> None:
    rooms = [f"{room}/seq-{n:02d}" for room in ("chess", "fire", "heads", "office", "stairs") for n in range(1, 6)]
    splits = opened(named(rooms), target=DEPTH)
    assert not shared(splits)
    assert set(splits.test.groups) < {"chess", "fire", "heads", "office", "stairs"}
    one = named([f"seq-{n:02d}" for n in range(1, 6)], root="/data/chess")
    assert "cut in time" in opened(one, target=DEPTH).how
    assert set(opened(one, target=DEPTH).test.groups) == {"chess"}
    with pytest.raises(LayerlockError, match=r"all 5 videos are in one group, chess .*--split-by time"):
        opened(one, target=DEPTH, by="video")
    train, test = (replace(one, root=f"/data/chess/{role}") for role in ("train", "test"))
    found = group_videos({"train": named(["seq-01"], root=train.root), "test": named(["seq-02"], root=test.root)}, None)
    assert found.indices["train"].groups == found.indices["test"].groups == ("chess",)


def test_a_pattern_declares_groups_by_its_first_group_or_all_that_it_matches() -> None:
    names = [f"cam{n % 3}/day{n % 10}/x{n}.mp4" for n in range(60)]
    labels = [n % 2 for n in range(60)]
    found = named(names, labels)
    assert {*opened(found, group=r"day(\d)").train.groups} <= set("0123456789")
    assert {*opened(found, group=r"cam\d").train.groups} <= {"cam0", "cam1", "cam2"}
    each = opened(found, group=".+")
    assert sum(len(set(split.groups)) for split in (each.train, each.validation, each.test)) == 60
    assert opened(found, group=r"day\d").grouping == r"--group day\d"
    some = opened(found, group=r"day([0-4])")
    assert some.notes[0].startswith("30 of 60 names do not match 'day([0-4])', and count as a group each: cam2/day5/")
    with pytest.raises(LayerlockError, match=r"group: 'night' is in none of 60 names: cam0/day0/x0\.mp4"):
        opened(found, group="night")


def test_a_column_declares_groups(tmp_path: Path) -> None:
    for n in range(40):
        (tmp_path / f"{n}.mp4").touch()
    lines = [f"{n}.mp4,{'ab'[n % 2]},subject {n % 7}" for n in range(40)]
    (tmp_path / "list.csv").write_text("\n".join(["file_name,label,group", *lines[:-1], "39.mp4,b,"]))
    listing = list_videos(tmp_path / "list.csv")
    assert listing.groups[:8] == (*(f"subject {n}" for n in range(7)), "subject 0")
    found = named([f"{n}.mp4" for n in range(40)], listing.labels, root=str(tmp_path), groups=listing.groups)
    splits = opened(found)
    assert splits.grouping == "the column group of the list"
    assert not shared(splits)
    assert splits.notes[0].startswith("1 of 40 names have no group in the list, and count as a group each: 39.mp4")


def test_names_that_hint_at_groups_are_told() -> None:
    names = [f"{'ab'[n % 2]}/{'tuv'[n % 3]}{'ab'[n % 2]}_{2 * n}.mp4" for n in range(30)]
    splits = opened(named(names, [n % 2 for n in range(30)]))
    assert splits.grouping.startswith("none")
    assert "these names look like groups: " in splits.notes[0]
    assert "pass --group" in splits.notes[0]


@pytest.mark.parametrize("by", ["names", "pattern", "column"])
def test_groups_in_two_splits_that_the_data_bring_are_refused_unless_allowed(by: str) -> None:
    train, test = (
        [f"v_{name}_g{g:02d}_c{c:02d}.avi" for name in ("A", "B") for g in groups for c in range(3)]
        for groups in ((1, 2, 3, 4), (4, 5))
    )
    labels = [int("_B_" in name) for name in (*train, *test)]
    own = {"/data": named(train, labels[: len(train)]), "/t": named(test, labels[len(train) :], root="/t")}
    cutting = CUTTING
    if by == "column":
        own = {path: replace(of, groups=tuple(name.path[-11:-8] for name in of.videos)) for path, of in own.items()}
    if by == "pattern":
        cutting = replace(cutting, group="(g[0-9]+)")
    what = "v_A_g04" if by == "names" else "g04"
    with pytest.raises(
        LayerlockError, match=rf"groups are in several splits: {what} \(test and train\).*shared-groups"
    ):
        open_splits("/data", "/t", cutting, own.__getitem__)
    splits = open_splits("/data", "/t", replace(cutting, shared=True), own.__getitem__)
    assert any(what in note and note.startswith("!") for note in splits.notes)
    fair = own | {"/t": own["/t"].take([3, 4, 5])}
    assert len(open_splits("/data", "/t", cutting, fair.__getitem__).test) == 3


def test_a_class_of_one_group_is_told() -> None:
    names = [f"v_A_g{n:02d}_c01.avi" for n in range(20)] + [f"v_B_g01_c{n:02d}.avi" for n in range(8)]
    splits = opened(named(names, [0] * 20 + [1] * 8))
    assert set(splits.test.index.labels) == {0}
    assert "too few groups to be in the test split, 1: class 1 (its 8 videos are of 1 group)" in splits.notes[0]
    with pytest.raises(
        LayerlockError, match=r"no video is left for the test split.*class 0 \(its 20 videos are of 1 group"
    ):
        opened(named(names, [0] * 20 + [1] * 8), group="v_(.)_")


def test_copies_of_a_file_are_one_video(tmp_path: Path) -> None:
    for n in range(40):
        (tmp_path / f"{n:03d}.mp4").write_bytes(bytes([n // 2] * 9))
    found = index([0] * 40, 1, root=str(tmp_path), bytes=9)
    splits = opened(found)
    pairs = [
        {int(Path(video.path).stem) // 2 for video in split.index.videos}
        for split in (splits.train, splits.validation, splits.test)
    ]
    assert sum(map(len, pairs)) == len(set[int]().union(*pairs)) == 20
    other = index([0] * 4, 1, root=str(tmp_path / "t"), bytes=9)
    (tmp_path / "t").mkdir()
    for n in range(4):
        (tmp_path / "t" / f"{n:03d}.mp4").write_bytes(bytes([90 + n] * 9))
    sources = {"/data": found, "/t": other}
    assert len(open_splits("/data", "/t", CUTTING, sources.__getitem__).test) == 4
    (tmp_path / "t" / "002.mp4").write_bytes(bytes([7] * 9))
    with pytest.raises(LayerlockError, match=r"t/002\.mp4: in the train and in the test split"):
        open_splits("/data", "/t", CUTTING, sources.__getitem__)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 12)), min_size=12, max_size=80), st.integers(0, 9))
def test_whatever_the_groups_they_stay_whole_and_every_class_is_trained_on(
    videos: list[tuple[int, int]], seed: int
) -> None:
    found = named([f"{n}.mp4" for n in range(len(videos))], [label for label, _ in videos])
    found = replace(found, groups=tuple(f"group {group}" for _, group in videos))
    rows, _ = by_video(found, replace(CUTTING, seed=seed))
    assert sorted(row for split in rows.values() for row in split) == list(range(len(videos)))
    splits_of, groups_of = defaultdict(set), defaultdict(set)
    for role, split in rows.items():
        for row in split:
            splits_of[videos[row][1]].add(role)
            groups_of[videos[row][0]].add(videos[row][1])
    assert all(len(roles) == 1 for roles in splits_of.values())
    assert {videos[row][0] for row in rows["train"]} == set(groups_of)
