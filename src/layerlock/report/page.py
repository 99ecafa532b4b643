"""`report.html`: one self-contained page of a run, made from what is in its folder, at any time after its start."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from markupsafe import Markup

from layerlock.config import load_config
from layerlock.errors import one_line
from layerlock.report import charts, neighbours, tables, views
from layerlock.report.history import History, read_history
from layerlock.report.markup import Section, links, note, write_page
from layerlock.train.folder import RunFolder

SECTIONS = (
    ("curves", "Curves"),
    ("stages", "Stages and their cost"),
    ("predictions", "What it predicted"),
    ("features", "Features by depth"),
    ("neighbours", "Nearest neighbours"),
    ("events", "Events"),
)


def write_report(folder: RunFolder) -> Path:
    """Writes `report.html` into a run folder and returns its path.

    A run that was cut short gives a page too: each section shows what there is, or says what is missing. One that
    cannot be made says why, there and in `events.log`, and the others are. Neighbours are looked for in the run's data
    where these are still there. Raises ImportError where matplotlib is missing, and LayerlockError where the folder has
    no readable `config.json` or cannot be written.
    """
    import matplotlib  # noqa: F401 - before any work, so that a missing extra is told at once

    history = _read(folder)
    failed: dict[str, str] = {}
    head = [*tables.head(history), links(SECTIONS)]
    path = write_page(folder.report, f"{history.config.recipe} - layerlock", head, sections(folder, history, failed))
    _say(folder, history, failed)
    return path


def _read(folder: RunFolder) -> History:
    config = load_config(folder.config)
    noted = json.loads(folder.config.read_text()).get("versions", {})
    versions = {str(name): str(version) for name, version in noted.items()} if isinstance(noted, dict) else {}
    return read_history(folder, config, versions)


def sections(folder: RunFolder, history: History, failed: dict[str, str]) -> list[Section]:
    """All that the page shows below its head; why a section could not be made stands in its place and in `failed`."""
    config = history.config
    encoder = views.open_encoder(folder)

    def predictions() -> list[Markup]:
        return views.prediction_section(views.read_previews(folder.previews, config), config)

    def features() -> list[Markup]:
        return views.feature_section(views.read_previews(folder.previews, config), encoder, config)

    makers: dict[str, Callable[[], list[Markup]]] = {
        "curves": lambda: charts.chart_section(history),
        "stages": lambda: tables.stages(history),
        "predictions": predictions,
        "features": features,
        "neighbours": lambda: neighbours.neighbour_section(encoder, config),
        "events": lambda: tables.events(history),
    }
    found = []
    for name, title in SECTIONS:
        try:
            parts = makers[name]()
        except Exception as error:
            failed[title] = f"{type(error).__name__}: {one_line(error)}"
            parts = [note(f"This section could not be made ({failed[title]}).")]
        found.append(Section(name=name, title=title, parts=parts))
    return found


def _say(folder: RunFolder, history: History, failed: dict[str, str]) -> None:
    """Notes each section that could not be made in `events.log`, once."""
    said = {event.text for event in history.of_kind("warning")}
    for title, reason in failed.items():
        text = f"report.html: {title} could not be made ({reason})"
        if text not in said:
            folder.write_event(history.step, "warning", text)
