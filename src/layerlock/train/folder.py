"""What a run leaves behind, and who may write there."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from layerlock import together
from layerlock.config import Config, load_config
from layerlock.data.index.listing import printable
from layerlock.encoders.run import checkpoints_of
from layerlock.errors import ConfigError, LayerlockError
from layerlock.files import is_part, write_whole
from layerlock.lock import FILES, FolderLock
from layerlock.settings import to_dict

PARTS = (
    "config.json",
    "metrics.jsonl",
    "watch.jsonl",
    "events.log",
    "index.json",
    "plan.json",
    "report.html",
    "checkpoints",
    "previews",
    "encoder",
    "watch",
)
EVENT = re.compile(r"(?P<when>\S+) step (?P<step>\d+) (?P<kind>\w+): (?P<text>.*)\n")
"""A line of `events.log`."""
BEFORE_UPDATE = ("switch", "skipped")
"""Kinds of events that bear the number of updates so far and belong to the next one, after the checkpoint."""
FREE = ("out", "run", "recipe", "data", "data_root")
"""Fields that a resumed run may have other than the run before: they change what is learned by rounding at most.
Whether the data are the same is told by their fingerprint, since they may have been moved."""


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    installed = {"python": sys.version.split()[0]}
    for name in ("layerlock", "torch", "numpy", "av"):
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


class RunFolder:
    """Paths of a run folder, and its two logs."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.lock = FolderLock(self.path)
        paths = [self.path / name for name in PARTS]
        self.config, self.metrics, self.watch, self.events, self.index, self.plan, self.report, *folders = paths
        self.checkpoints, self.previews, self.encoder, self.references = folders

    @property
    def exists(self) -> bool:
        """Whether a run has been here."""
        return self.config.exists()

    def is_done(self, steps: int) -> bool:
        """Whether the run here has come to its end, which is after `steps` updates: the encoder of a run that was
        killed between its last checkpoint and its end can be of an earlier stop.
        """
        return steps in checkpoints_of(self.checkpoints) and self.encoder.exists() and self._ended(steps)

    def _ended(self, steps: int) -> bool:
        if not self.events.exists():
            return False
        text = self.events.read_text(encoding="utf-8", errors="surrogateescape")
        parsed = (EVENT.match(line) for line in text.splitlines(keepends=True))
        return any(each is not None and each["kind"] == "end" and int(each["step"]) == steps for each in parsed)

    @property
    def launch(self) -> str:
        """The launch that began the run or went on with it, as `together.launch` tells it."""
        return launch_in(self.config)

    def check(self, config: Config, *, resume: bool, overwrite: bool) -> None:
        """Raises LayerlockError where a run is there and neither is said, where the folder is not a run's, and
        ConfigError where a resumed run's config differs in anything that changes what is learned.
        """
        check_place(self.path, self.exists, "a run", resume=resume, overwrite=overwrite)
        if resume:
            self.refuse_another(config)

    def begin(
        self,
        config: Config,
        *,
        resume: bool,
        overwrite: bool,
        resolved: Mapping[str, str] | None = None,
        plan: Mapping[str, Any] | None = None,
    ) -> None:
        """Makes the folder ready for a run, after `check`; writes its plan and its config, with what `auto` was
        `resolved` to.

        Raises what `check` does, and LayerlockError where nothing can be written.
        """
        self.check(config, resume=resume, overwrite=overwrite)
        if not resume and self.exists:
            self._clear()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            facts: dict[str, Any] = {"config": to_dict(config), "resolved": dict(resolved or {})}
            facts |= {"versions": versions(), "launch": together.launch()}
            text = json.dumps(facts, indent=2) + "\n"
            # the config first: by it a folder is known as a run's
            write_whole(self.config, lambda part: part.write_text(text))
            write_whole(self.plan, lambda part: part.write_text(json.dumps(plan or {}, indent=2) + "\n"))
        except OSError as error:
            raise LayerlockError(f"{self.path}: cannot be written ({error.strerror})") from None

    def plan_facts(self) -> dict[str, Any] | None:
        """What tells the plan of the run that was begun here from others; None where that is not written yet. Raises
        LayerlockError.
        """
        try:
            return dict(json.loads(self.plan.read_text())) if self.plan.exists() else None
        except (OSError, ValueError, TypeError) as error:
            raise LayerlockError(f"{self.plan}: cannot be read ({error})") from None

    def refuse_another(self, config: Config, free: Sequence[str] = FREE) -> None:
        """Raises ConfigError where a config has other settings than the run here, but for the fields `free`."""
        old, new = flat(to_dict(load_config(self.config))), flat(to_dict(config))
        changed = [
            name for name in sorted(old | new) if name.split(".")[0] not in free and old.get(name) != new.get(name)
        ]
        if changed:
            raise ConfigError(
                [f"{name}: the run to resume has {old.get(name)!r}, now {new.get(name)!r}" for name in changed]
            )

    def _clear(self) -> None:
        for name in PARTS:
            part = self.path / name
            shutil.rmtree(part) if part.is_dir() and not part.is_symlink() else part.unlink(missing_ok=True)

    def write_event(self, step: int, kind: str, text: str) -> None:
        """Adds a line to `events.log`: when, after which step, what kind of event, what; odd letters as escapes."""
        stamp = datetime.now().astimezone().isoformat(timespec="seconds")
        with self.events.open("a", encoding="utf-8") as events:
            events.write(f"{stamp} step {step} {kind}: {printable(' '.join(text.split()))}\n")

    def write_line(self, line: dict[str, Any]) -> None:
        """Adds a line to `metrics.jsonl`."""
        _write_line(self.metrics, line)

    def write_watched(self, line: dict[str, Any]) -> None:
        """Adds a line to `watch.jsonl`."""
        _write_line(self.watch, line)

    def lines(self) -> Iterator[dict[str, Any]]:
        """The whole lines of `metrics.jsonl`; a last line that a kill cut short is left out."""
        return _lines(self.metrics)

    def watched(self) -> Iterator[dict[str, Any]]:
        """The same of `watch.jsonl`."""
        return _lines(self.watch)

    def rewind(self, step: int) -> None:
        """Takes back the metrics, the figures of depths and the events after `step`: a resumed run writes them anew."""
        for log in (self.metrics, self.watch):
            _cut(log, step)
        for after, path in by_step(self.references).items():
            if after > step:
                path.unlink()
        if self.events.exists():
            text = self.events.read_text(encoding="utf-8", errors="surrogateescape")
            told = "".join(line for line in text.splitlines(keepends=True) if _stays(line, step))
            write_whole(self.events, lambda part: part.write_text(told, encoding="utf-8", errors="surrogateescape"))


def by_step(folder: Path) -> dict[int, Path]:
    """The files `step-N.safetensors` of a folder by their step."""
    return {int(path.stem.removeprefix("step-")): path for path in sorted(folder.glob("step-*.safetensors"))}


def _write_line(log: Path, line: dict[str, Any]) -> None:
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _lines(log: Path) -> Iterator[dict[str, Any]]:
    if not log.exists():
        return
    for text in log.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(text)
        except json.JSONDecodeError:
            return


def _cut(log: Path, step: int) -> None:
    """Leaves the lines up to `step`."""
    if log.exists():
        kept = "".join(json.dumps(line) + "\n" for line in _lines(log) if line["step"] <= step)
        write_whole(log, lambda part: part.write_text(kept, encoding="utf-8"))


def _stays(event: str, step: int) -> bool:
    """Whether a line of `events.log` tells of what was before the checkpoint of `step`; one cut short by a kill does
    not.
    """
    parsed = EVENT.match(event)
    return parsed is not None and int(parsed["step"]) + (parsed["kind"] in BEFORE_UPDATE) <= step


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, with dotted names."""
    flattened: dict[str, Any] = {}
    for name, value in values.items():
        flattened |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flattened


def launch_in(config: Path) -> str:
    """The launch that a folder's file of settings names; empty where it names none."""
    try:
        return str(json.loads(config.read_text()).get("launch", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def _is_empty(path: Path) -> bool:
    """Whether nothing is in a folder but what a process leaves there that is killed before it begins."""
    return path.is_dir() and all(entry.name in FILES or is_part(entry.name) for entry in path.iterdir())


def check_place(path: Path, exists: bool, what: str, *, resume: bool, overwrite: bool) -> None:
    """Raises LayerlockError where `what` (`a run`, `an evaluation`) is at `path` and neither is said, where none is
    there to resume, and where something else is there.
    """
    if resume and overwrite:
        raise LayerlockError(f"--resume continues {what} and --overwrite replaces it: say one of them")
    if not exists and path.exists() and not _is_empty(path):
        raise LayerlockError(f"{path}: there, and not {what} of ours; name another --out")
    if resume and not exists:
        raise LayerlockError(f"{path}: no {what.split()[1]} to resume here")
    if exists and not resume and not overwrite:
        raise LayerlockError(
            f"{path}: {what} is there already; continue it with --resume, replace it with --overwrite, or name another "
            "--out"
        )
