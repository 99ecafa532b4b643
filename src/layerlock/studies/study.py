"""`layerlock study`: trains the arms of a study at several seeds, and compares their encoders depth by depth."""

from __future__ import annotations

import csv
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from layerlock import api
from layerlock.analyze.depth import FEWEST, DepthConfig
from layerlock.config import Config
from layerlock.data import ClipConfig
from layerlock.data.folder import FolderSource
from layerlock.data.index import build_index
from layerlock.errors import ConfigError, LayerlockError
from layerlock.files import write_whole
from layerlock.progress import INDEXING, Progress
from layerlock.recipes import recipe
from layerlock.report.analysis import write_analysis
from layerlock.settings import type_problems
from layerlock.studies import blockwise
from layerlock.train.finished import is_finished
from layerlock.train.folder import RunFolder

RANDOM = "random weights"


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Which study, on which videos, how large."""

    study: Literal["blockwise"] = "blockwise"
    """which study; blockwise: blockwise learning and its controls (arXiv 2601.09040)"""
    scale: Literal["nano", "tiny", "small", "deit-tiny", "deit-small"] = "nano"
    """size of the models: that of the recipes `blockwise-*`"""
    data: str = ""
    """a folder or a list of videos to train on, or `synthetic`"""
    probe: str = ""
    """videos that the encoders are compared on; with classes also by probes and retrieval"""
    out: str = "runs/study"
    """folder of the runs, the comparisons and the summary"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """of weights, clips and masks: all arms are trained once with each"""
    steps: int | None = None
    """of an arm that goes through the data once; None: the recipe's"""
    parts: tuple[int, ...] = ()
    """into how many parts the encoder is cut; (): 2 and 3 at nano, 2 and 4 at tiny, else the paper's 4 and 6"""
    clips: int | None = None
    """videos of `probe` that are read, evenly spread over it; None: all"""
    occlusion: bool = False
    """whether OccDrop is computed too"""
    ladder: int = 0
    """gratings of each of two kinds that are generated and probed too"""
    device: str = "auto"
    """auto, cpu, cuda, ..."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """of trainings and comparisons; auto: bf16 if the hardware supports it, else fp32"""
    workers: int = 2
    """processes that decode"""
    threads: int | None = None
    """CPU threads; None: on a CPU OMP_NUM_THREADS, without it one for each processor"""

    def check(self) -> None:
        """Raises ConfigError with all that is wrong, also for what comes after hours of training."""
        problems = list(type_problems(self))
        if not problems:
            problems += [f"{name}: empty" for name in ("data", "probe", "out", "seeds") if not getattr(self, name)]
            problems += ["seeds: one is named twice"] if len(set(self.seeds)) < len(self.seeds) else []
            depth = recipe(f"blockwise-{self.scale}").model.depth
            problems += [f"parts: {n} of {depth} blocks" for n in self.parts if not 2 <= n <= depth]
        if problems:
            raise ConfigError(problems)
        self.comparison(self.seeds[0], (RANDOM,)).check()
        for arm in self.arms().values():
            arm.check()

    def arms(self) -> dict[str, Config]:
        """What is trained, by name; without a seed and a folder."""
        base = replace(recipe(f"blockwise-{self.scale}"), data=self.data)
        run = replace(
            base.run, device=self.device, precision=self.precision, workers=self.workers, threads=self.threads
        )
        base = replace(base, steps=base.steps if self.steps is None else self.steps, run=run)
        return blockwise.arms(base, self.parts or blockwise.PARTS[self.scale])

    def comparison(self, seed: int, encoders: tuple[str, ...]) -> DepthConfig:
        """How the encoders of one seed are compared."""
        return DepthConfig(
            encoders=encoders,
            data=self.probe,
            out=str(Path(self.out) / f"seed-{seed}" / "depth"),
            clips=self.clips,
            occlusion=self.occlusion,
            ladder=self.ladder,
            seed=seed,
            device=self.device,
            precision=self.precision,
            workers=self.workers,
            threads=self.threads,
        )


def run_study(config: StudyConfig, *, quiet: bool = False) -> dict[str, Any]:
    """Trains what is not trained yet, and goes on with what was stopped; compares the encoders of each seed, and then
    writes `study.json`, `study.csv` (figures by arm and depth, mean and range over seeds; the lead of each arm over the
    baseline, seed by seed) and `report.html`.

    Returns the summary as `layerlock analyze depth` has its figures, with `leads`, and `signal`: what stopped it.
    Raises ConfigError and LayerlockError; for settings and videos of `probe` before anything is trained.
    """
    config.check()
    with Progress(INDEXING, quiet) as progress:
        index = build_index(config.probe, config.workers or None, progress=progress)
    if len(index) < FEWEST:
        raise LayerlockError(
            f"probe: {config.probe}: {len(index)} videos are too few; there are figures from {FEWEST} on"
        )
    source, found = FolderSource(index, ClipConfig(), seed=0, targets=tuple(index.targets)), []
    probed = f"{source.fingerprint} {source.target_fingerprint}"
    for seed in config.seeds:
        folders = {name: Path(config.out) / f"seed-{seed}" / _slug(name) for name in config.arms()}
        for name, arm in config.arms().items():
            made = replace(arm, seed=seed, out=str(folders[name]))
            if not quiet:
                print(f"{name}, seed {seed}", flush=True)
            if (signal := _train(made, quiet)) is not None:
                return {"signal": signal}
        names = {RANDOM: f"random:{folders[blockwise.BASELINE]}"} | {name: str(path) for name, path in folders.items()}
        figures = _compared(config, seed, tuple(names.values()), probed, quiet)
        found.append(_renamed(figures, {v: k for k, v in names.items()}))
    summary = summary_of(found)
    _write(summary, Path(config.out))
    return summary | {"signal": None}


def _train(config: Config, quiet: bool) -> int | None:
    """Trains what is not done; the signal that stopped it. ConfigError where a run of other settings is there,
    LayerlockError where it is of other videos.
    """
    if is_finished(config):
        return None
    folder = RunFolder(config.out)
    _settings(folder.path.parent).unlink(missing_ok=True)  # what is compared there is of another encoder
    return api.pretrain(config, resume=folder.exists, quiet=quiet).signal


def _settings(of_seed: Path) -> Path:
    """What the figures in the folder of a seed were made with; not there where they have to be made anew."""
    return of_seed / "depth" / "settings.json"


def _slug(name: str) -> str:
    return re.sub(r"\W+", "-", name)


def _compared(config: StudyConfig, seed: int, encoders: tuple[str, ...], probed: str, quiet: bool) -> dict[str, Any]:
    """The figures of one seed's encoders; those of an earlier call with the same settings on the same videos, which
    `probed` tells from others, where they are there.
    """
    wanted, settings = config.comparison(seed, encoders), _settings(Path(config.out) / f"seed-{seed}")
    text = json.dumps(asdict(wanted) | {"probed": probed})
    if settings.exists() and settings.read_text() == text:
        kept: dict[str, Any] = json.loads((settings.parent / "depth.json").read_text())
        return kept
    settings.unlink(missing_ok=True)
    figures = api.run_analysis(wanted, quiet=quiet)
    write_whole(settings, lambda path: path.write_text(text))
    return figures


def _renamed(found: dict[str, Any], arm_of: Mapping[str, str]) -> dict[str, Any]:
    """The figures of one seed, its encoders named as arms."""
    return found | {
        "encoders": [one | {"name": arm_of[one["name"]], "run": None, "step": None} for one in found["encoders"]],
        "values": [one | {"encoder": arm_of[one["encoder"]]} for one in found["values"]],
        "maps": [one | {"rows": arm_of[one["rows"]], "columns": arm_of[one["columns"]]} for one in found["maps"]],
    }


def summary_of(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Figures of several seeds as one: of each the mean, with the least and the most as its interval, and `seeds`, how
    many have it; of a figure that some lack `why` says so. `leads` are those over the baseline at the last depth, seed
    by seed.
    """
    values = defaultdict(list)
    for of_seed in found:
        for one in of_seed["values"]:
            values[one["encoder"], one["depth"], one["metric"]].append(one)
    maps = defaultdict(list)
    for of_seed in found:
        for one in of_seed["maps"]:
            maps[one["name"], one["about"], one["rows"], one["columns"]].append(one["values"])
    return {
        **{name: found[0][name] for name in ("data", "clips", "classes", "encoders", "metrics")},
        "skipped": found[0]["skipped"],
        "bands": f"the range over {len(found)} seeds",
        "values": [_over_seeds(same) for same in values.values()],
        "maps": [
            {"name": name, "about": about, "rows": rows, "columns": columns, "values": _means(same)}
            for (name, about, rows, columns), same in maps.items()
        ],
        "leads": list(_leads(found)),
    }


def _over_seeds(same: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One figure of several seeds; of a mean over heads the band stays that of the heads, each its mean over seeds."""
    known = [one["value"] for one in same if _known(one["value"])]
    if not known:
        return {**same[0], "low": None, "high": None, "seeds": 0}
    of_seeds = [one["heads"] for one in same if "heads" in one]
    heads = [fmean(each) for each in zip(*of_seeds, strict=True)]
    band = heads or known
    lacking = next((one["why"] for one in same if not _known(one["value"])), "")
    why = f"of {len(known)} of {len(same)} seeds: {lacking}" if len(known) < len(same) else ""
    spread = {"value": fmean(known), "low": min(band), "high": max(band), "why": why, "seeds": len(known)}
    return {**same[0], **spread, **({"heads": heads} if heads else {})}


def _means(same: Sequence[Sequence[Sequence[float | None]]]) -> list[list[float | None]]:
    """Cell by cell."""
    return [
        [fmean(known) if (known := [x for x in cells if _known(x)]) else None for cells in zip(*rows, strict=True)]
        for rows in zip(*same, strict=True)
    ]


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _leads(found: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """What each arm has at the last depth beyond the baseline of the same seed, for figures that have a better side."""
    last = {one["name"]: one["depths"][-1] for one in found[0]["encoders"]}
    for metric in (one["name"] for one in found[0]["metrics"] if one["better"]):
        by_arm = [
            {
                one["encoder"]: one["value"]
                for one in of_seed["values"]
                if one["metric"] == metric and one["depth"] == last[one["encoder"]]
            }
            for of_seed in found
        ]
        for arm in last:
            if arm == blockwise.BASELINE:
                continue
            leads = [
                of[arm] - of[blockwise.BASELINE] for of in by_arm if _known(of[arm]) and _known(of[blockwise.BASELINE])
            ]
            if leads:
                yield {"arm": arm, "metric": metric, "mean": fmean(leads), "leads": leads}


def _write(summary: Mapping[str, Any], folder: Path) -> None:
    """The summary as JSON, as a tidy table and as a page. LayerlockError where the folder cannot be written."""
    try:
        write_whole(folder / "study.json", lambda path: path.write_text(json.dumps(summary, allow_nan=False)))
        write_whole(folder / "study.csv", lambda path: _write_table(summary, path))
    except OSError as error:
        raise LayerlockError(f"{folder}: cannot be written ({error.strerror})") from None
    write_analysis(summary, folder / "report.html")


def _write_table(summary: Mapping[str, Any], path: Path) -> None:
    columns = ("arm", "depth", "metric", "value", "low", "high", "seeds", "lead", "why")
    lead_of = {(one["arm"], one["metric"]): one["mean"] for one in summary["leads"]}
    last = {one["name"]: one["depths"][-1] for one in summary["encoders"]}
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
        table.writeheader()
        for one in summary["values"]:
            arm = one["encoder"]
            lead = lead_of.get((arm, one["metric"]), "") if one["depth"] == last[arm] else ""
            table.writerow(one | {"arm": arm, "lead": lead})
