"""What is found in each layout, without opening a video: the files of these tests are empty."""

from __future__ import annotations

import csv
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerlock.data.index.layouts import list_videos
from layerlock.data.index.listing import Listing, NothingUsable
from layerlock.data.targets import Column
from layerlock.errors import LayerlockError


def touch(root: Path, *names: str) -> Path:
    """Empty files below a folder."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def names(listing: Listing, root: Path) -> list[str]:
    return [os.path.relpath(path, root) for path in listing.paths]


def labelled(listing: Listing, root: Path) -> dict[str, str | None]:
    """The class of each path, by name."""
    assert len(listing.labels) == len(listing.paths)
    classes = [None if label == -1 else listing.classes[label] for label in listing.labels]
    return dict(zip(names(listing, root), classes, strict=True))


def close(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets nobody, root included, search folders called `closed`."""
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if path.endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)


# folders


def test_files_are_found_by_ending_and_links_that_lead_back_are_not_followed(tmp_path: Path) -> None:
    touch(tmp_path, "b/good.mp4", "A.MP4", "notes.txt", "mp4", "c/d/e.webm")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    (tmp_path / "self.mp4").symlink_to("self.mp4")
    listing = list_videos(tmp_path)
    assert names(listing, tmp_path) == ["A.MP4", "b/good.mp4", "c/d/e.webm", "self.mp4"]
    assert (listing.layout, listing.classes, set(listing.labels)) == ("folder", (), {-1})
    assert (listing.data, listing.root, listing.rejected) == (str(tmp_path), str(tmp_path), ())


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", ".b.mp4", "sub/._c.mp4", ".trash/d.mp4", ".scene/1.jpg", ".scene/2.jpg")
    touch(tmp_path, "frames/1.jpg", "frames/2.jpg", "frames/.thumbnails/1.mp4")
    assert names(list_videos(tmp_path), tmp_path) == ["a.mp4", "frames"]
    assert names(list_videos(tmp_path / ".trash"), tmp_path) == [".trash/d.mp4"]


def test_links_to_folders_elsewhere_are_followed(tmp_path: Path) -> None:
    touch(tmp_path / "disk", "a.mp4")
    (tmp_path / "data").mkdir()
    for name in ("one", "two"):
        (tmp_path / "data" / name).symlink_to(tmp_path / "disk")
    assert names(list_videos(tmp_path / "data"), tmp_path / "data") == ["one/a.mp4", "two/a.mp4"]


def test_class_folders_are_labels_where_every_video_is_in_one(tmp_path: Path) -> None:
    touch(tmp_path, "zebra/1.mp4", "ant/2.mp4", "ant/1.mp4", "bee/frames/1.jpg", "bee/frames/2.jpg", "cat/notes.txt")
    listing = list_videos(tmp_path)
    assert listing.layout == "class folders"
    assert listing.classes == ("ant", "bee", "zebra")
    assert labelled(listing, tmp_path) == {
        "ant/1.mp4": "ant",
        "ant/2.mp4": "ant",
        "bee/frames": "bee",
        "zebra/1.mp4": "zebra",
    }
    touch(tmp_path, "loose.mp4")
    assert list_videos(tmp_path).classes == ()
    (tmp_path / "loose.mp4").rename(tmp_path / "ant" / "deep.mp4")
    assert len(list_videos(tmp_path)) == 5
    touch(tmp_path, "ant/deeper/1.mp4")
    assert list_videos(tmp_path).classes == ()


def test_a_folder_of_frames_is_one_video_and_is_not_searched(tmp_path: Path) -> None:
    touch(tmp_path, "one/1.jpg", "one/2.jpg", "two/color/1.jpg", "two/depth/1.png", "two/color/film.mp4", "three.mp4")
    listing = list_videos(tmp_path)
    assert names(listing, tmp_path) == ["one", "three.mp4", "two"]
    assert listing.classes == ()


def test_a_folder_of_frames_by_itself(tmp_path: Path) -> None:
    root = touch(tmp_path / "scene", "1.color.jpg", "1.depth.png")
    listing = list_videos(root)
    assert (listing.paths, listing.labels, listing.root) == ((str(root),), (-1,), str(tmp_path))
    assert listing.layout == "folder of frames"


def test_a_single_video_is_taken_whatever_its_ending(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.film")
    for name in ("a.mp4", "b.film"):
        listing = list_videos(tmp_path / name)
        assert (listing.paths, listing.labels) == ((str(tmp_path / name),), (-1,))
        assert (listing.root, listing.layout) == (str(tmp_path), "single video")


def test_folders_that_cannot_be_searched_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "open/a.mp4", "closed/b.mp4")
    close(monkeypatch)
    listing = list_videos(tmp_path)
    assert names(listing, tmp_path) == ["open/a.mp4"]
    assert listing.rejected == ((str(tmp_path / "closed"), "the folder cannot be searched: Permission denied"),)
    with pytest.raises(NothingUsable, match="closed: the folder cannot be searched"):
        list_videos(tmp_path / "closed")


def test_data_that_are_not_there_and_folders_without_videos_are_said(tmp_path: Path) -> None:
    with pytest.raises(LayerlockError, match=r"nowhere: there is no such folder, list or video"):
        list_videos(tmp_path / "nowhere")
    touch(tmp_path, "a.text")
    with pytest.raises(LayerlockError, match=r"no videos in .* \.mp4"):
        list_videos(tmp_path)
    with pytest.raises(LayerlockError, match=r"data: the name is empty"):
        list_videos("")


# lists of paths


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.mp4 2\nb.mp4 0\n", {"a.mp4": "2", "b.mp4": "0"}),
        ("a.mp4,2\r\nb.mp4,0", {"a.mp4": "2", "b.mp4": "0"}),
        ("\ufeffa.mp4\t2\n\n  b.mp4 ,  0  \n", {"a.mp4": "2", "b.mp4": "0"}),
        ("my holiday, 2024.mp4 1\n", {"my holiday, 2024.mp4": "1"}),
        ("my holiday, 2024.mp4,1\n", {"my holiday, 2024.mp4": "1"}),
        (
            '"a 1.mp4" 1\n"b ""2"".mp4",0\n"two\nlines.mp4",2\n',
            {"a 1.mp4": "1", 'b "2".mp4': "0", "two\nlines.mp4": "2"},
        ),
        ('"a.mp4","3"\n', {"a.mp4": "3"}),
        ('my;holiday.mp4;1\n"b.mp4"; 0\n', {"my;holiday.mp4": "1", "b.mp4": "0"}),
        ("frames/0001 3\nframes/0002 -1\n", {"frames/0001": "3", "frames/0002": None}),
        ("été/ночь 夜.mp4 0", {"été/ночь 夜.mp4": "0"}),
        ("a.mp4 7\na.mp4 7\nb.mp4 7\n", {"a.mp4": "7", "b.mp4": "7"}),
        ('it"s.mp4 4', {'it"s.mp4': "4"}),
        ("a.mp4\nb c.mp4\n\nd, e.mp4\n", {"a.mp4": None, "b c.mp4": None, "d, e.mp4": None}),
        ('frames/0001\n"b 1"\nthere 2\n', {"frames/0001": None, "b 1": None, "there 2": None}),
        ("there 2\na.mp4\n", {"there 2": None, "a.mp4": None}),
        ("a.mp4 250 2\nb c.mp4 9 0\n", {"a.mp4": "2", "b c.mp4": "0"}),
        ("frames/0001 250 3\nframes/0002 9 -1\n", {"frames/0001": "3", "frames/0002": None}),
        ("a,250,1\r\nb,250,0\r\n", {"a": "1", "b": "0"}),
        ('"a 1.mp4",250,3\nb.mp4\t250\t4\n"c.mp4" "9" "1"\n', {"a 1.mp4": "3", "b.mp4": "4", "c.mp4": "1"}),
        ("gone 1 0\nthere 2 1\n", {"gone 1": "0", "there 2": "1"}),
        ("there 2 250 1\n", {"there 2": "1"}),
        ("a.mp4 1.0\nb.mp4 0.\nc.mp4 -1.0\n", {"a.mp4": "1", "b.mp4": "0", "c.mp4": None}),
        ("videos\\a.mp4 1\nvideos\\x\\b.mp4,0\n", {"videos/a.mp4": "1", "videos/x/b.mp4": "0"}),
        ('"videos\\a.mp4"\n', {"videos/a.mp4": None}),
    ],
)
@pytest.mark.parametrize("ending", ["csv", "txt"])
def test_path_lists(tmp_path: Path, ending: str, text: str, expected: dict[str, str | None]) -> None:
    (tmp_path / "there 2").mkdir()
    listing = list_videos(write(tmp_path / f"list.{ending}", text))
    assert labelled(listing, tmp_path) == expected
    assert list(expected) == names(listing, tmp_path)
    assert listing.root == str(tmp_path)
    assert listing.layout == ("list of paths and labels" if set(expected.values()) - {None} else "list of paths")


@pytest.mark.parametrize(
    "text",
    [
        "path,label\na.mp4,2\nb c.mp4,0\n",
        "\ufeffPath;Frames;Label\r\na.mp4;250;2.0\r\nb c.mp4;9;0.0\r\n",
        "video\tclass\na.mp4\t2\nb c.mp4\t0\n",
        'path label\n"a.mp4" 2\n"b c.mp4" 0\n',
        ',"filename","label"\n0,"a.mp4","2"\n1,"b c.mp4","0"\n',
        "label,video_path\n2,a.mp4\n0,b c.mp4\n",
        "file_name,label,class_name\na.mp4,2,cats\nb c.mp4,0,dogs\n",
    ],
)
def test_lists_whose_first_line_names_their_columns(tmp_path: Path, text: str) -> None:
    listing = list_videos(write(tmp_path / "list.csv", text))
    assert labelled(listing, tmp_path) == {"a.mp4": "2", "b c.mp4": "0"}


def test_a_video_may_be_called_like_a_column(tmp_path: Path) -> None:
    (tmp_path / "video").mkdir()
    (tmp_path / "my clip").mkdir()
    assert names(list_videos(write(tmp_path / "list.txt", "video\nlabel\n")), tmp_path) == ["video", "label"]
    assert names(list_videos(write(tmp_path / "b.txt", "my clip\na.mp4\n")), tmp_path) == ["my clip", "a.mp4"]


def test_backslashes_that_are_there_stay(tmp_path: Path) -> None:
    touch(tmp_path, "a\\b.mp4")
    listing = list_videos(write(tmp_path / "list.csv", "a\\b.mp4 1\na\\c.mp4 0\n"))
    assert names(listing, tmp_path) == ["a\\b.mp4", "a/c.mp4"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.txt", "x/a.mp4 1\n/elsewhere/b.mp4 0\n"),
        ("list.csv", "path,label\nx/a.mp4,1\n/elsewhere/b.mp4,0\n"),
        ("list.jsonl", '{"file_name": "x/a.mp4", "label": 1}\n{"file_name": "/elsewhere/b.mp4", "label": 0}\n'),
        ("metadata.csv", "file_name,label\nx/a.mp4,1\n/elsewhere/b.mp4,0\n"),
    ],
)
def test_a_list_that_stands_elsewhere_than_its_videos(tmp_path: Path, name: str, text: str) -> None:
    path = write(tmp_path / "lists" / name, text)
    (tmp_path / "videos").mkdir()
    listing = list_videos(path.parent if name.startswith("metadata") else path, str(tmp_path / "videos"))
    assert listing.paths == (str(tmp_path / "videos" / "x" / "a.mp4"), "/elsewhere/b.mp4")
    assert (listing.root, listing.labels) == (str(tmp_path / "videos"), (1, 0))


def test_published_lists_that_stand_elsewhere(tmp_path: Path) -> None:
    touch(tmp_path / "videos", "x/a_000001_000011.mp4", "7.webm")
    root = str(tmp_path / "videos")
    kinetics = write(tmp_path / "lists" / "k.csv", "label,youtube_id,time_start,time_end\ncat,a,1,11\n")
    assert names(list_videos(kinetics, root), tmp_path) == ["videos/x/a_000001_000011.mp4"]
    something = write(tmp_path / "lists" / "s.json", json.dumps([ssv2(7)]))
    assert names(list_videos(something, root), tmp_path) == ["videos/7.webm"]


def test_a_root_that_is_not_there_or_not_asked_for_is_said(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    path = write(tmp_path / "list.txt", "a.mp4\n")
    with pytest.raises(LayerlockError, match=r"data_root: .*gone: there is no such folder"):
        list_videos(path, str(tmp_path / "gone"))
    for data in (tmp_path, tmp_path / "a.mp4"):
        with pytest.raises(LayerlockError, match=r"data_root: .* is not a list of paths"):
            list_videos(data, str(tmp_path))


def test_labels_of_path_lists_keep_their_numbers_and_absolute_paths_stay(tmp_path: Path) -> None:
    listing = list_videos(write(tmp_path / "lists" / "train.csv", "/elsewhere/a.mp4 4\n../b.mp4 2\n"))
    assert listing.paths == ("/elsewhere/a.mp4", str(tmp_path / "b.mp4"))
    assert (listing.labels, listing.classes) == ((4, 2), ("0", "1", "2", "3", "4"))
    assert [listing.place(position) for position in range(2)] == ["train.csv, line 1", "train.csv, line 2"]


file_names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\\"), min_size=1)


@given(
    rows=st.lists(st.tuples(file_names, st.integers(0, 999)), min_size=1, unique_by=lambda row: os.path.abspath(row[0]))
)
def test_any_name_in_quotes_is_read_as_it_is(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("list")
    text = "".join('"{}",{}\n'.format(name.replace('"', '""'), label) for name, label in rows)
    (folder / "list.csv").write_bytes(text.encode())
    listing = list_videos(folder / "list.csv")
    assert list(listing.paths) == [os.path.abspath(os.path.join(folder, name)) for name, _ in rows]
    assert list(listing.labels) == [label for _, label in rows]
    with (folder / "named.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("file_name", "label"), *rows])
    named = list_videos(folder / "named.csv")
    assert (named.paths, named.labels) == (listing.paths, listing.labels)


# metadata beside the videos


def write_metadata(folder: Path, ending: str, rows: Sequence[dict[str, Any]]) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"metadata.{ending}"
    if ending == "csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif ending == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_metadata_beside_the_videos(tmp_path: Path, ending: str) -> None:
    rows = [
        {"caption": "x", "file_name": "b.mp4", "label": "walk"},
        {"caption": 'the "x", y', "file_name": "sub/a, b\nc.mp4", "label": "ride"},
        {"caption": "", "file_name": "c.mp4", "label": None},
    ]
    path = write_metadata(tmp_path, ending, rows)
    touch(tmp_path, "not listed.mp4")
    listing = list_videos(tmp_path)
    assert labelled(listing, tmp_path) == {"b.mp4": "walk", "sub/a, b\nc.mp4": "ride", "c.mp4": None}
    assert (listing.layout, listing.classes, listing.root) == (path.name, ("ride", "walk"), str(tmp_path))
    assert listing.data == str(tmp_path)
    assert list_videos(path).paths == listing.paths
    place = {"csv": "metadata.csv, line 5", "jsonl": "metadata.jsonl, line 3", "parquet": "metadata.parquet, row 3"}
    assert listing.place(2) == place[ending]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_whole_numbers_as_labels_of_metadata_are_kept(tmp_path: Path, ending: str) -> None:
    write_metadata(tmp_path, ending, [{"file_name": f"{label}.mp4", "label": label} for label in (3, 0)])
    assert (list_videos(tmp_path).labels, list_videos(tmp_path).classes) == ((3, 0), ("0", "1", "2", "3"))


def test_labels_of_a_column_with_gaps_are_whole_numbers(tmp_path: Path) -> None:
    rows = [{"file_name": "a.mp4", "label": 1.0}, {"file_name": "b.mp4", "label": float("nan")}, {"file_name": "c.mp4"}]
    write_metadata(tmp_path, "jsonl", rows)
    assert list_videos(tmp_path).labels == (1, -1, -1)


@pytest.mark.parametrize(
    "text",
    [
        "file_name, label\na.mp4, run\nb.mp4,  sit up \n",
        'file_name ,"label"\na.mp4,"run"\nb.mp4, "sit up"\n',
        "\n  \nfile_name;label\na.mp4;run\n  \nb.mp4; sit up\n",
        '"label"\tfile_name\nrun\ta.mp4\n"sit up"\tb.mp4\n',
        "label;caption, old; file_name\nrun;a, b;a.mp4\nsit up;;b.mp4\n",
    ],
)
def test_separators_of_named_columns_and_spaces_around_them(tmp_path: Path, text: str) -> None:
    listing = list_videos(write(tmp_path / "set.csv", text))
    assert labelled(listing, tmp_path) == {"a.mp4": "run", "b.mp4": "sit up"}


COLUMNS = [
    {"file_name": "a.mp4", "speed": 0.5, "age": 3, "room": "hall", "mass:float": 7, "size:class": 0.5, "seen": True},
    {"file_name": "b.mp4", "speed": None, "age": None, "room": "attic", "mass:float": None, "size:class": None},
    {"file_name": "c.mp4", "speed": -2.0, "age": 0, "room": None, "mass:float": 1.5, "size:class": 1.25, "seen": None},
]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_columns_are_targets(tmp_path: Path, ending: str) -> None:
    """Those with a kind always; others when they are asked for, as what they are or as numbers."""
    write_metadata(tmp_path, ending, COLUMNS)
    sizes = Column(values=(0, -1, 1), classes=("0.5", "1.25"))
    always = {"mass": Column(values=(7.0, math.nan, 1.5)), "size": sizes}
    assert repr(list_videos(tmp_path).targets) == repr(always)
    found = list_videos(tmp_path, wanted={"speed": None, "age": None, "room": "class"}).targets
    assert repr(found["speed"]) == repr(Column(values=(0.5, math.nan, -2.0)))
    assert found["age"] == Column(values=(3, -1, 0), classes=("0", "1", "2", "3"))
    assert found["room"] == Column(values=(1, 0, -1), classes=("attic", "hall"))
    ages = list_videos(tmp_path, wanted={"age": "float"}).targets["age"]
    assert repr(ages) == repr(Column(values=(3.0, math.nan, 0.0)))


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"sped": None}, r"metadata.csv: there is no column sped; its columns are: file_name, speed, age, room"),
        (
            {"speed": "class"},
            r"metadata.csv, line 2: speed is 0.5, which is not a class; .* name the column speed:class",
        ),
        ({"room": "float"}, r"metadata.csv, line 2: room is 'hall'; it has to be a number"),
        ({"mass": "class"}, r"metadata.csv: the column mass:float is not a class"),
    ],
)
def test_columns_that_are_not_what_is_wanted(tmp_path: Path, wanted: Any, words: str) -> None:
    write_metadata(tmp_path, "csv", COLUMNS)
    with pytest.raises(LayerlockError, match=words):
        list_videos(tmp_path, wanted=wanted)


def test_columns_of_published_lists_are_targets(tmp_path: Path) -> None:
    touch(tmp_path, "a_000001_000011.mp4", "1.webm")
    kinetics = write(tmp_path / "k.csv", "label,youtube_id,time_start,time_end,split\ncat,a,1,11,val\n")
    assert list_videos(kinetics, wanted={"split": None}).targets["split"] == Column(values=(0,), classes=("val",))
    something = write(tmp_path / "s.json", json.dumps([ssv2(1, seconds=2.5)]))
    found = list_videos(something, wanted={"seconds": None, "label": "class"})
    assert found.targets["seconds"] == Column(values=(2.5,))
    assert found.classes == ("Holding something",)


def test_what_is_no_list_has_no_columns(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    for data in (tmp_path, tmp_path / "a.mp4"):
        assert list_videos(data, wanted={"label": None}).targets == {}
        with pytest.raises(LayerlockError, match="it is not a list, so it has no column speed"):
            list_videos(data, wanted={"speed": None})


@pytest.mark.parametrize("text", ["a.mp4 0.37\nb.mp4 2\nc.mp4 nan\n", "path,label\na.mp4,0.37\nb.mp4,2\nc.mp4,\n"])
def test_labels_with_a_fraction_are_numbers(tmp_path: Path, text: str) -> None:
    listing = list_videos(write(tmp_path / "list.csv", text))
    assert repr(listing.targets) == repr({"label": Column(values=(0.37, 2.0, math.nan))})
    assert (listing.labels, listing.classes) == ((-1, -1, -1), ())


def test_class_names_that_are_numbers_stay_as_they_are_written(tmp_path: Path) -> None:
    listing = list_videos(write(tmp_path / "list.csv", "path,label:class\na.mp4,1.50\nb.mp4,007\nc.mp4,1e3\n"))
    assert labelled(listing, tmp_path) == {"a.mp4": "1.50", "b.mp4": "007", "c.mp4": "1e3"}


def test_metadata_without_labels(tmp_path: Path) -> None:
    write(tmp_path / "metadata.csv", "file_name\na.mp4\n")
    assert (list_videos(tmp_path).labels, list_videos(tmp_path).classes) == ((-1,), ())


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "metadata.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(LayerlockError, match=r"metadata\.parquet: .*layerlock\[parquet\]"):
        list_videos(tmp_path)


def test_parquet_that_is_none_or_lacks_the_column(tmp_path: Path) -> None:
    write_metadata(tmp_path, "parquet", [{"name": "a.mp4", "label": 1}])
    with pytest.raises(LayerlockError, match="no column file_name; its columns are: name, label"):
        list_videos(tmp_path)
    write(tmp_path / "metadata.parquet", "no parquet")
    with pytest.raises(LayerlockError, match=r"metadata\.parquet: it cannot be read as parquet"):
        list_videos(tmp_path)


# published data sets


def ssv2(number: int, something: str = "potato", **fields: Any) -> dict[str, Any]:
    template = "Holding [something]" if number % 2 else "Approaching [something] with your camera"
    return {
        "id": str(number),
        "label": f"holding {something}",
        "template": template,
        "placeholders": [something],
    } | fields


SSV2_CLASSES = {"Holding something": "1", "Approaching something with your camera": "2", "Never seen": "0"}


@pytest.mark.parametrize("labels", [None, "labels.json", "something-something-v2-labels.json"])
@pytest.mark.parametrize("beside", [True, False])
def test_something_something(tmp_path: Path, labels: str | None, beside: bool) -> None:
    touch(tmp_path / "20bn-something-something-v2", "2.webm", "1.webm", "9.webm", "5.txt")
    folder = tmp_path if beside else tmp_path / "labels"
    path = write(folder / "train.json", json.dumps([ssv2(2), ssv2(1), ssv2(5)]))
    if labels:
        write(folder / labels, json.dumps(SSV2_CLASSES))
    listing = list_videos(path)
    videos = tmp_path / "20bn-something-something-v2"
    assert labelled(listing, videos) == {
        "2.webm": "Approaching something with your camera",
        "1.webm": "Holding something",
    }
    assert listing.labels == ((2, 1) if labels else (0, 1))
    assert len(listing.classes) == (3 if labels else 2)
    assert listing.layout == "Something-Something v2"
    assert listing.root == str(tmp_path)
    assert listing.rejected == (
        (str(tmp_path / "5.webm"), f"no such file below {tmp_path}; listed in train.json, entry 3"),
    )


def test_something_something_for_testing_has_no_labels(tmp_path: Path) -> None:
    touch(tmp_path, "1.mp4", "2/00001.jpg", "2/00002.jpg")
    write(tmp_path / "labels.json", json.dumps(SSV2_CLASSES))
    listing = list_videos(write(tmp_path / "test.json", '[{"id": "1"}, {"id": 2}]'))
    assert labelled(listing, tmp_path) == {"1.mp4": None, "2": None}
    assert listing.classes == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"Holding something": 1, "Approaching something with your camera": 1}', "2 classes are not 0 to 1"),
        ('{"Holding something": "one"}', "a whole number for each class"),
        (
            '{"Holding something": 0}',
            r"train\.json, entry 2: the class 'Approaching something .* not in the file of class numbers, which has 1",
        ),
    ],
)
def test_something_something_with_odd_class_numbers(tmp_path: Path, text: str, words: str) -> None:
    touch(tmp_path, "1.webm")
    write(tmp_path / "labels.json", text)
    path = write(tmp_path / "train.json", json.dumps([ssv2(1), ssv2(2)]))
    with pytest.raises(LayerlockError, match=words):
        list_videos(path)


KINETICS = "label,youtube_id,time_start,time_end,split,is_cc\n"


def test_kinetics(tmp_path: Path) -> None:
    touch(tmp_path, "val/jogging/-abc_000012_000022.mp4", "val/x/d_e.mkv", "val/_000000_000010.mp4", "val/f_000001.mp4")
    text = "jogging,-abc,12,22,val,0\n'b, c',d_e,3,13,val,0\nunseen,f,1,11,val,1\n".replace("'", '"')
    listing = list_videos(write(tmp_path / "annotations" / "val.csv", KINETICS + text))
    assert labelled(listing, tmp_path) == {"val/jogging/-abc_000012_000022.mp4": "jogging", "val/x/d_e.mkv": "b, c"}
    assert (listing.layout, listing.classes, listing.root) == ("Kinetics", ("b, c", "jogging", "unseen"), str(tmp_path))
    ((path, reason),) = listing.rejected
    assert path.endswith("f_000001_000011.mp4")
    assert reason.endswith("listed in val.csv, line 4")


@pytest.mark.parametrize("mark", ["; ", "\t"])
def test_kinetics_with_other_separators(tmp_path: Path, mark: str) -> None:
    touch(tmp_path, "a_000001_000011.mp4")
    text = "label,youtube_id,time_start,time_end\nrun,a,1,11\n".replace(",", mark)
    assert labelled(list_videos(write(tmp_path / "val.csv", text)), tmp_path) == {"a_000001_000011.mp4": "run"}


def test_searches_for_published_videos_name_closed_folders_and_pass_over_hidden_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a.mp4", "closed/1.mp4", ".old/1.mp4", ".old/b.mp4", "2.mp4")
    close(monkeypatch)
    closed = (str(tmp_path / "closed"), "the folder cannot be searched: Permission denied")
    for path in (
        write(tmp_path / "train.json", json.dumps([ssv2(1), ssv2(2)])),
        write(tmp_path / "val.csv", "youtube_id,time_start,time_end\na,1,11\nb,1,11\n"),
    ):
        listing = list_videos(path)
        assert len(listing) == 1
        assert [listing.rejected[0], len(listing.rejected)] == [closed, 2]


def test_kinetics_prefers_the_cut_video_and_the_nearer_folder(tmp_path: Path) -> None:
    touch(tmp_path / "k", "a.mp4", "z/a_000001_000011.avi", "zz/a_000001_000011.mp4")
    touch(tmp_path, "b.mp4")
    listing = list_videos(write(tmp_path / "k" / "test.csv", "youtube_id,time_start,time_end\na,1.0,11.0\nb,1,11\n"))
    assert labelled(listing, tmp_path / "k") == {"z/a_000001_000011.avi": None}
    assert [os.path.basename(path) for path, _ in listing.rejected] == ["b_000001_000011.mp4"]


# what a list can have wrong


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("list.csv", "", "list.csv: it lists no videos"),
        ("list.txt", "\n \n", "list.txt: it lists no videos"),
        ("list.csv", "a.mp4 1\nb.mp4 two\n", "list.csv, line 2: the label 'two' is not a number"),
        ("list.csv", "a.mp4 1\nb.mp4\n", "list.csv, line 2: the label is missing, and the first line has one"),
        ("list.csv", "a.mp4\n\nb.mp4 3\n", "list.csv, line 3: there is a label, 3, and the first line has none"),
        ("list.csv", "a.mp4 -2\n", "line 1: label is -2, which is not a class number .* name the column label:float"),
        ("list.csv", "a.mp4 1\nb.mp4 1000000\n", "line 2: label is 1000000, which is not a class number"),
        (
            "list.csv",
            "name,label\na.mp4,1\n",
            "line 1: the label 'label' is not .*; .* one must be file_name .*: name,la",
        ),
        ("list.csv", "a.mp4 0.5\nb.mp4 1e999\n", "line 2: the label '1e999' is not a number"),
        (
            "list.csv",
            "a.mp4 250 1\nb.mp4 1\n",
            "line 2: the number of frames is missing, and other lines have one: b.mp4 1",
        ),
        ("list.csv", "a.mp4 0 250 1\n", "line 1: there are more than three columns; a line holds .*: a.mp4 0 250 1"),
        (
            "list.csv",
            "path,label\na.mp4,0.37\nb.mp4,cat\n",
            "list.csv, line 3: label is 'cat', but 0.37 in line 2: .* name it label:class",
        ),
        (
            "list.csv",
            "path,label:float\na.mp4,3\nb.mp4,cat\n",
            "list.csv, line 3: label is 'cat'; it has to be a number",
        ),
        ("list.csv", "path,label\na.mp4,0.5\na.mp4,1.5\n", "line 3: .* has the label 1.5, but 0.5 in line 2"),
        ("list.csv", "a.mp4\nb.mp4 cat\n", "list.csv, line 2: there is a label, cat, and the first line has none"),
        ("set.csv", "file_name, label, label\na.mp4,1,2\n", "set.csv: 2 columns are called label"),
        ("set.csv", "file_name;label\na.mp4;1;2\n", "set.csv, line 2: 3 fields; the first line names 2"),
        ("list.csv", "a.mp4 1\nb.mp4 1\n./a.mp4 2\n", "line 3: .*a.mp4 has the label 2, but 1 in line 1"),
        ("list.csv", 'a.mp4 1\n"b.mp4 1\nc.mp4 1\n', "line 2: a quote is opened here and never closed"),
        ("list.csv", '"a.mp4"x 1\n', "line 1: only a label can follow a path in quotes"),
        ("list.csv", '"" 1\n', "line 1: the path is empty"),
        ("metadata.csv", "name,label\na.mp4,1\n", "metadata.csv: there is no column file_name; .* name, label"),
        ("metadata.csv", "file_name,label\n", "metadata.csv: it lists no videos"),
        ("metadata.csv", "file_name,label\na.mp4,1\n,2\n", "line 3: file_name is ''; it has to be a path"),
        ("metadata.csv", 'file_name,label\n"a\n.mp4",1\nb.mp4\n', "line 4: 1 fields; the first line names 2"),
        ("metadata.csv", 'file_name\n"a.mp4"b\n', "metadata.csv, line 2: it is not valid csv"),
        ("metadata.csv", 'file_name\na.mp4\n"b.mp4\n', "metadata.csv, line 3: it is not valid csv"),
        ("metadata.csv", "file_name,label\na.mp4,1\na.mp4,2\n", "line 3: .* has the label 2, but 1 in line 2"),
        (
            "metadata.jsonl",
            '{"file_name": "a.mp4"}\n{"name": 1}\n',
            "line 2: there is no file_name; its fields are: name",
        ),
        ("metadata.jsonl", '{"file_name": "a.mp4"}\n\n{"file', "metadata.jsonl, line 3: it is not valid json"),
        ("metadata.jsonl", '["a.mp4"]\n', "line 1: it is not a json object"),
        ("metadata.jsonl", '{"file_name": 3}\n', "line 1: file_name is 3; it has to be a path"),
        ("metadata.jsonl", '{"file_name": "a.mp4", "label": [1]}\n', r"line 1: label is \[1\]; it has to be a name or"),
        (
            "metadata.jsonl",
            '{"file_name": "a.mp4", "label": Infinity}\n',
            "line 1: label is inf; it has to be a name or",
        ),
        ("metadata.jsonl", '{"file_name": "a.mp4", "label": true}\n', "line 1: label is True; it has to be a name or"),
        ("train.json", "[{", "train.json, line 1: it is not valid json"),
        ("train.json", '[\n{"id": "1"},\n]', "train.json, line [23]: it is not valid json"),
        ("train.json", "[" * 100_000, "train.json.*: it is not valid json"),
        ("train.json", '{"Holding something": "0"}', "train.json: it is not a list of json objects with id"),
        ("train.json", "[]", "train.json: it lists no videos"),
        ("train.json", '[{"id": "1"}, {"video": "2"}]', "train.json, entry 2: there is no id; its fields are: video"),
        ("train.json", '["1"]', "train.json, entry 1: it is not a json object"),
        ("train.json", '[{"id": "1", "template": 5}]', "train.json, entry 1: template is 5; it must be text"),
        (
            "k.csv",
            "label,youtube_id,time_end\na,b,10\n",
            "k.csv: there is no column time_start; its columns are: label",
        ),
        ("k.csv", KINETICS + "a,b,zero,10,val,0\n", "k.csv, line 2: time_start is 'zero'; it has to be a number"),
        ("k.csv", KINETICS + "a,b,0,-1,val,0\n", "k.csv, line 2: time_end is '-1'; it has to be a number"),
        ("k.csv", KINETICS + "a,,0,10,val,0\n", "k.csv, line 2: youtube_id is empty"),
    ],
)
def test_mistakes_in_lists_are_told_with_their_place(tmp_path: Path, name: str, text: str, words: str) -> None:
    path = write(tmp_path / name, text)
    with pytest.raises(LayerlockError, match=words):
        list_videos(tmp_path if name.startswith("metadata") else path)


def test_text_that_is_no_utf8_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes("a.mp4 1\nété.mp4 2\n".encode("latin-1"))
    with pytest.raises(LayerlockError, match=r"list\.csv, line 2: the byte 0xe9 is not UTF-8"):
        list_videos(path)


def test_a_list_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = touch(tmp_path, "list.csv") / "list.csv"

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(LayerlockError, match=r"list\.csv: it cannot be read \(Permission denied\)"):
        list_videos(path)


def test_lists_of_which_nothing_is_there_show_the_first_few(tmp_path: Path) -> None:
    path = write(tmp_path / "set" / "train.json", json.dumps([ssv2(number) for number in range(7)]))
    with pytest.raises(NothingUsable) as caught:
        list_videos(path)
    text = str(caught.value)
    assert text.startswith(f"none of the 7 videos of {path} can be used:")
    assert f"0.webm: no such file below {tmp_path}; listed in train.json, entry 1" in text
    assert text.endswith(f"and 2 more\nPaths begin at {tmp_path}; --data-root names another folder.")
    assert len(caught.value.rejected) == 7
