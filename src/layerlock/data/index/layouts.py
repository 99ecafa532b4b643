"""The layouts of data sets: folders, lists of paths, and the lists that published data sets come with.

The layout is told from the path and from what is there; no video is opened.
"""

from __future__ import annotations

import os
from dataclasses import replace

from layerlock.data.decode.video import EXTENSIONS
from layerlock.data.index.listing import Entry, Listing, NothingUsable, group_of, label_of, listing_of, printable
from layerlock.data.index.path_list import read_path_list
from layerlock.data.index.published import read_kinetics, read_something_something
from layerlock.data.index.rows import header, read_csv, read_jsonl, read_parquet, read_text
from layerlock.data.index.walk import find_videos
from layerlock.errors import LayerlockError

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""names of the files that list a folder's videos; the first that is there is read"""


def list_videos(data: str | os.PathLike[str]) -> Listing:
    """The videos and labels of a data set.

    Raises LayerlockError when there is none, and for a list that is not as it should be, with its file and line.
    """
    if not os.fspath(data):
        raise LayerlockError("data: the name is empty; name a folder, a list or a video")
    path = os.path.abspath(data)
    if os.path.isdir(path):
        lists = (os.path.join(path, name) for name in METADATA)
        metadata = next((file for file in lists if os.path.isfile(file)), None)
        return _metadata(metadata, path) if metadata else _folder(path)
    if not os.path.isfile(path):
        raise LayerlockError(f"{printable(path)}: there is no such folder, list or video")
    ending = os.path.splitext(path)[1].lower()
    if ending in (".csv", ".txt"):
        return _text_list(path)
    if ending == ".json":
        return read_something_something(path)
    if ending in (".jsonl", ".parquet"):
        return _metadata(path, path)
    return Listing(data=path, root=os.path.dirname(path), layout="single video", paths=(path,), labels=(-1,))


def _folder(folder: str) -> Listing:
    """All videos below a folder. Their labels are the class folders where every one lies in such a folder."""
    paths, closed = find_videos(folder)
    if not paths and closed:
        raise NothingUsable(folder, closed)
    if not paths:
        raise LayerlockError(
            f"there are no videos in {folder}: no folder of frames, and no file with one of the endings "
            + " ".join(sorted(EXTENSIONS))
        )
    none = (-1,) * len(paths)
    listing = Listing(
        data=folder, root=folder, layout="folder", paths=tuple(paths), labels=none, rejected=tuple(closed)
    )
    if paths == [folder]:
        return replace(listing, root=os.path.dirname(folder), layout="folder of frames")
    parents = {os.path.dirname(path) for path in paths}
    if any(os.path.dirname(parent) != folder for parent in parents):
        return listing
    number_of = {parent: number for number, parent in enumerate(sorted(parents))}
    return replace(
        listing,
        layout="class folders",
        labels=tuple(number_of[os.path.dirname(path)] for path in paths),
        classes=tuple(map(os.path.basename, number_of)),
    )


def _text_list(path: str) -> Listing:
    text = read_text(path)
    _, columns = header(text)
    if "file_name" in columns:
        return _metadata(path, path)
    if "youtube_id" in columns:
        return read_kinetics(path, text)
    return read_path_list(path, text)


def _metadata(path: str, data: str) -> Listing:
    """Hugging Face's VideoFolder: a column `file_name`, paths below the file's folder, and perhaps columns `label` and
    `group`.
    """
    ending = os.path.splitext(path)[1].lower()
    if ending == ".jsonl":
        rows = read_jsonl(path, "file_name")
    elif ending == ".parquet":
        rows = read_parquet(path, "file_name", optional=("label", "group"))
    else:
        rows = read_csv(path, read_text(path), "file_name")
    root = os.path.dirname(path)
    entries = []
    for row, values in rows.numbered:
        name = values["file_name"]
        if not isinstance(name, str) or not name:
            raise rows.problem(row, f"file_name is {name!r}; it has to be a path")
        path_of = os.path.abspath(os.path.join(root, name))
        entries.append(Entry(row, path_of, label_of(rows, row, values), group=group_of(values)))
    return listing_of(rows, entries, root=root, layout=os.path.basename(path), data=data)
