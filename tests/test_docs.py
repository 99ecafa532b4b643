"""What the docs show runs, and what they name is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import tiny
from torch.nn import functional as F

import layerlock
from layerlock.cli import VERBS
from layerlock.learn.plan import timeline
from layerlock.train.loop import Run

ROOT = Path(__file__).parent.parent
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def plans_of_the_architecture_page() -> dict[str, Any]:
    codes = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "architecture.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    for code in codes:
        exec(code.split("config = ")[0], names)
    return names


@pytest.mark.usefixtures("noise")
def test_the_plan_of_the_architecture_page_trains(tmp_path: Path) -> None:
    names = plans_of_the_architecture_page()
    config = tiny.config(tmp_path)
    plan = names["HalfWay"](config)
    assert [(begin, stage.targets) for begin, stage in timeline(plan, config.steps)] == [
        (0, "pixels"),
        (6, "pixels+h2"),
    ]
    layerlock.pretrain(config, plan=plan, quiet=True)
    assert "step 6 switch: 2 blocks frozen, target pixels+h2" in (tmp_path / "events.log").read_text()


@pytest.mark.usefixtures("noise")
def test_the_plan_that_observes_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mse, update, steps = F.mse_loss, Run.update, list[int]()
    monkeypatch.setattr(F, "mse_loss", lambda *args: 1e-3 * mse(*args) if len(steps) > 4 else mse(*args))
    monkeypatch.setattr(Run, "update", lambda self, *args, **kwargs: steps.append(0) or update(self, *args, **kwargs))
    config = tiny.config(tmp_path)
    layerlock.pretrain(config, plan=plans_of_the_architecture_page()["WhenFar"](config), quiet=True)
    assert "step 5 switch: 2 blocks frozen, target pixels+h2: the loss is" in (tmp_path / "events.log").read_text()


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_files_recipes_and_verbs_that_a_page_names_are_there(page: Path) -> None:
    text = page.read_text()
    for path in re.findall(r"\b(?:docs|benchmarks|examples|tests)/[\w/.-]*\w", text):
        assert (ROOT / path).exists(), path
    for verb, first in re.findall(r"^ *layerlock (\w+) ?([\w-]*)", text, re.MULTILINE):
        assert verb in VERBS
        assert verb != "pretrain" or first == "RECIPE" or first in layerlock.list_recipes()
    for name in re.findall(r"make (\w+)", text):
        assert re.search(rf"^{name}:", (ROOT / "Makefile").read_text(), re.MULTILINE) or name in ("cheap",), name


def test_every_public_name_is_there() -> None:
    for name in layerlock.__all__:
        assert getattr(layerlock, name).__doc__, name


def test_recipes_that_the_methods_table_names_are_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = text.split("| method | plan |")[1].split("\n\n")[0].splitlines()[2:]
    for small, papers in (row.split("|")[5].partition(";")[::2] for row in rows):
        for name in re.findall(r"`([\w-]+)`", small):
            assert {f"{name}-tiny", f"{name}-small"} <= set(layerlock.list_recipes()), name
        for name in re.findall(r"`([\w-]+)`", papers):
            assert name in layerlock.list_recipes(), name
