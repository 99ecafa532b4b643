"""An evaluation from its config to its results, top to bottom: fit all readouts, choose, test."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

from torch import nn

from layerlock import together
from layerlock.encoders import FrozenEncoder
from layerlock.errors import LayerlockError, one_line
from layerlock.evaluation.config import EvaluateConfig
from layerlock.evaluation.folder import EvaluationFolder
from layerlock.evaluation.gallery import save_gallery
from layerlock.evaluation.readouts import Candidate, candidates_of
from layerlock.evaluation.results import Evaluation, head, tabled
from layerlock.evaluation.score import Scores, best_rates, choose, score_features, score_readouts
from layerlock.evaluation.setup import OURS, Setup, open_encoders, set_up
from layerlock.evaluation.sweep import (
    Step,
    Stream,
    Sweep,
    cached_once,
    cached_stream,
    decoded_once,
    decoded_stream,
    restore,
    solve,
    train,
)
from layerlock.evaluation.tasks import FeatureTask, ReadoutTask
from layerlock.features import Reader
from layerlock.features.cache import Cached, cached_features
from layerlock.features.clips import RepeatedViews, SpreadViews
from layerlock.features.divided import led
from layerlock.features.probe import folds_of
from layerlock.process import put_back
from layerlock.settings import to_dict
from layerlock.train.folder import flat

Score = Callable[[str, Sequence[Candidate]], Scores]
"""figures of candidates on what is chosen on, "validation", or on the "test" split"""


@put_back()
@together.job()
def evaluate(
    config: EvaluateConfig,
    encoder: FrozenEncoder | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> Evaluation:
    """Evaluates an encoder (the config's, where none is given) and leaves `results.json` in `config.out`.

    Raises ConfigError for a config that cannot be, LayerlockError for data, encoders and files that cannot be used. Of
    several processes of a job all compute features; the first one does all else, and tells the results.
    """
    config.check()
    folder = EvaluationFolder(config.out)
    if together.leads():
        if together.restarted(folder.launch):
            resume, overwrite = True, False
        folder.check(resume=resume, overwrite=overwrite)
    with folder.lock if together.leads() else nullcontext():
        opened = open_encoders(config, encoder)
        together.agree(flat(to_dict(config)) | {"encoder": opened.weights, "device": opened.device.type})

        def found() -> Evaluation:
            return _evaluate(set_up(config, folder, opened, resume=resume, quiet=quiet))

        return led(opened.encoders, opened.device, found)


def _evaluate(setup: Setup) -> Evaluation:
    config, folder = setup.config, setup.folder
    candidates = candidates_of(config, setup.encoders)
    sweep: Sweep | None = None
    if isinstance(setup.task, ReadoutTask):
        skipped: dict[str, str] = {}
        sweep = Sweep(config, setup.task, _with_seeds(config, candidates), setup.encoders, setup.device)
        signal = _fit(setup, sweep, skipped)
        if signal is not None:
            return head(setup, signal=signal)
        results = _choose_and_test(setup, candidates, partial(_score_readouts, setup, sweep), sweep.dropped, skipped)
    else:
        assert isinstance(setup.task, FeatureTask)
        results = _choose_and_test(setup, candidates, partial(_score_features, setup, setup.task), {}, {})
    folder.lock.check()
    results.save()
    _keep(folder, lambda: save_gallery(setup, results, sweep))
    return results


def _keep(folder: EvaluationFolder, gallery: Callable[[], None]) -> None:
    """Saves the clips that the report shows, after the results; whatever goes wrong costs the pictures alone."""
    folder.gallery.unlink(missing_ok=True)
    try:
        gallery()
    except Exception as error:
        print(f"test clips for report.html were not saved: {type(error).__name__}: {one_line(error)}")


def _with_seeds(config: EvaluateConfig, candidates: Sequence[Candidate]) -> list[Candidate]:
    return [readout for candidate in candidates for readout in candidate.with_seeds(config.readout_seeds)]


def _fit(setup: Setup, sweep: Sweep, skipped: dict[str, str]) -> int | None:
    """Trains and solves the readouts, going on from the folder; returns the signal that stopped it, None when done."""
    restore(sweep, setup.folder, skipped)
    if sweep.trained:
        with setup.progress(f"training {len(sweep.trained)} readouts, step") as progress:
            signal = train(sweep, _stream(setup, sweep, skipped), setup.folder, progress, skipped)
        if signal is not None:
            return signal
    if not sweep.is_solved:
        group_v, drawn = setup.splits.train.group_v, {candidate.draw for candidate in sweep.solved}
        folds = {draw: folds_of(group_v, setup.label_v, setup.fitted(*draw)) for draw in drawn}
        with setup.progress(f"solving {len(sweep.solved)} readouts, clip") as progress:
            solve(sweep, _once(setup, sweep, skipped), folds, setup.folder, progress, skipped)
    sweep.check_taught(skipped)
    return None


def _once(setup: Setup, sweep: Sweep, skipped: dict[str, str]) -> Generator[Step]:
    """The middle clip of every training video."""
    config, device = setup.config, setup.device
    reader = Reader(setup.encoders, [candidate.place for candidate in sweep.solved])
    views = SpreadViews(setup.source(setup.splits.train, config.still_clip(setup.ours.clip)), 1)
    if config.cache:
        return cached_once(sweep, _cached(setup, views, reader), device, skipped)
    return decoded_once(sweep, views, reader, device, skipped)


def _stream(setup: Setup, sweep: Sweep, skipped: dict[str, str]) -> Stream:
    config, device = setup.config, setup.device
    reader = Reader(setup.encoders, [candidate.place for candidate in sweep.trained])
    if config.augmented:
        source = setup.source(setup.splits.train, config.training_clip(setup.ours.clip))
        return decoded_stream(sweep, source, reader, device, skipped)
    still = setup.source(setup.splits.train, config.still_clip(setup.ours.clip))
    if config.cache:
        return cached_stream(sweep, _cached(setup, SpreadViews(still, 1), reader), device, skipped)
    return decoded_stream(sweep, RepeatedViews(still, config.seed), reader, device, skipped)


def _cached(setup: Setup, views: SpreadViews, reader: Reader) -> Cached:
    config, task = setup.config, setup.task
    if not isinstance(setup.ours, nn.Module):
        raise LayerlockError("cache: needs an encoder that is a torch module, whose weights identify its features")
    with setup.progress("computing features") as progress:
        return cached_features(
            views,
            setup.encoders,
            reader.places,
            task.target_of,
            target_key=task.name,
            precision=config.precision,
            device=setup.device,
            batch=config.batch,
            workers=config.workers,
            most_gigabytes=config.cache_gb,
            progress=progress,
        )


def _score_readouts(setup: Setup, sweep: Sweep, role: str, candidates: Sequence[Candidate]) -> Scores:
    """Scores the candidates of which no readout was dropped."""
    seeds = setup.config.readout_seeds
    whole = [candidate for candidate in candidates if sweep.dropped.keys().isdisjoint(candidate.with_seeds(seeds))]
    return score_readouts(setup, sweep, _with_seeds(setup.config, whole), role)


def _score_features(setup: Setup, task: FeatureTask, role: str, candidates: Sequence[Candidate]) -> Scores:
    return score_features(setup, task, candidates, role)


def _choose_and_test(
    setup: Setup,
    candidates: Sequence[Candidate],
    score: Score,
    dropped: Mapping[Candidate, str],
    skipped: dict[str, str],
) -> Evaluation:
    """Chooses on the validation split; tests the best rate of every block, of few shots the best block alone."""
    decides = setup.task.metrics[0]
    validation = score("validation", candidates)
    few = [candidate for candidate in candidates if candidate.shots is not None]
    whole = [candidate for candidate in candidates if candidate.shots is None]
    tested = best_rates(validation, whole, decides) + choose(validation, few, decides)
    test = score("test", tested)
    lost = {str(candidate): reason for candidate, reason in dropped.items()} | validation.dropped | test.dropped
    chosen = choose(validation, [candidate for candidate in tested if str(candidate) in test.score_svm], decides)
    if OURS not in {candidate.encoder for candidate in chosen if candidate.shots is None}:
        told = "; ".join(f"{name}: {why}" for name, why in lost.items() if name.startswith(f"{OURS}/"))
        raise LayerlockError(f"no readout of {setup.config.encoder} gave finite figures: {told}")
    return replace(tabled(setup, candidates, chosen, validation, test, skipped), dropped=tuple(lost.items()))
