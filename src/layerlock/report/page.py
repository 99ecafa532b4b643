"""`report.html`: one self-contained page of a run, made from what is in its folder, at any time after its start."""

from __future__ import annotations

import json
from pathlib import Path

from layerlock.config import load_config
from layerlock.report import charts, neighbours, tables, views
from layerlock.report.history import History, read_history
from layerlock.report.markup import Section, links, write_page
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

    A run that was cut short gives a page too: each section shows what there is, or says what is missing. Neighbours are
    looked for in the run's data where these are still there. Raises ImportError where matplotlib is missing, and
    LayerlockError where the folder has no readable `config.json` or cannot be written.
    """
    import matplotlib  # noqa: F401 - before any work, so that a missing extra is told at once

    history = _read(folder)
    head = [*tables.head(history), links(SECTIONS)]
    return write_page(folder.report, f"{history.config.recipe} - layerlock", head, sections(folder, history))


def _read(folder: RunFolder) -> History:
    config = load_config(folder.config)
    noted = json.loads(folder.config.read_text()).get("versions", {})
    versions = {str(name): str(version) for name, version in noted.items()} if isinstance(noted, dict) else {}
    return read_history(folder, config, versions)


def sections(folder: RunFolder, history: History) -> list[Section]:
    """All that the page shows below its head."""
    config = history.config
    previews, encoder = views.read_previews(folder.previews), views.open_encoder(folder)
    parts = {
        "curves": charts.chart_section(history),
        "stages": tables.stages(history),
        "predictions": views.prediction_section(previews, config),
        "features": views.feature_section(previews, encoder, config),
        "neighbours": neighbours.neighbour_section(encoder, config),
        "events": tables.events(history),
    }
    return [Section(name=name, title=title, parts=parts[name]) for name, title in SECTIONS]
