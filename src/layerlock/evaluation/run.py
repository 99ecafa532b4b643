"""An evaluation from its config to its results, top to bottom: train all readouts, choose, test."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from layerlock.encoders import FrozenEncoder
from layerlock.errors import LayerlockError, one_line
from layerlock.evaluation.config import EvaluateConfig
from layerlock.evaluation.folder import EvaluationFolder
from layerlock.evaluation.gallery import Examples, depth_reader, save_gallery
from layerlock.evaluation.readouts import Candidate, candidates_of
from layerlock.evaluation.results import Evaluation, head, tabled
from layerlock.evaluation.retrieve import retrieve
from layerlock.evaluation.score import Scores, best_rates, choose, score_split
from layerlock.evaluation.setup import OURS, Setup, set_up
from layerlock.evaluation.splits.split import Split
from layerlock.evaluation.sweep import Stream, Sweep, cached_stream, decoded_stream, train
from layerlock.evaluation.tasks import Task
from layerlock.evaluation.tasks.clip import still_clip, training_clip
from layerlock.features import Reader
from layerlock.features.cache import Cached, cached_features
from layerlock.features.clips import RepeatedViews, SpreadViews
from layerlock.process import put_back


@put_back()
def evaluate(
    config: EvaluateConfig,
    encoder: FrozenEncoder | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> Evaluation:
    """Evaluates an encoder (the config's, where none is given) and leaves `results.json` in `config.out`.

    Raises ConfigError for a config that cannot be, LayerlockError for data, encoders and files that cannot be used.
    """
    config.check()
    folder = EvaluationFolder(config.out)
    folder.check(resume=resume, overwrite=overwrite)
    with folder.lock:
        setup = set_up(config, folder, encoder, resume=resume, quiet=quiet)
        found, examples = retrieve(setup) if setup.task is None else _read_out(setup, setup.task)
        if found.signal is None:
            folder.lock.check()
            found.save()
            _keep(folder, examples)
    return found


def _keep(folder: EvaluationFolder, examples: Examples) -> None:
    """Saves the clips that the report shows, after the results; whatever goes wrong costs the pictures alone."""
    folder.examples.unlink(missing_ok=True)
    try:
        examples()
    except Exception as error:
        print(f"no test clips were kept for report.html: {type(error).__name__}: {one_line(error)}")


def _read_out(setup: Setup, task: Task) -> tuple[Evaluation, Examples]:
    """Trains the sweep, chooses on the validation split, tests the best rate of every block on the test split."""
    config, folder, skipped = setup.config, setup.folder, dict[str, str]()
    candidates = candidates_of(config, setup.encoders)
    readouts = [readout for candidate in candidates for readout in candidate.with_seeds(config.readout_seeds)]
    sweep = Sweep(config, task, readouts, setup.encoders, setup.device)
    with setup.progress(f"training {len(readouts)} readouts") as progress:
        signal = train(sweep, _stream(setup, sweep, skipped), folder, progress, skipped)
    if signal is not None:
        return head(setup, task.metrics, signal=signal), lambda: None
    sweep.check_taught(skipped)
    validation = _score(setup, sweep, candidates, "validation")
    tested = best_rates(validation, candidates, task.metrics[0])
    test = _score(setup, sweep, tested, "test")
    dropped = (
        {str(candidate): reason for candidate, reason in sweep.dropped.items()} | validation.dropped | test.dropped
    )
    chosen = choose(
        validation, [candidate for candidate in tested if str(candidate) in test.score_svm], task.metrics[0]
    )
    if OURS not in {candidate.encoder for candidate in chosen}:
        told = "; ".join(f"{name}: {why}" for name, why in dropped.items() if name.startswith(f"{OURS}/"))
        raise LayerlockError(f"no readout of {config.encoder} gave figures that are finite: {told}")
    found = tabled(setup, task.metrics, task.constant, candidates, chosen, validation, test, skipped)
    found = replace(found, dropped=tuple(dropped.items()))
    main = next(candidate for candidate in chosen if candidate.encoder == OURS)
    return found, lambda: save_gallery(
        setup, _views(setup, setup.splits.test, task), found, depth_reader(setup, sweep, main)
    )


def _stream(setup: Setup, sweep: Sweep, skipped: dict[str, str]) -> Stream:
    config, split, clip = setup.config, setup.splits.train, setup.ours.clip
    reader = Reader(setup.encoders, [candidate.place for candidate in sweep.readouts])
    if config.augmented:
        source = split.source(training_clip(config, clip), config.seed, with_depth=sweep.task.with_depth)
        return decoded_stream(sweep, source, reader, setup.device, skipped)
    plain = split.source(still_clip(config, clip), config.seed, with_depth=sweep.task.with_depth)
    if config.cache:
        return cached_stream(sweep, _cached(setup, sweep, SpreadViews(plain, 1), reader), setup.device, skipped)
    return decoded_stream(sweep, RepeatedViews(plain, config.seed), reader, setup.device, skipped)


def _cached(setup: Setup, sweep: Sweep, views: SpreadViews, reader: Reader) -> Cached:
    config, task = setup.config, sweep.task
    if not isinstance(setup.ours, nn.Module):
        raise LayerlockError("cache: an encoder that is no torch module has no weights to tell its features by")
    with setup.progress("computing features") as progress:
        return cached_features(
            views,
            setup.encoders,
            reader.places,
            task.target,
            target_key=f"{task.name} {task.fingerprint(setup.splits.train)}",
            precision=config.precision,
            device=setup.device,
            batch=config.batch,
            workers=config.workers,
            most_gigabytes=config.cache_gb,
            progress=progress,
        )


def _score(setup: Setup, sweep: Sweep, candidates: tuple[Candidate, ...], role: str) -> Scores:
    split, file = {
        "validation": (setup.splits.validation, setup.folder.validation),
        "test": (setup.splits.test, setup.folder.test),
    }[role]
    seeds = setup.config.readout_seeds
    whole = [candidate for candidate in candidates if sweep.dropped.keys().isdisjoint(candidate.with_seeds(seeds))]
    readouts = [readout for candidate in whole for readout in candidate.with_seeds(seeds)]
    reader = Reader(setup.encoders, [candidate.place for candidate in readouts])
    with setup.progress(f"scoring {len(readouts)} readouts on the {role} split") as progress:
        return score_split(
            sweep,
            reader,
            _views(setup, split, sweep.task),
            readouts,
            group_v=split.group_v,
            file=file,
            device=setup.device,
            progress=progress,
        )


def _views(setup: Setup, split: Split, task: Task) -> SpreadViews:
    clip = still_clip(setup.config, setup.ours.clip)
    return SpreadViews(split.source(clip, setup.config.seed, with_depth=task.with_depth), task.views)
