"""The figures of an analysis as plain data and as files: JSON, and a tidy table with a line for each figure."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from layerlock.analyze.metrics import Metric
from layerlock.errors import LayerlockError, one_line
from layerlock.evaluation.intervals import Interval
from layerlock.features import Place
from layerlock.files import write_whole

COLUMNS = ("encoder", "step", "depth", "other encoder", "other depth", "metric", "head", "value", "low", "high", "why")


def figure(metric: Metric, place: Place, found: Interval, why: str) -> dict[str, Any]:
    """A figure of one depth of an encoder as plain data; `why` is said where it is not defined."""
    value, low, high = map(finite, (found.mean, found.low, found.high))
    encoder, depth = place
    made = {"encoder": encoder, "depth": depth, "metric": metric.name, "value": value, "low": low, "high": high}
    return made | {"why": why if value is None else ""}


def computed(metric: Metric, place: Place, compute: Callable[[], Interval]) -> dict[str, Any]:
    """The same of what is computed here; where that is a ValueError, its words are why."""
    try:
        return figure(metric, place, compute(), "")
    except ValueError as error:
        return figure(metric, place, Interval(math.nan), one_line(error))


def finite(value: float) -> float | None:
    """A number, or None in place of one that is not finite."""
    return value if math.isfinite(value) else None


def write(found: Mapping[str, Any], folder: Path) -> None:
    """`depth.json` and `depth.csv`. Raises LayerlockError where the folder cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "depth.json", lambda path: path.write_text(json.dumps(found, allow_nan=False)))
        write_whole(folder / "depth.csv", lambda path: _write_table(found, path))
    except OSError as error:
        raise LayerlockError(f"{folder}: cannot be written ({error.strerror})") from None


def _write_table(found: Mapping[str, Any], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        table = csv.DictWriter(file, COLUMNS, restval="", extrasaction="ignore")
        table.writeheader()
        step_of = {one["name"]: one["step"] for one in found["encoders"]}
        for each in found["values"]:
            place = {name: each[name] for name in ("encoder", "depth", "metric")} | {"step": step_of[each["encoder"]]}
            table.writerow(each | place)
            table.writerows(place | {"head": head, "value": value} for head, value in enumerate(each.get("heads", ())))
        for each in found["maps"]:
            for depth, row in enumerate(each["values"]):
                for other, value in enumerate(row):
                    table.writerow(
                        {
                            "encoder": each["rows"],
                            "step": step_of[each["rows"]],
                            "depth": depth,
                            "other encoder": each["columns"],
                            "other depth": other,
                            "metric": each["name"],
                            "value": value,
                        }
                    )
