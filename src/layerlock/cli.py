"""Train and evaluate video encoders. `layerlock COMMAND --help` lists the options of a command."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, make_dataclass, replace
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from layerlock import api, together
from layerlock.analyze.convergence.cells import Cells
from layerlock.analyze.depth import DepthConfig
from layerlock.config import Config, load_config
from layerlock.data.index.describe import describe, describe_rejected
from layerlock.data.index.listing import NothingUsable
from layerlock.data.index.rows import declared
from layerlock.errors import ConfigError, LayerlockError
from layerlock.evaluation.config import EvaluateConfig
from layerlock.evaluation.tasks import TASKS
from layerlock.features.embeddings import Per
from layerlock.learn.plans import Locking
from layerlock.settings import KIND, kinds_of
from layerlock.show import (
    path_name,
    show_convergence,
    show_depths,
    show_embeddings,
    show_evaluation,
    show_facts,
    show_fit,
    show_pack,
    show_plan,
    show_recipe,
    show_recipes,
    show_study,
)
from layerlock.studies.study import StudyConfig, run_study
from layerlock.train.folder import RunFolder

DataPath = Annotated[str, tyro.conf.arg(metavar="PATH")]
"""a text, since Path("") would be the current folder"""

PRETRAIN_USAGE = """usage: layerlock pretrain RECIPE [--data PATH|synthetic] [--out RUN] [--steps N] [--any.field VALUE]
                          [--resume | --overwrite] [--init-from PATH] [--dry-run]

`layerlock recipes` lists the recipes; `layerlock pretrain RECIPE --help` all fields with the recipe's values. Plan,
masking and decoder each have several kinds (--plan.kind, --masking.kind, --decoder.kind) with fields of their own; add
--help after the kind to see them."""


@dataclass(frozen=True, kw_only=True)
class PretrainArguments:
    """Train an encoder on videos (--data PATH: a folder or a list) or on the synthetic world."""

    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)
    resume: bool = False
    """Continue the run that is at --out, exactly where its last checkpoint is."""
    overwrite: bool = False
    """Replace the run that is at --out."""
    dry_run: bool = False
    """Print the resolved config, what `layerlock plan` prints of it, and other maskings' FLOPs; touch nothing."""


def _asks_for_help(arguments: Sequence[str]) -> bool:
    return "--help" in arguments or "-h" in arguments


def _show_usage(usage: str, arguments: Sequence[str]) -> int:
    """Prints how a command is used, and returns its exit status: 0 where that was asked for, else 2."""
    asked = _asks_for_help(arguments)
    print(usage, file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2


def pretrain(arguments: Sequence[str]) -> int:
    """`layerlock pretrain RECIPE ...`."""
    if not arguments or arguments[0].startswith("-"):
        return _show_usage(PRETRAIN_USAGE, arguments)
    with together.job():
        given = pretrain_arguments(arguments)
    if given.dry_run:
        from layerlock.dry_run import show

        if together.leads():
            show(given.config)
        return 0
    outcome = api.pretrain(given.config, resume=given.resume, overwrite=given.overwrite)
    if not together.leads():
        return 0 if outcome.signal is None else 128 + outcome.signal
    if outcome.signal is not None:
        print(f"stopped after step {outcome.step}; everything is saved; run the same command with --resume to continue")
        return 128 + outcome.signal
    print(f"encoder: {path_name(outcome.folder / 'encoder')}")
    report = outcome.folder / "report.html"
    if report.exists():
        print(f"report:  {path_name(report)}")
    return 0


def pretrain_arguments(arguments: Sequence[str]) -> PretrainArguments:
    """What `layerlock pretrain RECIPE ...` is told, with the recipe's values where it is told nothing."""
    return _with_config(PretrainArguments, "pretrain", arguments)


PLAN_USAGE = """usage: layerlock plan RECIPE [--device h100|h200|a100|cpu|measured] [--gpus N] [--clips N] [--fit 24GB]
                      [--price 2.50EUR] [--watts W] [--mfu 0.3] [--out DIR] [--any.field VALUE]

`layerlock plan RECIPE --help` lists all fields; docs/plan.md says what the figures are."""


@dataclass(frozen=True, kw_only=True)
class PlanArguments:
    """What a run will take, stage by stage: FLOPs, bytes, hours, energy, money; beside a run that freezes nothing."""

    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)
    device: str = "h100"
    """h100, h200, a100, cpu, or measured: a few steps of each stage are timed on this machine"""
    gpus: int = 1
    """devices that divide the batch"""
    clips: float | None = None
    """clips of the whole run, 250e6 for example; the steps follow"""
    fit: str | None = None
    """memory of a device, 24GB for example: propose settings that fit"""
    price: str | None = None
    """of a device hour, with a currency or without: 2.50EUR"""
    watts: float | None = None
    """power of a device; None: its board power"""
    mfu: float | None = None
    """share of the device's peak that is reached; None: an assumption"""


def plan(arguments: Sequence[str]) -> int:
    """`layerlock plan RECIPE ...`; --out is the folder of the page."""
    if not arguments or arguments[0].startswith("-"):
        return _show_usage(PLAN_USAGE, arguments)
    given = _with_config(PlanArguments, "plan", arguments)
    if given.clips is not None and _given(arguments, "--steps") is not None:
        raise ConfigError(["clips: set steps or clips, not both"])
    price, currency = _price(given.price)
    folder = _given(arguments, "--out")
    found = api.plan(
        given.config,
        device=given.device,
        gpus=given.gpus,
        clips=given.clips,
        mfu=given.mfu,
        watts=given.watts,
        price=price,
        currency=currency,
        out=folder,
    )
    show_plan(found)
    if given.fit is not None:
        show_fit(api.fit(found, given.fit), found.machine, _of_pretrain(arguments, found.config.steps))
    if folder is not None:
        print(f"page: {path_name(Path(folder) / 'plan.html')}")
    return 0


def _of_pretrain(arguments: Sequence[str], steps: int) -> str:
    """The command that trains what was planned: what it was told, without the flags that only a plan has."""
    own = {f"--{each.name}" for each in fields(PlanArguments)} - {"--config"} | {"--out"}
    kept = [
        word
        for before, word in pairwise(["", *arguments])
        if before not in own and word not in own and word.partition("=")[0] not in own
    ]
    clips = [] if _given(arguments, "--clips") is None else ["--steps", str(steps)]
    return shlex.join(["layerlock", "pretrain", *kept, *clips])


def _price(text: str | None) -> tuple[float | None, str]:
    """`2.50EUR` as a number and a currency. ConfigError for anything else."""
    if text is None:
        return None, ""
    found = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([A-Za-z]{3})?", text.strip())
    if found is None:
        raise ConfigError([f"price: {text!r} is no price of a device hour; write 2.50 or 2.50EUR"])
    return float(found.group(1)), (found.group(2) or "").upper()


Arguments = TypeVar("Arguments", bound="PretrainArguments | PlanArguments | ConvergenceArguments")


def _with_config(kind: type[Arguments], verb: str, arguments: Sequence[str]) -> Arguments:
    """What `layerlock VERB RECIPE ...` is told, with the recipe's values where it is told nothing."""
    arguments = _kinds_in_full(arguments)
    config = _of_kinds(_defaults(arguments), arguments)
    made = _with_kinds(kind, config)
    return tyro.cli(
        made,
        args=list(arguments[1:]),
        default=made(config=config),
        prog=f"layerlock {verb} {arguments[0]}",
        console_outputs=together.leads(),
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.AvoidSubcommands),
    )


def _kinds_in_full(arguments: Sequence[str]) -> list[str]:
    """`--plan auto` as `--plan.kind Auto`, and so for every field that has kinds."""
    full = list(arguments)
    for name, kinds in kinds_of(Config).items():
        found = _given(full, f"--{name}")
        kind = {each.lower(): each for each in kinds}.get((found or "").lower(), found)
        if kind is not None:
            at = next(n for n, word in enumerate(full) if word.partition("=")[0] == f"--{name}")
            full[at : at + (1 if "=" in full[at] else 2)] = [f"--{name}.{KIND}", kind]
    return full


def _defaults(arguments: Sequence[str]) -> Config:
    """The recipe's config; for a resume the run's own, so that the command need not repeat what it was told."""
    out = _given(arguments, "--out") or f"runs/{arguments[0]}"
    if "--resume" not in arguments:
        init_from = _given(arguments, "--init-from") or _given(arguments, "--init_from")
        changes = {} if init_from is None else {"init_from": init_from}
        return api.recipe(arguments[0], out=out, **changes)
    folder = RunFolder(out)
    if not folder.exists:
        raise LayerlockError(f"{folder.path}: no run to resume (there is no config.json)")
    before = load_config(folder.config)
    if before.recipe != arguments[0]:
        raise LayerlockError(f"{folder.path}: a run of {before.recipe}, not of {arguments[0]}")
    return before


def _with_kinds(base: type[Arguments], config: Config) -> type[Arguments]:
    """The arguments with a choice of kind for each field that has several; those of `config` are the defaults."""
    fields = [
        (
            f"{name}_{KIND}",
            Annotated[
                Literal[tuple(kinds)],
                tyro.conf.arg(
                    name=f"{name}.{KIND}",
                    help=f"kind of {name}; the fields of another kind start at its own defaults, "
                    "but what is predicted when a plan freezes otherwise",
                ),
            ],
            field(default=type(getattr(config, name)).__name__),
        )
        for name, kinds in kinds_of(Config).items()
    ]
    made = make_dataclass(base.__name__, fields, bases=(base,), frozen=True, kw_only=True)
    made.__doc__ = base.__doc__
    return made


def _of_kinds(config: Config, arguments: Sequence[str]) -> Config:
    """The config with the kinds that are asked for, as they are by default where they are others.

    Raises ConfigError for fields of a kind that is not the one taken.
    """
    problems = []
    for name, kinds in kinds_of(Config).items():
        asked = kinds.get(_given(arguments, f"--{name}.{KIND}") or "", type(getattr(config, name)))
        if asked is not type(getattr(config, name)):
            config = replace(config, **{name: _another(getattr(config, name), asked)})
        flags = {each.partition("=")[0].replace("-", "_") for each in arguments if each.startswith(f"--{name}.")}
        for flag in sorted(flags - {f"__{name}.{each.name}" for each in fields(asked)}):
            own = flag.partition(".")[2]
            if others := [other for other, kind in kinds.items() if own in {each.name for each in fields(kind)}]:
                kind = " or ".join(others)
                problems.append(f"{name}.{own}: {asked.__name__} has no such field; --{name}.{KIND} {kind} has")
    if problems:
        raise ConfigError(problems)
    return config


def _another(before: Any, asked: type) -> Any:
    """A kind with its own defaults; of plans that freeze, what is predicted stays."""
    if not (isinstance(before, Locking) and issubclass(asked, Locking)):
        return asked()
    return asked(**{each: getattr(before, each) for each in Locking.__annotations__})


def _given(arguments: Sequence[str], flag: str) -> str | None:
    """What stands after a flag, or behind its `=`."""
    joined = (each.removeprefix(f"{flag}=") for each in arguments if each.startswith(f"{flag}="))
    return next((b for a, b in pairwise(arguments) if a == flag), next(joined, None))


EVALUATE_USAGE = f"""usage: layerlock evaluate ENCODER --task {"|".join(TASKS)} --data PATH
                          [--column NAME] [--test-data PATH] [--group REGEX] [--out DIR] [--depths 0.25,0.5,...]
                          [--lrs 1e-4,...] [--shots 1,5,20,all] [--examples N] [--any-field VALUE]
                          [--resume | --overwrite]

`layerlock evaluate ENCODER --help` lists all fields; docs/evaluation.md says what they are for."""


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments:
    """Train readouts of classes, numbers or depth on frozen features, or retrieve videos by them."""

    config: Annotated[EvaluateConfig, tyro.conf.arg(name="")] = field(default_factory=EvaluateConfig)
    resume: bool = False
    """Continue the evaluation that is at --out, exactly where its last checkpoint is."""
    overwrite: bool = False
    """Replace the evaluation that is at --out."""


def evaluate(arguments: Sequence[str]) -> int:
    """`layerlock evaluate ENCODER ...`."""
    if not arguments or arguments[0].startswith("-"):
        return _show_usage(EVALUATE_USAGE, arguments)
    given = tyro.cli(
        EvaluateArguments,
        args=_lists_apart(arguments[1:]),
        default=EvaluateArguments(config=EvaluateConfig(encoder=arguments[0])),
        prog="layerlock evaluate ENCODER",
        console_outputs=together.leads(),
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.AvoidSubcommands),
    )
    found = api.run_evaluation(given.config, resume=given.resume, overwrite=given.overwrite)
    if not together.leads():
        return 0 if found.signal is None else 128 + found.signal
    if found.signal is not None:
        print("stopped; everything is saved; run the same command with --resume to continue")
        return 128 + found.signal
    show_evaluation(found)
    return 0


def _lists_apart(arguments: Sequence[str]) -> list[str]:
    """`--depths 0.5,1.0` as `--depths 0.5 1.0`."""
    parts: list[str] = []
    for before, argument in pairwise(["", *arguments]):
        parts += argument.split(",") if before in ("--depths", "--lrs", "--shots", "--query-patch") else [argument]
    return parts


ANALYZE_USAGE = """usage: layerlock analyze depth ENCODER... --data PATH [--out DIR] [--clips N] [--any-field VALUE]
       layerlock analyze convergence RECIPE --data PATH --layers 2 3 4 6 --times 0.1 0.2 0.4 0.6 [--out DIR]
                          [--seeds 0 1 2] [--any.field VALUE]

`layerlock analyze depth --help` and `layerlock analyze convergence RECIPE --help` list all fields; docs/analyze.md and
docs/convergence.md say what the figures are. The same command resumes an analysis of convergence that was stopped."""


@dataclass(frozen=True, kw_only=True)
class AnalyzeArguments:
    """Figures of every depth of one or several encoders: ranks, likeness, linear probes, retrieval."""

    config: Annotated[DepthConfig, tyro.conf.arg(name="")] = field(default_factory=DepthConfig)


@dataclass(frozen=True, kw_only=True)
class ConvergenceArguments:
    """What freezing the first blocks at some step costs in final loss, and which signals of a run foretell it."""

    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)
    cells: Annotated[Cells, tyro.conf.arg(name="")] = field(default_factory=Cells)


def analyze(arguments: Sequence[str]) -> int:
    """`layerlock analyze depth ENCODER... --data PATH` and `layerlock analyze convergence RECIPE --layers ...`."""
    if arguments[:1] == ["convergence"] and len(arguments) > 1 and not arguments[1].startswith("-"):
        return _analyze_convergence(arguments[1:])
    if arguments[:1] != ["depth"] or (len(arguments) == 1 and not _asks_for_help(arguments)):
        return _show_usage(ANALYZE_USAGE, arguments)
    named, rest = list(takewhile(lambda word: not word.startswith("-"), arguments[1:])), list(arguments[1:])
    if named and any(word.partition("=")[0] == "--encoders" for word in rest):
        raise ConfigError(["encoders: named twice, first on the line and by --encoders"])
    given = tyro.cli(
        AnalyzeArguments,
        args=rest[len(named) :],
        default=AnalyzeArguments(config=DepthConfig(encoders=tuple(named))),
        prog="layerlock analyze depth ENCODER...",
        console_outputs=together.leads(),
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.AvoidSubcommands),
    )
    found = api.run_analysis(given.config)
    if together.leads():
        show_depths(found, Path(given.config.out))
    return 0


def _analyze_convergence(arguments: Sequence[str]) -> int:
    if "--resume" in arguments:
        raise ConfigError(["resume: an analysis is resumed by the same command, without a flag"])
    out = [] if _given(arguments, "--out") else ["--out", f"runs/convergence-{arguments[0]}"]
    given = _with_config(ConvergenceArguments, "analyze convergence", [*arguments, *out])
    found = api.run_convergence(given.config, given.cells)
    if found["signal"] is not None:
        print("stopped; everything is saved; run the same command to continue")
        return 128 + int(found["signal"])
    show_convergence(found, Path(given.config.out))
    return 0


STUDY_USAGE = """usage: layerlock study blockwise --data PATH|synthetic --probe PATH [--out DIR] [--scale nano]
                       [--seeds 0 1 2] [--steps N] [--any-field VALUE]

The same command resumes a study that was stopped. `layerlock study blockwise --help` lists all fields;
docs/studies.md says what is compared."""


@dataclass(frozen=True, kw_only=True)
class StudyArguments:
    """Train the arms of a study at several seeds, and compare their encoders depth by depth."""

    config: Annotated[StudyConfig, tyro.conf.arg(name="")] = field(default_factory=StudyConfig)


def study(arguments: Sequence[str]) -> int:
    """`layerlock study NAME --data PATH --probe PATH`."""
    if not arguments or arguments[0].startswith("-"):
        return _show_usage(STUDY_USAGE, arguments)
    given = tyro.cli(
        StudyArguments,
        args=["--study", *arguments],
        prog="layerlock study",
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.AvoidSubcommands),
    )
    found = run_study(given.config)
    if found["signal"] is not None:
        print("stopped; everything is saved; run the same command to continue")
        return 128 + int(found["signal"])
    show_study(found, Path(given.config.out))
    return 0


def recipes(name: tyro.conf.Positional[str] = "") -> None:
    """List the recipes: settings of the papers, and small ones.

    Args:
        name: recipe to describe in full.
    """
    if name:
        show_recipe(api.describe_recipe(name))
    else:
        show_recipes(api.list_recipes())


def synth(
    out: tyro.conf.Positional[Path],
    *,
    videos: int = 1_000,
    seed: int = 0,
    size: int = 64,
    frames: int = 24,
    workers: int = 0,
) -> None:
    """Write the synthetic world as H.264 files in class folders, with labels and 16-bit depth.

    Args:
        out: folder to write; repeat the command after an interruption.
        videos: number of videos.
        seed: seed of the videos.
        size: height and width in pixels.
        frames: frames a video, at 16 a second.
        workers: processes; 0: one for each core.
    """
    paths = api.synth(out, videos=videos, seed=seed, size=size, frames=frames, workers=workers)
    print(f"{len(paths)} videos in {path_name(out)}")


def embed(
    encoder: tyro.conf.Positional[str],
    *,
    data: DataPath,
    data_root: DataPath | None = None,
    out: Path,
    per: Per = "video",
    hop: float | None = None,
    depth: tuple[int, ...] = (),
    whiten: str = "auto",
    batch: int = 16,
    workers: int = 2,
    device: str = "auto",
) -> None:
    """Write feature vectors of the videos of a folder or a list: of each, of each clip, or of each token.

    Args:
        encoder: run folder, encoder folder, or the name of another encoder (docs/encoders.md).
        data: folder or list of videos.
        data_root: folder that paths of a list are relative to; None: the folder of the list.
        out: .npz file to write: `features` and `files` (docs/data.md); .npy: `features` alone, the rest in .npz beside.
        per: a vector for the middle clip of each video, for every clip, or for every token of the middle clip.
        hop: per clip: seconds from the beginning of one clip to that of the next; None: a clip's length.
        depth: block whose output is pooled, or several; none: floor(0.95 x blocks).
        whiten: centre and whiten vectors: yes, no, auto (where they differ), or as the .npz file of an earlier call.
        batch: clips at a time.
        workers: decoding processes.
        device: auto, cpu, cuda, ...
    """
    found = api.embed(
        encoder,
        data,
        data_root=data_root,
        out=out,
        per=per,
        hop=hop,
        depth=depth[0] if len(depth) == 1 else depth or None,
        whiten={"auto": None, "yes": True, "no": False}.get(whiten, whiten),
        batch=batch,
        workers=workers,
        device=device,
    )
    if together.leads():
        show_embeddings(found, out)


def index(
    data: tyro.conf.Positional[DataPath],
    *,
    data_root: DataPath | None = None,
    targets: tuple[str, ...] = (),
    workers: int | None = None,
    cache: bool = True,
) -> None:
    """Check every video of a data set; print what is usable, and the reason for each file that is not.

    Args:
        data: folder of videos, list of videos, or video.
        data_root: folder that paths of a list are relative to; None: the folder of the list.
        targets: columns of the list to read besides `label`: `speed`, or with its kind `speed:float` or `room:class`.
        workers: processes; None: one for each processor.
        cache: read and update the cached index.
    """
    try:
        wanted = dict(map(declared, targets))
        print(describe(api.index(data, data_root=data_root, targets=wanted, workers=workers, cache=cache)))
    except NothingUsable as error:
        print("\n".join(describe_rejected(error.rejected)))
        raise LayerlockError("\n".join(filter(None, (error.summary, error.hint)))) from None


def pack(
    data: tyro.conf.Positional[DataPath],
    *,
    out: Path,
    data_root: DataPath | None = None,
    targets: tuple[str, ...] = (),
    short_side: int = 256,
    gop: int = 16,
    crf: int = 20,
    shard_mb: float = 256.0,
    workers: int | None = None,
) -> None:
    """Write videos as tar shards that are quick to read clips from, in the layout of video2dataset.

    Args:
        data: folder of videos, list of videos, or video.
        out: folder to write; repeat the command after an interruption.
        data_root: folder that paths of a list are relative to; None: the folder of the list.
        targets: columns of the list to store besides `label`: `speed`, or with its kind `speed:float` or `room:class`.
        short_side: pixels of the shorter side; smaller videos keep their size.
        gop: frames from one key frame to the next.
        crf: quality, x264's constant rate factor: lower is better and larger.
        shard_mb: megabytes from which on a shard is complete.
        workers: processes; None: one for each processor.
    """
    made = api.pack(
        data,
        out,
        data_root=data_root,
        targets=dict(map(declared, targets)),
        short_side=short_side,
        gop=gop,
        crf=crf,
        shard_mb=shard_mb,
        workers=workers,
    )
    show_pack(made)


def info(run: tyro.conf.Positional[Path]) -> None:
    """Print the recipe, data and progress of a run.

    Args:
        run: a run folder.
    """
    show_facts(api.info(run))


def report(run: tyro.conf.Positional[Path]) -> None:
    """Write report.html of a run, also while it is running.

    Args:
        run: a run folder.
    """
    print(path_name(api.write_report(run)))


def _pretrain_entry(recipe: tyro.conf.Positional[str]) -> None:
    """Train an encoder: layerlock pretrain RECIPE --data PATH --out RUN."""


def _plan_entry(recipe: tyro.conf.Positional[str]) -> None:
    """What a run will take, stage by stage: layerlock plan RECIPE --device h100."""


def _evaluate_entry(encoder: tyro.conf.Positional[str]) -> None:
    """Train readouts on frozen features of an encoder: layerlock evaluate ENCODER --task TASK --data PATH."""


def _study_entry(study: tyro.conf.Positional[Literal["blockwise"]]) -> None:
    """Train the arms of a study and compare them depth by depth: layerlock study blockwise --data PATH --probe PATH."""


def _analyze_entry(what: tyro.conf.Positional[Literal["depth", "convergence"]]) -> None:
    """What is in the depths of encoders, or which blocks have converged when: layerlock analyze depth ENCODER...
    --data PATH, layerlock analyze convergence RECIPE --data PATH --layers 2 4 --times 0.2 0.5.
    """


VERBS: dict[str, Callable[..., Any]] = {
    "pretrain": _pretrain_entry,
    "plan": _plan_entry,
    "recipes": recipes,
    "synth": synth,
    "embed": embed,
    "evaluate": _evaluate_entry,
    "analyze": _analyze_entry,
    "study": _study_entry,
    "index": index,
    "pack": pack,
    "info": info,
    "report": report,
}


DIVIDED = ("pretrain", "evaluate", "embed", "analyze depth")
"""commands that several processes of a job do together"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and exits: 0 when done, 2 for what the user can mend, 128 + the signal when one stopped it."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _refuse_several(given)
        if given[:1] == ["pretrain"]:
            raise SystemExit(pretrain(given[1:]))
        if given[:1] == ["plan"]:
            raise SystemExit(plan(given[1:]))
        if given[:1] == ["evaluate"]:
            raise SystemExit(evaluate(given[1:]))
        if given[:1] == ["analyze"]:
            raise SystemExit(analyze(given[1:]))
        if given[:1] == ["study"]:
            raise SystemExit(study(given[1:]))
        tyro.extras.subcommand_cli_from_dict(
            VERBS, args=given, prog="layerlock", description=__doc__, console_outputs=together.leads()
        )
    except together.ToldElsewhere:
        raise SystemExit(2) from None
    except LayerlockError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except ImportError as error:
        if (error.name or "layerlock").startswith("layerlock"):
            raise
        print(f"error: this needs {error.name}, which is not installed: pip install 'layerlock[all]'", file=sys.stderr)
        raise SystemExit(2) from None


def _refuse_several(arguments: Sequence[str]) -> None:
    """Raises LayerlockError for a command that each of several processes of a job would do on its own."""
    command = " ".join(arguments[:2] if arguments[:1] == ["analyze"] else arguments[:1])
    if together.size() > 1 and arguments[:1] and arguments[0] in VERBS and command not in DIVIDED:
        text = (
            f"{command}: is not divided, so that each of {together.size()} processes would do all of it; start it "
            f"without torchrun, in one process. What they do together: {', '.join(DIVIDED)}"
        )
        raise LayerlockError(text) if together.leads() else together.ToldElsewhere(text)
