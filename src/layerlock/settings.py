"""Settings as nested frozen dataclasses: their types checked, and to and from plain JSON values.

A field can hold one of several dataclasses, which `kind` names, or a tuple of them.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from typing import Any, Literal

from layerlock.errors import ConfigError

KIND = "kind"
"""beside the fields of a dataclass that is one of several: which one"""


def type_problems(config: Any, where: str = "") -> list[str]:
    """Fields of a config whose value is not of the type, or not one of the words, that the field takes."""
    found = []
    for name, hint in typing.get_type_hints(type(config)).items():
        value = getattr(config, name)
        if kinds := _dataclasses(hint):
            wrong = type(value) not in kinds
            found += (
                [f"{where}{name}: {value!r} is not a {' or '.join(kind.__name__ for kind in kinds)}"]
                if wrong
                else type_problems(value, f"{where}{name}.")
            )
        elif not _fits(value, hint):
            found.append(f"{where}{name}: {value!r} is not {_in_words(hint)}")
        elif not _finite(value):
            found.append(f"{where}{name}: {value!r} is not finite")
        elif _several(hint):
            found += [
                problem
                for number, each in enumerate(value)
                for problem in type_problems(each, f"{where}{name}[{number}].")
            ]
    return found


def _dataclasses(hint: Any) -> tuple[type, ...]:
    """The dataclasses that a field can hold; none for other fields."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    return tuple(kind for kind in kinds if isinstance(kind, type) and dataclasses.is_dataclass(kind))


def _several(hint: Any) -> type | None:
    """The dataclass that a field holds a tuple of; None for other fields."""
    parts = typing.get_args(hint)
    many = typing.get_origin(hint) is tuple and parts[-1] is Ellipsis and dataclasses.is_dataclass(parts[0])
    return typing.cast(type, parts[0]) if many else None


def _fits(value: Any, hint: Any) -> bool:
    kind, parts = typing.get_origin(hint), typing.get_args(hint)
    if kind is Literal:
        return value in parts
    if kind in (types.UnionType, typing.Union):
        return any(_fits(value, part) for part in parts)
    if kind is tuple:
        if not isinstance(value, tuple):
            return False
        hints = [parts[0]] * len(value) if parts[-1] is Ellipsis else parts
        return len(hints) == len(value) and all(_fits(v, h) for v, h in zip(value, hints, strict=True))
    if hint in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if hint is float else hint)


def _finite(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _in_words(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, typing.get_args(hint)))}"
    return getattr(hint, "__name__", str(hint)) if isinstance(hint, type) else str(hint).replace("typing.", "")


def kinds_of(cls: type) -> dict[str, dict[str, type]]:
    """The fields of a dataclass that hold one of several dataclasses: these by name."""
    fields = {name: _dataclasses(hint) for name, hint in typing.get_type_hints(cls).items()}
    return {name: {kind.__name__: kind for kind in kinds} for name, kinds in fields.items() if len(kinds) > 1}


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain JSON values; where a field can hold several dataclasses, `kind` names the one."""
    found: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(type(config)).items():
        value = getattr(config, name)
        kinds = _dataclasses(hint)
        if _several(hint):
            found[name] = [to_dict(each) for each in value]
        elif not kinds:
            found[name] = json.loads(json.dumps(value))
        else:
            named = {KIND: type(value).__name__} if len(kinds) > 1 else {}
            found[name] = named | to_dict(value)
    return found


def from_dict(cls: type, values: Any) -> Any:
    """The dataclass `cls` from plain values; ConfigError names every unknown field."""
    problems: list[str] = []
    built = _build(cls, values, "", problems)
    if problems:
        raise ConfigError(problems)
    return built


def _build(cls: type, values: Any, where: str, problems: list[str]) -> Any:
    hints = typing.get_type_hints(cls)
    if not isinstance(values, dict):
        problems.append(f"{where or 'config'}: {values!r} is not a table of fields")
        return None
    unknown = sorted(set(values) - set(hints))
    problems += [f"{where}{name}: no such field" for name in unknown]
    given = {}
    for name, value in values.items():
        if name in unknown:
            continue
        kinds, several = _dataclasses(hints[name]), _several(hints[name])
        if several and isinstance(value, list):
            given[name] = tuple(_build(several, v, f"{where}{name}[{n}].", problems) for n, v in enumerate(value))
        else:
            given[name] = _build_one_of(kinds, value, f"{where}{name}.", problems) if kinds else _tuple(value)
    try:
        return cls(**given)
    except TypeError as error:
        problems.append(f"{where or 'config'}: {error}")
        return None


def _build_one_of(kinds: tuple[type, ...], values: Any, where: str, problems: list[str]) -> Any:
    """The dataclass that `kind` names; without a name the first."""
    if len(kinds) == 1 or not isinstance(values, dict):
        return _build(kinds[0], values, where, problems)
    rest = dict(values)
    name = rest.pop(KIND, kinds[0].__name__)
    for kind in kinds:
        if kind.__name__ == name:
            return _build(kind, rest, where, problems)
    problems.append(f"{where}{KIND}: {name!r} is not one of {', '.join(kind.__name__ for kind in kinds)}")
    return None


def _tuple(value: Any) -> Any:
    return tuple(_tuple(part) for part in value) if isinstance(value, list) else value
