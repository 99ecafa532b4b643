"""An evaluation from its config to its results, top to bottom: train all readouts, choose, test."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from layerlock.encoders import FrozenEncoder
from layerlock.errors import LayerlockError, one_line
from layerlock.evaluation.config import EvaluateConfig
from layerlock.evaluation.cutting import Part
from layerlock.evaluation.examples import Examples, depth_reader, save_examples
from layerlock.evaluation.folder import EvaluationFolder
from layerlock.evaluation.opened import OURS, Opened, open_evaluation
from layerlock.evaluation.readouts import Setting, settings_of
from layerlock.evaluation.results import Evaluation
from layerlock.evaluation.retrieve import retrieve
from layerlock.evaluation.scoring import Scores, score_part
from layerlock.evaluation.sweep import Sweep
from layerlock.evaluation.tables import best_rates, choose, head, tabled
from layerlock.evaluation.tasks import Task
from layerlock.evaluation.tasks.clip import still_clip, training_clip
from layerlock.evaluation.training import Stream, cached_stream, decoded_stream, train
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
        opened = open_evaluation(config, folder, encoder, resume=resume, quiet=quiet)
        found, examples = retrieve(opened) if opened.task is None else _read_out(opened, opened.task)
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


def _read_out(opened: Opened, task: Task) -> tuple[Evaluation, Examples]:
    """Trains the sweep, chooses on the validation part, tests the best rate of every block on the test part."""
    config, folder, skipped = opened.config, opened.folder, dict[str, str]()
    settings = settings_of(config, opened.encoders)
    readouts = [readout for setting in settings for readout in setting.with_seeds(config.readout_seeds)]
    sweep = Sweep(config, task, readouts, opened.encoders, opened.device)
    with opened.progress(f"training {len(readouts)} readouts") as progress:
        signal = train(sweep, _stream(opened, sweep, skipped), folder, progress, skipped)
    if signal is not None:
        return head(opened, task.metrics, signal=signal), lambda: None
    sweep.check_taught(skipped)
    validation = _score(opened, sweep, settings, "validation")
    tested = best_rates(validation, settings, task.metrics[0])
    test = _score(opened, sweep, tested, "test")
    dropped = {str(setting): reason for setting, reason in sweep.dropped.items()} | validation.dropped | test.dropped
    chosen = choose(validation, [setting for setting in tested if str(setting) in test.score_svm], task.metrics[0])
    if OURS not in {setting.encoder for setting in chosen}:
        told = "; ".join(f"{name}: {why}" for name, why in dropped.items() if name.startswith(f"{OURS}/"))
        raise LayerlockError(f"no readout of {config.encoder} gave figures that are finite: {told}")
    found = tabled(opened, task.metrics, task.constant, settings, chosen, validation, test, skipped)
    found = replace(found, dropped=tuple(dropped.items()))
    main = next(setting for setting in chosen if setting.encoder == OURS)
    return found, lambda: save_examples(
        opened, _views(opened, opened.parts.test, task), found, depth_reader(opened, sweep, main)
    )


def _stream(opened: Opened, sweep: Sweep, skipped: dict[str, str]) -> Stream:
    config, train_part, clip = opened.config, opened.parts.train, opened.ours.clip
    reader = Reader(opened.encoders, [setting.place for setting in sweep.readouts])
    if config.augmented:
        source = train_part.source(training_clip(config, clip), config.seed, with_depth=sweep.task.with_depth)
        return decoded_stream(sweep, source, reader, opened.device, skipped)
    plain = train_part.source(still_clip(config, clip), config.seed, with_depth=sweep.task.with_depth)
    if config.cache:
        return cached_stream(sweep, _cached(opened, sweep, SpreadViews(plain, 1), reader), opened.device, skipped)
    return decoded_stream(sweep, RepeatedViews(plain, config.seed), reader, opened.device, skipped)


def _cached(opened: Opened, sweep: Sweep, views: SpreadViews, reader: Reader) -> Cached:
    config, task = opened.config, sweep.task
    if not isinstance(opened.ours, nn.Module):
        raise LayerlockError("cache: an encoder that is no torch module has no weights to tell its features by")
    with opened.progress("computing features") as progress:
        return cached_features(
            views,
            opened.encoders,
            reader.places,
            task.target,
            target_key=f"{task.name} {task.fingerprint(opened.parts.train)}",
            precision=config.precision,
            device=opened.device,
            batch=config.batch,
            workers=config.workers,
            most_gigabytes=config.cache_gb,
            progress=progress,
        )


def _score(opened: Opened, sweep: Sweep, settings: tuple[Setting, ...], role: str) -> Scores:
    part, file = {
        "validation": (opened.parts.validation, opened.folder.validation),
        "test": (opened.parts.test, opened.folder.test),
    }[role]
    seeds = opened.config.readout_seeds
    whole = [setting for setting in settings if sweep.dropped.keys().isdisjoint(setting.with_seeds(seeds))]
    readouts = [readout for setting in whole for readout in setting.with_seeds(seeds)]
    reader = Reader(opened.encoders, [setting.place for setting in readouts])
    with opened.progress(f"scoring {len(readouts)} readouts on the {role} part") as progress:
        return score_part(
            sweep,
            reader,
            _views(opened, part, sweep.task),
            readouts,
            group_v=part.group_v,
            file=file,
            device=opened.device,
            progress=progress,
        )


def _views(opened: Opened, part: Part, task: Task) -> SpreadViews:
    clip = still_clip(opened.config, opened.ours.clip)
    return SpreadViews(part.source(clip, opened.config.seed, with_depth=task.with_depth), task.views)
