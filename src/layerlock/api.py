"""The verbs, as functions; the commands are these."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerlock import together
from layerlock.budget.devices import ASSUMED, Device, Machine, Utilisation, device_of
from layerlock.budget.fit import Fit, bytes_of
from layerlock.budget.fit import fit as _fit
from layerlock.budget.forecast import Forecast, check, forecast, with_clips
from layerlock.budget.stages import budget, precision
from layerlock.budget.words import cost_in_words
from layerlock.config import Config, load_config
from layerlock.data.index import Index, build_index
from layerlock.data.targets import ColumnKind
from layerlock.errors import ConfigError, LayerlockError, one_line
from layerlock.features.embeddings import Embeddings, Per
from layerlock.features.whitening import Whitening
from layerlock.learn.plan import Plan
from layerlock.model.cost import backbone_parameters
from layerlock.model.encoder import HEADLINE, Encoder, block_at, load
from layerlock.process import put_back
from layerlock.progress import INDEXING, Progress
from layerlock.recipes import RECIPES
from layerlock.recipes import recipe as _recipe
from layerlock.train import checkpoint
from layerlock.train.device import pick_device, pick_precision
from layerlock.train.folder import RunFolder
from layerlock.train.loop import Outcome, train
from layerlock.train.optimizer import optimizer_problems

if TYPE_CHECKING:
    from layerlock.analyze.convergence.cells import Cells
    from layerlock.analyze.depth import DepthConfig
    from layerlock.data.pack import Packed
    from layerlock.encoders import FrozenEncoder
    from layerlock.evaluation.config import EvaluateConfig
    from layerlock.evaluation.results import Evaluation

__all__ = [
    "Embeddings",
    "Index",
    "analyze_convergence",
    "analyze_depth",
    "describe_recipe",
    "embed",
    "evaluate",
    "fit",
    "index",
    "info",
    "list_recipes",
    "load",
    "pack",
    "plan",
    "pretrain",
    "recipe",
    "synth",
    "write_report",
]


def list_recipes() -> dict[str, str]:
    """Names of the recipes; of each in a line what it is, where it is from and what it should reach."""
    return {name: made.line for name, made in RECIPES.items()}


@put_back()
def describe_recipe(name: str) -> str:
    """A recipe in lines of text: source, figures to reach, decisions, cost.

    Raises LayerlockError for a name that is not there.
    """
    config, made = _recipe(name), RECIPES[name]
    lines = [
        f"{name}: {made.about}",
        f"source    {made.source or 'our own'}",
        f"to reach  {made.reaches or 'no published figures'}",
        f"cost      {cost_in_words(config, budget(config))}",
        *(f"decided   {text}" for text in made.decided),
    ]
    return "\n".join(lines)


def recipe(name: str, **changes: Any) -> Config:
    """The config of a recipe, with `changes` to its fields. One that adapts an encoder has the blocks and the clips of
    the encoder that `init_from` names, except for what `changes` say.

    Raises LayerlockError for a name or a field that is not there, and for an encoder that cannot be used.
    """
    config = _recipe(name, changes.get("init_from"))
    unknown = sorted(set(changes) - {field.name for field in dataclasses.fields(config)})
    if unknown:
        raise LayerlockError(f"a config has no field {', '.join(unknown)}")
    return dataclasses.replace(config, **changes)


@put_back()
def plan(
    config: Config | str,
    own: Plan | None = None,
    *,
    device: str = "h100",
    gpus: int = 1,
    clips: float | None = None,
    mfu: float | None = None,
    watts: float | None = None,
    price: float | None = None,
    currency: str = "",
    out: str | Path | None = None,
    quiet: bool = False,
) -> Forecast:
    """What a run will take, stage by stage: FLOPs, bytes, hours, energy, money; no model is built (docs/plan.md).

    `config` is a config or the name of a recipe, `own` a plan as for `pretrain`. `device` is h100, h200, a100, cpu, or
    `measured`: then a few steps of each stage are timed on this machine with random clips. `gpus` devices divide the
    batch; `clips` set the steps; `mfu` is the share of the device's peak that is reached, `watts` its power, `price`
    that of a device hour. With `out` leaves `plan.html` and `plan.json` in that folder. Raises ConfigError for what
    cannot be trained or planned.
    """
    config = recipe(config) if isinstance(config, str) else config
    config = config if clips is None else with_clips(config, clips)
    if problems := optimizer_problems(config.optim):
        raise ConfigError(problems)
    seconds: list[float] = []
    if device == "measured":
        if gpus != 1 or mfu is not None:
            raise ConfigError(["device: measured is this machine as it is, without gpus and mfu"])
        config, hardware = _this_machine(config)
    else:
        hardware = device_of(device)
    machine = Machine(
        device=hardware,
        gpus=gpus,
        utilisation=ASSUMED if mfu is None else Utilisation(share=mfu, source="as given"),
        price=math.nan if price is None else price,
        currency=currency,
    )
    if watts is not None:
        if not 0 < watts < math.inf:
            raise ConfigError([f"watts: {watts} is not a power"])
        machine = dataclasses.replace(machine, device=dataclasses.replace(hardware, watts=watts))
    if device == "measured":
        from layerlock.train.timing import step_seconds

        stages = [each.stage for each in budget(config, check(config, machine, own), machine)]
        seconds = step_seconds(config, stages, quiet=quiet)
    found = forecast(config, own, machine, seconds=seconds)
    if out is not None:
        from layerlock.report.plan import write_plan

        write_plan(found, Path(out))
    return found


def _this_machine(config: Config) -> tuple[Config, Device]:
    """The config in the precision that it has here, and what computes it."""
    from layerlock.train.device import memory_of
    from layerlock.train.timing import machine_in_words

    device = pick_device(config.run.device)
    compute = pick_precision(config.run, device)
    run = dataclasses.replace(config.run, precision="bf16" if compute.itemsize == 2 else "fp32")
    config = dataclasses.replace(config, run=run)
    return config, Device(
        name="measured",
        words=machine_in_words(device),
        peak={precision(config): math.nan},
        memory=memory_of(device),
        bandwidth=math.nan,
        watts=math.nan,
        source="this machine",
        cpu=device.type == "cpu",
    )


def fit(found: Forecast, memory: str | float) -> tuple[Fit, ...]:
    """Settings of a forecast's run that fit into `memory` of one device, bytes or `24GB`, the best first.

    Raises ConfigError where nothing fits.
    """
    if found.measured:
        raise ConfigError(["fit: times of other settings are not measured; name a device instead of measured"])
    return _fit(found, bytes_of(memory if isinstance(memory, str) else f"{memory / 1e6}MB"))


@put_back()
def pretrain(
    config: Config, plan: Plan | None = None, *, resume: bool = False, overwrite: bool = False, quiet: bool = False
) -> Outcome:
    """Trains an encoder and leaves a run folder at `config.out`: the encoder, metrics, checkpoints and `report.html`.

    `plan` is anything with `stage(step, log) -> Stage`; without one the config's own. Raises ConfigError for a config
    that cannot be trained (with all its problems), LayerlockError for data, disk or losses that stop the run.

    Called by all processes that `torchrun` started, each trains on its share of every batch (`docs/cluster.md`).
    """
    outcome = train(config, plan, resume=resume, overwrite=overwrite, quiet=quiet)
    if outcome.signal is None and together.leads():
        _report(outcome)
    return outcome


def _report(outcome: Outcome) -> None:
    """The report of a run that is done; an error in it does not fail the run."""
    try:
        write_report(outcome.folder)
    except Exception as error:
        text = f"report.html was not written: {_reason(error)}; again: layerlock report {outcome.folder}"
        with suppress(OSError):
            RunFolder(outcome.folder).write_event(outcome.step, "warning", text)


def _reason(error: Exception) -> str:
    """Why there is no page, in one line."""
    if isinstance(error, ImportError) and error.name:
        return f"{error.name} is missing (pip install 'layerlock[report]')"
    return one_line(error) if isinstance(error, LayerlockError) else f"{type(error).__name__}: {one_line(error)}"


@put_back()
def write_report(run: str | Path) -> Path:
    """Writes `report.html` of a run folder, one self-contained page; returns its path. Needs the extra `report`."""
    from layerlock.report import page

    return page.write_report(run_folder(run))


def run_folder(path: str | Path) -> RunFolder:
    """The run folder at `path`. Raises LayerlockError where there is none."""
    folder = RunFolder(path)
    if not folder.exists:
        raise LayerlockError(f"{path}: no run here (there is no config.json)")
    return folder


@put_back()
@together.job()
def embed(
    encoder: FrozenEncoder | str | Path,
    data: str | Path,
    *,
    data_root: str | Path | None = None,
    out: str | Path | None = None,
    per: Per = "video",
    hop: float | None = None,
    depth: int | Sequence[int] | None = None,
    whiten: bool | str | Path | None = None,
    batch: int = 16,
    workers: int = 2,
    device: str = "auto",
) -> Embeddings:
    """Features of the videos of a folder, after block `depth` (`floor(0.95 L)` without one) or after each of several.

    `per` "video" gives one vector for each video: the mean over the tokens of its middle clip; "clip" the same of every
    clip, with its times, one each `hop` seconds (without it, each begins where the one before ends; the last one ends
    with the video); "token" all tokens of the middle clip.

    The encoder is one that is held, and then on `device` already, or the name of any (docs/encoders.md). `data_root` is
    the folder that the paths of a list begin at, without one the list's. `out` is a file to write (`Embeddings.save`).
    Vectors are collected on the disk, not in memory: in the folder of `out`, else where the system has its temporary
    files.

    Vectors of videos and clips are centred and whitened, so that their cosines tell them apart. `whiten` None learns
    this from the vectors, and leaves them as they are where all are the same or some are not finite; True makes that an
    error; False leaves them as they are; the .npz file of an earlier call whitens as that call did, so that old and new
    vectors compare. Tokens stay as they are. Raises LayerlockError for an encoder, data or a file that cannot be used.

    Called by all processes that `torchrun` started, they divide the clips (`docs/cluster.md`); the first one has the
    vectors, the others none.
    """
    from layerlock.encoders import open_encoder
    from layerlock.encoders.checks import fingerprint
    from layerlock.features.embed import embed_videos

    if per == "token" and whiten not in (None, False):
        raise LayerlockError(
            "whiten: tokens are not whitened: those of one clip are no independent samples to learn a covariance from, "
            "and whole clips have another; whiten per video or per clip"
        )
    place = encoder.vit.embed.weight.device if isinstance(encoder, Encoder) else pick_device(device)
    model = open_encoder(str(encoder), device=place) if isinstance(encoder, str | Path) else encoder
    depths = block_at(HEADLINE, model.depth) if depth is None else depth if isinstance(depth, int) else list(depth)
    facts = {"encoder": fingerprint(model), "depth": depths}
    by = Whitening.load(Path(whiten), facts) if isinstance(whiten, str | Path) else whiten
    together.agree(facts | {"data": str(data), "data_root": _text(data_root), "per": per, "hop": hop, "batch": batch})
    found = embed_videos(
        model,
        str(data),
        root=_text(data_root),
        per=per,
        hop=hop,
        depth=depths,
        folder=None if out is None else Path(out).parent,
        batch=batch,
        workers=workers,
        device=place,
    )
    if not together.leads():
        return found
    embeddings = found.whitened(by=False if per == "token" else by)
    if out is not None:
        embeddings.save(Path(out), facts)
    return embeddings


@put_back()
def evaluate(
    encoder: FrozenEncoder | str | Path,
    data: str | Path,
    *,
    task: str = "action",
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> Evaluation:
    """Reads classes, numbers or depth from frozen features, or retrieves videos by them (LayerLock A.4).

    `settings` are further fields of `EvaluateConfig`. Leaves `results.json` and `report.html` in the folder `out`.
    Raises ConfigError for invalid settings, LayerlockError for an encoder, data or files that cannot be used.

    Called by all processes that `torchrun` started, they divide the clips (`docs/cluster.md`).
    """
    from layerlock.evaluation.config import EvaluateConfig

    named = isinstance(encoder, str | Path)
    unknown = sorted(set(settings) - {field.name for field in dataclasses.fields(EvaluateConfig)})
    if unknown:
        raise LayerlockError(f"an evaluation has no field {', '.join(unknown)}")
    name = str(encoder) if named else type(encoder).__name__
    plain = {field: _plain(value) for field, value in settings.items()}
    config = EvaluateConfig(**{"encoder": name, "data": str(data), "task": task, **plain})
    given = None if isinstance(encoder, str | Path) else encoder
    return run_evaluation(config, given, resume=resume, overwrite=overwrite, quiet=quiet)


def _plain(value: Any) -> Any:
    """Lists and paths as the tuples and texts that a config holds."""
    return tuple(value) if isinstance(value, list) else str(value) if isinstance(value, Path) else value


@put_back()
def run_evaluation(
    config: EvaluateConfig,
    encoder: FrozenEncoder | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> Evaluation:
    """The evaluation that a config describes, of the encoder that it names or of another; `evaluate` says the rest."""
    from layerlock.evaluation.run import evaluate as run

    found = run(config, encoder, resume=resume, overwrite=overwrite, quiet=quiet)
    if found.signal is None and together.leads():
        try:
            from layerlock.report.evaluation import write_evaluation

            write_evaluation(found)
        except Exception as error:
            print(f"report.html was not written: {_reason(error)}; all figures are in {found.out}/results.json")
    return found


@put_back()
def synth(
    out: str | Path, *, videos: int = 1_000, seed: int = 0, size: int = 64, frames: int = 24, workers: int = 0
) -> list[Path]:
    """Writes videos of the synthetic world: H.264 in class folders, labels, 16-bit depth; returns their paths."""
    from layerlock.data.synth import SynthConfig, write_videos

    return write_videos(out, SynthConfig(videos=videos, seed=seed, size=size, frames=frames), workers=workers)


@put_back()
def analyze_depth(
    encoders: FrozenEncoder | str | Path | Sequence[FrozenEncoder | str | Path],
    data: str | Path,
    *,
    quiet: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """What every depth of one or several encoders is like: ranks, likeness, linear probes, retrieval (docs/analyze.md).

    `settings` are further fields of `DepthConfig`. Leaves `depth.json`, `depth.csv` and `report.html` in the folder
    `out`; returns what is in the first. Raises ConfigError for invalid settings, LayerlockError for encoders or data
    that cannot be used.

    Called by all processes that `torchrun` started, they divide the clips (`docs/cluster.md`).
    """
    from layerlock.analyze.depth import DepthConfig

    unknown = sorted(set(settings) - {field.name for field in dataclasses.fields(DepthConfig)})
    if unknown:
        raise LayerlockError(f"an analysis by depth has no field {', '.join(unknown)}")
    listed = encoders if isinstance(encoders, Sequence) and not isinstance(encoders, str) else [encoders]
    names = tuple(str(one) for one in listed if isinstance(one, str | Path))
    plain = {field: _plain(value) for field, value in settings.items()}
    held = [one for one in listed if not isinstance(one, str | Path)]
    return run_analysis(DepthConfig(**{"encoders": names, "data": str(data), **plain}), held, quiet=quiet)


@put_back()
def run_analysis(config: DepthConfig, held: Sequence[FrozenEncoder] = (), *, quiet: bool = False) -> dict[str, Any]:
    """The analysis that a config describes; `analyze_depth` says the rest."""
    from layerlock.analyze.depth import analyze_depth as run

    found = run(config, held, quiet=quiet)
    if not together.leads():
        return found
    try:
        from layerlock.report.analysis import write_analysis

        page = Path(config.out) / "report.html"
        page.unlink(missing_ok=True)  # that of an earlier analysis
        write_analysis(found, page)
    except Exception as error:
        print(f"report.html was not written: {_reason(error)}; all figures are in {config.out}/depth.json")
    return found


@put_back()
def analyze_convergence(config: Config | str, *, quiet: bool = False, **settings: Any) -> dict[str, Any]:
    """How much the final loss suffers where the first blocks are frozen at some step (docs/convergence.md).

    `config` is a config, whose `out` is the folder of the analysis, or the name of a recipe; `settings` are fields of
    `Cells`: `layers` and `times`, and what else there is. Trains what is not trained there yet. Leaves
    `convergence.json`, `convergence.csv`, `convergence.svg` (Figure 1) and `report.html`; returns what is in the first,
    and `signal`, which is all where that signal stopped a run. Raises ConfigError for invalid settings, LayerlockError
    for data, disk or losses that stop a run, and for a baseline whose loss does not fall.
    """
    from layerlock.analyze.convergence.cells import Cells

    unknown = sorted(set(settings) - {field.name for field in dataclasses.fields(Cells)})
    if unknown:
        raise LayerlockError(f"an analysis of convergence has no field {', '.join(unknown)}")
    cells = Cells(**{field: _plain(value) for field, value in settings.items()})
    return run_convergence(recipe(config) if isinstance(config, str) else config, cells, quiet=quiet)


@put_back()
def run_convergence(config: Config, cells: Cells, *, quiet: bool = False) -> dict[str, Any]:
    """The analysis that `cells` describe; `analyze_convergence` says the rest."""
    from layerlock.analyze.convergence.analysis import analyze_convergence as run

    found = run(config, cells, quiet=quiet)
    if found["signal"] is None:
        try:
            from layerlock.report.convergence import write_convergence

            write_convergence(found, Path(config.out))
        except Exception as error:
            print(f"report.html was not written: {_reason(error)}; all figures are in {config.out}/convergence.json")
    return found


def _text(path: str | Path | None) -> str | None:
    return None if path is None else str(path)


@put_back()
def index(
    data: str | Path,
    *,
    data_root: str | Path | None = None,
    targets: Mapping[str, ColumnKind | None] | None = None,
    workers: int | None = None,
    cache: bool = True,
    quiet: bool = False,
) -> Index:
    """What is in the videos of a data set: a folder, a list or a video, in any layout.

    `data_root` is the folder that the paths of a list begin at, without one the list's. `targets` are columns of the
    list to read beside `label`, each as "class", as "float", or, with None, as what its values are. `workers` processes
    decode the beginning of each video (None: one for each processor); with `cache` only of those that are new or
    changed since an earlier call. Raises LayerlockError for data that are not there, for columns that are not there or
    not of their kind, and where nothing can be used.
    """
    with Progress(INDEXING, quiet) as progress:
        return build_index(data, workers, root=_text(data_root), targets=targets, progress=progress, cache=cache)


@put_back()
def pack(
    data: str | Path,
    out: str | Path,
    *,
    data_root: str | Path | None = None,
    targets: Mapping[str, ColumnKind | None] | None = None,
    short_side: int = 256,
    gop: int = 16,
    crf: int = 20,
    shard_mb: float = 256.0,
    workers: int | None = None,
    quiet: bool = False,
) -> Packed:
    """Writes the videos of a data set as tar shards that are quick to read clips from (docs/data.md).

    The videos become H.264 with a shorter side of `short_side` pixels, a key frame every `gop` frames, at the quality
    `crf` of x264. `data_root` and `targets` are those of `index`; targets are stored beside the videos. `shard_mb` are
    megabytes from which on a shard is complete, `workers` processes (None: one for each processor). What is whole in
    `out` is kept, so a call that was interrupted is repeated. Raises ConfigError for settings that make no sense,
    LayerlockError for data or a folder that cannot be used, for one that holds another pack, and for a full disk.
    """
    from layerlock.data.pack import write_pack
    from layerlock.data.transcode import Encoding

    with Progress("packing videos", quiet) as progress:
        return write_pack(
            str(data),
            Path(out),
            Encoding(short_side=short_side, gop=gop, crf=crf),
            shard_mb=shard_mb,
            root=_text(data_root),
            targets=targets,
            workers=workers,
            progress=progress,
        )


@put_back()
def info(run: str | Path) -> dict[str, Any]:
    """What a run is and where it stands: recipe, data, steps done, last losses, switches, sizes, newest checkpoint."""
    folder = run_folder(run)
    config = load_config(folder.config)
    lines = list(folder.lines())
    last = lines[-1] if lines else {"step": 0, "losses": {}, "frozen": 0}
    switches = [b["step"] for a, b in pairwise(lines) if (a["frozen"], a["targets"]) != (b["frozen"], b["targets"])]
    newest = checkpoint.latest(folder.checkpoints)
    model, clip = config.model, config.clip
    return {
        "run": str(folder.path),
        "recipe": config.recipe,
        "data": config.data,
        "steps": f"{last['step']} of {config.steps}",
        "losses": last["losses"],
        "frozen": f"{last['frozen']} of {config.encoder_depth} encoder blocks; {len(switches)} switches",
        "checkpoint": str(newest) if newest else None,
        "encoder": str(folder.encoder) if folder.encoder.is_dir() else None,
        "model": f"{model.depth} blocks of width {model.width}, "
        f"{backbone_parameters(model, config.tokens):,} parameters",
        "clip": f"{clip.frames} frames, stride {clip.stride}, {clip.size} x {clip.size}",
    }
