"""The layouts of data sets: folders, lists of paths, and the lists that published data sets come with.

The layout is recognized from the path and its content; no video is opened.
"""

from __future__ import annotations

import os
from dataclasses import replace

from layerlock.data.decode.images import folder_of
from layerlock.data.decode.video import EXTENSIONS
from layerlock.data.index.columns import Wanted
from layerlock.data.index.listing import Listing, NothingUsable, listed_path, listing_of, printable
from layerlock.data.index.path_list import read_path_list
from layerlock.data.index.published import read_kinetics, read_something_something
from layerlock.data.index.rows import Entry, header, read_csv, read_jsonl, read_parquet, read_text
from layerlock.data.index.walk import find_videos
from layerlock.data.targets import LABEL, Column
from layerlock.errors import LayerlockError

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""names of the files that list a folder's videos; the first that is there is read"""


def list_videos(data: str | os.PathLike[str], root: str | None = None, wanted: Wanted | None = None) -> Listing:
    """The videos and targets of a data set; the paths of a list begin at `root`, without one at the list's folder.

    `wanted` are columns of a list to read (`read_columns` says which others are). Raises LayerlockError when there are
    no videos, for a list that is not as it should be, with its file and line, for a `root` that is no folder, or of
    what is no list, and for columns of what is no list.
    """
    if not os.fspath(data):
        raise LayerlockError("data: the name is empty; name a folder, a list or a video")
    path = os.path.abspath(data)
    if root is not None:
        root = os.path.abspath(root)
        if not os.path.isdir(root):
            raise LayerlockError(f"data_root: {printable(root)}: there is no such folder")
    wanted = wanted or {}
    if os.path.isdir(path):
        lists = (os.path.join(path, name) for name in METADATA)
        metadata = next((file for file in lists if os.path.isfile(file)), None)
        if metadata:
            return _metadata(metadata, path, root, wanted)
        _check_list(path, root, wanted)
        return _folder(path)
    series = folder_of(path) != path
    if not series and not os.path.isfile(path):
        raise LayerlockError(f"{printable(path)}: there is no such folder, list or video")
    ending = os.path.splitext(path)[1].lower()
    if ending in (".csv", ".txt"):
        return _text_list(path, root, wanted)
    if ending == ".json":
        return read_something_something(path, root, wanted)
    if ending in (".jsonl", ".parquet"):
        return _metadata(path, path, root, wanted)
    _check_list(path, root, wanted)
    layout = "series of frames" if series else "single video"
    return Listing(data=path, root=os.path.dirname(path), layout=layout, paths=(path,))


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
    listing = Listing(data=folder, root=folder, layout="folder", paths=tuple(paths), rejected=tuple(closed))
    if paths == [folder]:
        return replace(listing, root=os.path.dirname(folder), layout="folder of frames")
    parents = {os.path.dirname(path) for path in paths}
    if any(os.path.dirname(parent) != folder for parent in parents):
        return listing
    number_of = {parent: number for number, parent in enumerate(sorted(parents))}
    label = Column(
        values=tuple(number_of[os.path.dirname(path)] for path in paths),
        classes=tuple(map(os.path.basename, number_of)),
    )
    return replace(listing, layout="class folders", targets={LABEL: label})


def _check_list(path: str, root: str | None, wanted: Wanted) -> None:
    if root is not None:
        raise LayerlockError(f"data_root: {printable(path)} is not a list of paths; only lists take it")
    if columns := [name for name in wanted if name != LABEL]:
        raise LayerlockError(f"{printable(path)}: it is not a list, so it has no column {columns[0]}")


def _text_list(path: str, root: str | None, wanted: Wanted) -> Listing:
    text = read_text(path)
    columns = header(text)
    first, _, _ = text.lstrip().partition("\n")
    named = os.path.lexists(os.path.join(root or os.path.dirname(path), first.strip()))  # the name is a video's
    if "file_name" in columns and not named:
        return _metadata(path, path, root, wanted)
    if "youtube_id" in columns:
        return read_kinetics(path, text, root, wanted)
    return read_path_list(path, text, root, wanted)


def _metadata(path: str, data: str, root: str | None, wanted: Wanted) -> Listing:
    """Hugging Face's VideoFolder: a column `file_name`, paths below the file's folder, and perhaps `label`, `group` and
    others. Csv files may have other names for the first two (see `rows.KNOWN_AS`).
    """
    ending = os.path.splitext(path)[1].lower()
    if ending == ".jsonl":
        rows = read_jsonl(path, "file_name")
    elif ending == ".parquet":
        rows = read_parquet(path, "file_name", optional=(LABEL, "group", *wanted))
    else:
        rows = read_csv(path, read_text(path), "file_name")
    root = root or os.path.dirname(path)
    entries = []
    for row, values in rows.numbered:
        name = values["file_name"]
        if not isinstance(name, str) or not name:
            raise rows.problem(row, f"file_name is {name!r}; it has to be a path")
        entries.append(Entry(row, listed_path(root, name), values))
    return listing_of(rows, entries, root=root, layout=os.path.basename(path), wanted=wanted, data=data)
