"""The folder of an evaluation: what is where, and whose it is; files of it whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from layerlock import together
from layerlock.errors import ConfigError, LayerlockError
from layerlock.evaluation.config import EvaluateConfig
from layerlock.files import write_whole
from layerlock.lock import FolderLock
from layerlock.settings import from_dict, to_dict
from layerlock.train.folder import check_place, flat, launch_in, versions

PLACES = ("data", "data_root", "test_data")
"""fields that say where videos are, which may have been moved: fingerprints tell whether they are the same"""
FREE = (*PLACES, "encoder", "out", "device", "precision", "workers", "threads", "checkpoint_every", "cache_gb")
"""fields that may differ when an evaluation goes on"""
FILES = (
    "evaluation.json",
    "readouts.safetensors",
    "validation.safetensors",
    "test.safetensors",
    "gallery.safetensors",
    "results.json",
    "report.html",
)


class EvaluationFolder:
    """Paths of an evaluation's folder."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.lock = FolderLock(self.path)
        self.config, self.readouts = (self.path / name for name in FILES[:2])
        self.scores = {role: self.path / f"{role}.safetensors" for role in ("validation", "test")}
        self.gallery, self.results, self.report = (self.path / name for name in FILES[4:])

    @property
    def exists(self) -> bool:
        """Whether an evaluation has been here."""
        return self.config.exists()

    @property
    def has_work(self) -> bool:
        """Whether readouts, scores or results are here: what a resume continues and `begin` would remove."""
        return any(path.exists() for path in (self.readouts, *self.scores.values(), self.results))

    @property
    def launch(self) -> str:
        """The launch that began the evaluation, as `together.launch` tells it."""
        return launch_in(self.config)

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Raises LayerlockError where an evaluation with work is there and neither is said, or something else is."""
        with self._told():
            if self.exists and not self.has_work and not resume:  # one that failed before its first checkpoint
                return
            check_place(self.path, self.exists, "an evaluation", resume=resume, overwrite=overwrite)

    def begin(self, config: EvaluateConfig, *, resume: bool) -> None:
        """Makes the folder ready, without what was there unless it is to go on.

        Raises ConfigError where one that goes on would have another config.
        """
        if resume:
            self._same("the evaluation to resume has", flat(self._read()["config"]), flat(to_dict(config)), FREE)
            return
        with self._told():
            for name in FILES:
                (self.path / name).unlink(missing_ok=True)
        self._write({"config": to_dict(config), "versions": versions(), "launch": together.launch()})

    def bind(self, config: EvaluateConfig, facts: dict[str, str]) -> None:
        """Notes what the figures are of (fingerprints); ConfigError where that is not what was noted before.

        Scores of videos that have been moved since are made anew: they name them by their old place.
        """
        before = self._read()
        if "of" in before:
            self._same("it was", before["of"], facts)
        if any(before["config"][name] != to_dict(config)[name] for name in PLACES):
            with self._told():
                for path in (*self.scores.values(), self.gallery, self.results, self.report):
                    path.unlink(missing_ok=True)
        self._write(before | {"config": to_dict(config), "of": facts})

    def _same(self, words: str, old: dict[str, Any], new: dict[str, Any], free: tuple[str, ...] = ()) -> None:
        changed = [name for name in sorted(old | new) if name not in free and old.get(name) != new.get(name)]
        if changed:
            raise ConfigError([f"{name}: {words} {old.get(name)!r}, now {new.get(name)!r}" for name in changed])

    def _read(self) -> dict[str, Any]:
        try:
            noted = json.loads(self.config.read_text())
            from_dict(EvaluateConfig, noted["config"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LayerlockError(f"{self.config}: not the config of an evaluation ({error})") from None
        return dict(noted)

    def _write(self, values: dict[str, Any]) -> None:
        with self._told():
            self.path.mkdir(parents=True, exist_ok=True)
            write_whole(self.config, lambda part: part.write_text(json.dumps(values, indent=2) + "\n"))

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What the system refuses, as an error for people."""
        try:
            yield
        except OSError as error:
            raise LayerlockError(f"{self.path}: cannot be written ({error.strerror})") from None


def save_tensors(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Writes tensors and facts. Raises LayerlockError where the disk does not take them; then the file is as it was."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    try:
        write_whole(path, lambda part: save_file(plain, part, metadata={"facts": json.dumps(facts)}))
    except (OSError, SafetensorError) as error:
        raise LayerlockError(f"{path}: cannot be written ({error})") from None


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """What `save_tensors` wrote, None where there is no file. Raises LayerlockError where it is damaged."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise LayerlockError(f"{path}: damaged ({error}); remove it to compute it again") from None
