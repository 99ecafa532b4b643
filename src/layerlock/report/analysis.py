"""The page of `layerlock analyze depth`: encoders compared depth by depth, with choices that a link can carry.

Python makes everything that is text, so that the page is complete without JavaScript; `templates/analysis.js` draws the
charts and the maps from the numbers and shows and hides the rest.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from layerlock.report.markup import paragraph, printable, table, title, write_page

_HUES, _MARKS, _DASHES = 6, 5, 3
"""colours, marks and dashes that `analysis.css` and `analysis.html` have"""
_IN_SCRIPT = str.maketrans({sign: f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"})


def write_analysis(found: Mapping[str, Any], path: Path) -> Path:
    """Writes the page of an analysis as one self-contained HTML file; returns its path.

    Args:
        found: plain JSON data. `data` (a name), `clips` (a count) and `classes` (a count or None); `encoders`, each
            with `name`, `depths`, `width`, `tokens`, `blocks`, and `run` and `step` (None of an encoder that is no
            checkpoint of a run); `metrics`, each with `name`, `about`, `better`
            ("higher", "lower" or None) and `percent`; `values`, each with `encoder`, `depth`, `metric`, `value`, `low`,
            `high` (numbers or None), `why` (the reason of a missing value) and, of a mean over heads, `heads`; `maps`,
            each with `name`, `about`, `rows` and `columns` (names of encoders) and `values` (a list for each depth of
            `rows`). A number that is not finite is a missing value. `bands` says what `low` and `high` are, where they
            are not intervals.
        path: the file to write.

    Raises:
        ValueError: a value or a map belongs to no encoder, metric or depth of `found`, or has not the depths' shape.
        LayerlockError: the file cannot be written.
    """
    _check(found)
    encoders = [_encoder(number, one) for number, one in enumerate(found["encoders"])]
    metrics = _metrics(found)
    map_names, maps = _maps(found)
    runs = _runs(found)
    data = {
        "encoders": encoders,
        "metrics": [{name: one[name] for name in ("name", "better", "percent", "cells")} for one in metrics],
        "maps": maps,
        "runs": runs,
    }
    script = files("layerlock.report").joinpath("templates/analysis.js").read_text(encoding="utf-8").strip()
    return write_page(
        path,
        f"Encoders by depth: {found['data']} - layerlock",
        _head(found),
        [],
        template="analysis.html",
        encoders=encoders,
        metrics=metrics,
        runs=runs,
        bands=found.get("bands", "intervals"),
        maps=map_names,
        map_tables=[one | {"figures": [list(map(_short, row)) for row in one["values"]]} for one in maps],
        data=Markup(json.dumps(data, allow_nan=False).translate(_IN_SCRIPT)),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _check(found: Mapping[str, Any]) -> None:
    depths = {one["name"]: one["depths"] for one in found["encoders"]}
    metrics = {one["name"] for one in found["metrics"]}
    for one in found["values"]:
        if one["depth"] not in depths.get(one["encoder"], ()) or one["metric"] not in metrics:
            raise ValueError(f"no such encoder, depth or metric: {one}")
    for one in found["maps"]:
        shape = [len(row) for row in one["values"]]
        if not {one["rows"], one["columns"]} <= set(depths):
            raise ValueError(f"map {one['name']} of {one['rows']} and {one['columns']}: no such encoder")
        if shape != [len(depths[one["columns"]])] * len(depths[one["rows"]]):
            raise ValueError(f"map {one['name']} of {one['rows']} and {one['columns']}: not depths x depths")


def _head(found: Mapping[str, Any]) -> list[Markup]:
    classes = "without classes" if found["classes"] is None else f"of {found['classes']} classes"
    rows = [
        (one["name"], one["blocks"], one["width"], one["tokens"], _depths(one["depths"])) for one in found["encoders"]
    ]
    return [
        title("Encoders by depth"),
        paragraph(f"Features of {found['clips']:,} clips {classes} from {found['data']}."),
        table(["encoder", "blocks", "width", "tokens", "read after block"], rows, words=(0,)),
    ]


def _encoder(number: int, one: Mapping[str, Any]) -> dict[str, Any]:
    """An encoder with its look, which is the same in all charts."""
    return {
        "name": printable(one["name"]),
        "blocks": one["blocks"],
        "depths": one["depths"],
        "look": f"hue-{number % _HUES} dash-{number // _HUES % _DASHES}",
        "mark": number % _MARKS,
    }


def _metrics(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each metric with `cells`, `[value, low, high, text]` (of a mean over heads with a list of those) by encoder and
    depth, and its missing values by reason.
    """
    values = {(one["metric"], one["encoder"], one["depth"]): one for one in found["values"]}
    metrics = []
    for metric in found["metrics"]:
        cells: list[list[list[Any]]] = []
        missing: dict[str, list[tuple[int, str]]] = {}
        for number, encoder in enumerate(found["encoders"]):
            of_depth = {depth: values.get((metric["name"], encoder["name"], depth), {}) for depth in encoder["depths"]}
            cells.append([_cell(one, metric["percent"]) + _heads(one) for one in of_depth.values()])
            for why, depths in _missing(of_depth).items():
                where = "" if depths == encoder["depths"] else f"block{'s' * (len(depths) > 1)} {_depths(depths)}"
                missing.setdefault(why, []).append((number, where))
        metrics.append(
            {
                "name": printable(metric["name"]),
                "about": metric["about"],
                "better": metric["better"],
                "percent": metric["percent"],
                "cells": cells,
                "missing": [{"why": why, "where": where} for why, where in missing.items()],
            }
        )
    return metrics


def _missing(of_depth: Mapping[int, Mapping[str, Any]]) -> dict[str, list[int]]:
    """The depths without a value, by the reason."""
    missing: dict[str, list[int]] = {}
    for depth, one in of_depth.items():
        if _number(one.get("value")) is None:
            unknown = "not measured" if one.get("value") is None else "not a finite number"
            missing.setdefault(one.get("why") or unknown, []).append(depth)
    return missing


def _cell(one: Mapping[str, Any], percent: bool) -> list[Any]:
    """`[value, low, high, text]`, without what is not finite; no interval without both ends and a value."""
    value, low, high = (_number(one.get(name)) for name in ("value", "low", "high"))
    if value is None:
        return [None, None, None, "–"]
    if low is None or high is None:
        return [value, None, None, _figure(value, percent)]
    ends = ", ".join(_figure(end, percent).removesuffix(" %") for end in (low, high))
    return [value, low, high, f"{_figure(value, percent)} [{ends}]"]


def _heads(one: Mapping[str, Any]) -> list[list[float | None]]:
    """The values of heads, as one more entry of a cell; none where there are none."""
    return [[_rounded(value) for value in one["heads"]]] if "heads" in one else []


def _maps(found: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The kinds of maps, each with the encoders of its first one, and the maps; all by number instead of by name."""
    number = {one["name"]: index for index, one in enumerate(found["encoders"])}
    kinds: dict[str, dict[str, Any]] = {}
    maps = []
    for one in found["maps"]:
        rows, columns = number[one["rows"]], number[one["columns"]]
        kinds.setdefault(one["name"], {"name": printable(one["name"]), "about": one["about"], "first": (rows, columns)})
        maps.append(
            {
                "name": list(kinds).index(one["name"]),
                "rows": rows,
                "columns": columns,
                "values": [[_rounded(value) for value in row] for row in one["values"]],
            }
        )
    return list(kinds.values()), maps


def _runs(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The runs of which there are several checkpoints: the numbers of these encoders, by step."""
    of_run: dict[str, list[tuple[int, int]]] = {}
    for number, one in enumerate(found["encoders"]):
        if one["run"] is not None:
            of_run.setdefault(one["run"], []).append((one["step"], number))
    return [
        {
            "name": printable(run),
            "steps": [step for step, _ in sorted(moments)],
            "encoders": [number for _, number in sorted(moments)],
        }
        for run, moments in of_run.items()
        if len(moments) > 1
    ]


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _rounded(value: float | None) -> float | None:
    """Four digits, which are what a map tells: it has many cells, and the page stays small."""
    known = _number(value)
    return None if known is None else float(f"{known:.4g}")


def _figure(value: float, percent: bool) -> str:
    """Four digits, or per cent with one decimal."""
    if percent:
        return f"{100 * value:.1f} %"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:#.4g}"


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:#.3g}"


def _depths(depths: Sequence[int]) -> str:
    """Depths in words: `0, 3–5`."""
    runs: list[list[int]] = []
    for depth in depths:
        if runs and depth == runs[-1][-1] + 1:
            runs[-1].append(depth)
        else:
            runs.append([depth])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)
