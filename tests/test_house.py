"""Imports run one way: down."""

from __future__ import annotations

import ast
from pathlib import Path

SRC = Path(__file__).parent.parent / "src" / "layerlock"
FLOORS = [
    ["__main__"],
    ["cli"],
    ["dry_run"],
    ["api"],
    ["recipes"],
    ["report"],
    ["evaluation"],
    ["train"],
    ["budget"],
    ["config"],
    ["learn", "features"],
    ["encoders"],
    ["model", "data"],
    ["lock"],
    ["draws", "files", "holder", "process", "progress"],
    ["errors", "first_calls"],
]
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def imports_of(path: Path) -> set[str]:
    """Rooms that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("layerlock"):
            parts = node.module.split(".")
            names |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("layerlock.")}
    return names


def test_every_import_runs_down() -> None:
    upward = []
    for path in sorted(SRC.rglob("*.py")):
        room = path.relative_to(SRC).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for other in imports_of(path) - {room}:
            if FLOOR_OF[other] <= FLOOR_OF[room]:
                upward.append(f"{path.relative_to(SRC)} imports {other}")
    assert not upward
    assert set(FLOOR_OF) >= {
        p.name.removesuffix(".py") for p in SRC.iterdir() if p.name not in ("__init__.py", "py.typed", "__pycache__")
    }
