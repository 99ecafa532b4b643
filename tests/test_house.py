"""Imports run one way, down, and what is there is used."""

from __future__ import annotations

import ast
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
SRC = REPOSITORY / "src" / "layerlock"
FLOORS = [
    ["__main__"],
    ["cli"],
    ["dry_run"],
    ["show"],
    ["studies"],
    ["api"],
    ["recipes"],
    ["report"],
    ["analyze"],
    ["evaluation"],
    ["train"],
    ["budget"],
    ["config"],
    ["learn", "features"],
    ["encoders"],
    ["model", "data"],
    ["exchange", "lock", "signals"],
    ["draws", "files", "holder", "measures", "process", "settings", "together", "progress"],
    ["errors", "first_calls", "parcels", "torch_private"],
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


def module_of(path: Path) -> str:
    parts = path.relative_to(SRC.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def names_in(path: Path) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """(module, name) of what a file imports, and of what else it refers to: of its own, or by the name of a module."""
    tree = ast.parse(path.read_text())
    own = module_of(path) if path.is_relative_to(SRC) else ""
    imported, used, module = set(), set(), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                imported.add((node.module, alias.name))
                module[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            used.add((own, node.id))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            used.add((module.get(node.value.id, ""), node.attr))
    return imported, used


def test_no_function_or_class_is_there_for_tests_alone() -> None:
    files = sorted(SRC.rglob("*.py"))
    others = [path for folder in ("benchmarks", "examples") for path in (REPOSITORY / folder).rglob("*.py")]
    used: set[tuple[str, str]] = set()
    shown: dict[tuple[str, str], tuple[str, str]] = {}
    for path in (*files, *others):
        imported, own = names_in(path)
        used |= own
        if path.name == "__init__.py" and path.parent != SRC:  # a room's face is no use
            shown |= {(module_of(path), name): (home, name) for home, name in imported}
        else:
            used |= imported
    used |= {home for name, home in shown.items() if name in used}
    unused = [
        f"{module_of(path)}.{node.name}"
        for path in files
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and (module_of(path), node.name) not in used
    ]
    assert unused == []
