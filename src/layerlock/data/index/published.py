"""The lists that Something-Something v2 and Kinetics are published with, which name videos without their folders."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping

from layerlock.data.decode.video import has_video_ending
from layerlock.data.index.columns import Wanted
from layerlock.data.index.listing import WHOLE, Listing, listing_of
from layerlock.data.index.rows import Entry, Rows, read_csv, read_json, read_json_list
from layerlock.data.index.walk import find_videos
from layerlock.data.targets import LABEL
from layerlock.errors import LayerlockError

SSV2_CLASSES = ("labels.json", "something-something-v2-labels.json")
"""names of the files beside a Something-Something list that number its classes"""


def read_something_something(path: str, root: str | None, wanted: Wanted) -> Listing:
    """A json list of objects with an `id` and, except for test videos, a `template`: the class, with brackets.

    Class numbers come from the file of classes beside it, else from the sorted templates. Raises LayerlockError.
    """
    rows = read_json_list(path, "id")
    names = [str(values["id"]) for _, values in rows.numbered]
    top, path_of, closed = _search(os.path.dirname(path), root, set(names))
    entries = []
    for (row, values), name in zip(rows.numbered, names, strict=True):
        template = values.get("template")
        if template is not None and not isinstance(template, str):
            raise rows.problem(row, f"template is {template!r}; it must be text")
        label = template.replace("[", "").replace("]", "") if template else None
        where = path_of.get(name, os.path.join(top, f"{name}.webm"))
        columns = {column: value for column, value in values.items() if column != LABEL}  # theirs is a sentence
        entries.append(Entry(row, where, columns | ({LABEL: label} if label else {}), name in path_of))
    classes = _ssv2_classes(os.path.dirname(path)) if any(LABEL in entry.values for entry in entries) else None
    return listing_of(
        rows, entries, root=top, layout="Something-Something v2", wanted=wanted, classes=classes, closed=closed
    )


def read_kinetics(path: str, text: str, root: str | None, wanted: Wanted) -> Listing:
    """A csv with `youtube_id`, `time_start`, `time_end` and, except for test videos, `label`.

    A video is `<youtube_id>_<start>_<end>`, both as six digits, or `<youtube_id>`. Raises LayerlockError.
    """
    rows = read_csv(path, text, "youtube_id", "time_start", "time_end")
    names = [_kinetics_names(rows, row, values) for row, values in rows.numbered]
    both_names = {name for both in names for name in both}
    top, path_of, closed = _search(os.path.dirname(path), root, both_names)
    entries = []
    for (row, values), both in zip(rows.numbered, names, strict=True):
        there = next((path_of[name] for name in both if name in path_of), None)
        where = there or os.path.join(top, f"{both[0]}.mp4")
        entries.append(Entry(row, where, values, there is not None))
    return listing_of(rows, entries, root=top, layout="Kinetics", wanted=wanted, closed=closed)


def _search(folder: str, root: str | None, names: Collection[str]) -> tuple[str, dict[str, str], list[tuple[str, str]]]:
    """The first video of each name below `root`.

    Without one it is below `folder` or, where there is none at all, below the folder above it. Names are without
    endings. Returns the folder that was searched last, path by name, and (path, reason) of the folders in it that
    cannot be searched.
    """
    tops = [root or folder]
    if root is None and os.path.dirname(os.path.dirname(folder)) != os.path.dirname(
        folder
    ):  # never the whole file system
        tops.append(os.path.dirname(folder))
    for top in tops:
        path_of: dict[str, str] = {}
        videos, closed = find_videos(top)
        for path in videos:
            name = os.path.basename(path)
            stem = os.path.splitext(name)[0] if has_video_ending(name) else name
            if stem in names:
                path_of.setdefault(stem, path)
        if path_of:
            break
    return top, path_of, closed


def _ssv2_classes(folder: str) -> list[str] | None:
    """Names of the classes by number; None where no file beside the list gives the numbers."""
    files = (os.path.join(folder, name) for name in SSV2_CLASSES)
    path = next((file for file in files if os.path.isfile(file)), None)
    if path is None:
        return None
    number_of = read_json(path)
    if not isinstance(number_of, dict) or not all(WHOLE.fullmatch(str(number)) for number in number_of.values()):
        raise LayerlockError(f"{path}: it is not a json object with a whole number for each class")
    name_of = {int(number): name for name, number in number_of.items()}
    if sorted(name_of) != list(range(len(number_of))):
        raise LayerlockError(f"{path}: the numbers of its {len(number_of)} classes are not 0 to {len(number_of) - 1}")
    return [name_of[number] for number in range(len(name_of))]


def _kinetics_names(rows: Rows, row: int, values: Mapping[str, str]) -> tuple[str, str]:
    """What the video of a row may be called, without ending."""
    if not values["youtube_id"]:
        raise rows.problem(row, "youtube_id is empty")
    start, end = (_seconds(rows, row, column, values[column]) for column in ("time_start", "time_end"))
    return f"{values['youtube_id']}_{start:06d}_{end:06d}", values["youtube_id"]


def _seconds(rows: Rows, row: int, column: str, text: str) -> int:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise rows.problem(row, f"{column} is {text!r}; it has to be a number of seconds")
    return int(seconds)
