"""The sections made of words and numbers: the head, stages and what they cost, events."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from datetime import datetime

from markupsafe import Markup

from layerlock.config import Config
from layerlock.learn.decoders import BackboneDecoding
from layerlock.learn.observed import UNKNOWN
from layerlock.model.cost import backbone_parameters
from layerlock.report.history import Event, History, Span, clock, number, series
from layerlock.report.markup import facts, heading, note, paragraph, table, title

SHOWN = 200
"""At most so many events of a kind are listed."""


def head(history: History) -> list[Markup]:
    """What the run is and how far it came, and a summary."""
    config, clip = history.config, history.config.clip
    patch = "x".join(map(str, config.model.patch))
    rows = {
        "data": config.data,
        "steps": f"{history.step:,} of {config.steps:,}, {config.batch} clips each",
        "model": f"{config.model.depth} blocks of width {config.model.width} ({_decoding(config)}), "
        f"{backbone_parameters(config.model, config.tokens) / 1e6:,.1f} M parameters",
        "clip": f"{clip.frames} frames at stride {clip.stride}, {clip.size} x {clip.size} pixels, patches {patch}: "
        f"{config.tokens} tokens, {config.context_tokens} of them context",
        "when": _when(history.events),
        "seed": config.seed,
        "versions": ", ".join(f"{name} {version}" for name, version in history.versions.items()) or "not noted",
        "page made": datetime.now().strftime("%Y-%m-%d %H:%M"),
    }
    return [title(config.recipe), paragraph(*summary(history)), facts(rows)]


def _decoding(config: Config) -> str:
    decoder = config.decoder
    if isinstance(decoder, BackboneDecoding):
        return f"{decoder.blocks} of them decode"
    return f"decoders of {decoder.depth} blocks of width {decoder.width}"


def _when(events: Sequence[Event]) -> str:
    return f"events from {clock(events[0].when)} to {clock(events[-1].when)}" if events else "no event is recorded"


def summary(history: History) -> list[str]:
    """The run in a few sentences, none of which says more than a logged number."""
    said = [f"{history.step:,} of {history.config.steps:,} steps are logged.", history.ending()]
    said += [
        sentence
        for span in history.reached[:1] + history.reached[-1:][: len(history.reached) - 1]
        if (sentence := _course(span))
    ]
    if len(history.reached) > 1:
        said.append(
            f"There were {len(history.reached) - 1} switches; losses of different targets are not on one scale."
            if len(history.reached) > 2
            else "There was one switch; losses of different targets are not on one scale."
        )
    said += _features(history)
    warnings, skipped = len(history.of_kind("warning")), len(history.of_kind("skipped"))
    said.append(f"Warnings: {warnings}. Skipped files: {skipped}.")
    return said


def _course(span: Span) -> str:
    losses = span.losses()
    if len(losses) < 2:
        return ""
    verb = "fell" if losses[-1] < losses[0] else "rose" if losses[-1] > losses[0] else "stayed"
    return f"With target {span.targets} the logged loss {verb} from {losses[0]:.4g} to {losses[-1]:.4g}."


def _features(history: History) -> list[str]:
    ranks, cosines = series(history.lines, "effective_rank")[1], series(history.lines, "token_cosine")[1]
    if not ranks or not cosines:
        return []
    return [
        f"At the last figures the features had effective rank {ranks[-1]:.1f} of {history.config.model.width}"
        f" and a mean cosine between tokens of {cosines[-1]:.3f}."
    ]


def stages(history: History) -> list[Markup]:
    """A table of the stages: steps, structure, floating-point operations, measured speed, loss."""
    columns = [
        "steps",
        "frozen",
        "target",
        "GFLOPs a clip",
        "x stage 1",
        "target pass",
        "clips/s",
        "loss, first to last",
    ]
    if not history.planned:
        without = [(*_structure(span), "", "", "", _speed(span), _losses(span)) for span in history.spans]
        why = "These are not the stages of the config's plan: the plan was given in code; its cost is not counted here."
        return [note(why), table(columns, without, words=(0, 2, 7))]
    first = _flops(history, history.spans[0]) if history.spans else 0
    rows, unknown = list[tuple[str, ...]](), dict[str, None]()
    for span in history.spans:
        assert span.stage is not None
        cost = history.config.cost(span.stage)
        unknown |= dict.fromkeys(cost.unknown)
        figures = (f"{cost.total / 1e9:,.2f}", f"{cost.total / first:.2f}", f"{cost.target / cost.total:.0%}")
        rows.append((*_structure(span), *figures, _speed(span), _losses(span)))
    text_ = (
        "Counted from shapes: the matrix products of one clip in one training step, forward and backward,"
        " a multiply-add as two operations."
        " The target pass is a part of the total. Speed is measured: the median, with reading and logging."
    )
    if any(span.reason for span in history.spans):
        columns.append("why it began")
        rows = [(*row, span.reason) for row, span in zip(rows, history.spans, strict=True)]
    if unknown:
        text_ += f" What {', '.join(unknown)} costs is left out: it is not on this machine."
    if history.spans and history.spans[-1].end < history.config.steps:
        text_ += f" After step {history.spans[-1].end:,} the stages are {UNKNOWN}."
    return [paragraph(text_), table(columns, rows, words=(0, 2, 7, 8)), *_in_all(history, first)]


def _flops(history: History, span: Span) -> int:
    return history.config.cost(span.stage).total if span.stage is not None else 0


def _in_all(history: History, first: int) -> list[Markup]:
    done = [(min(span.end, history.step) - span.begin, _flops(history, span)) for span in history.spans]
    total = sum(max(steps, 0) * flops for steps, flops in done)
    if not total:
        return []
    share = total / (first * history.step)
    return [
        paragraph(
            f"In all {total * history.config.batch:.3g} operations up to step {history.step:,}:"
            f" {share:.2f} times what the first stage alone would have taken for as many steps."
        )
    ]


def _structure(span: Span) -> tuple[str, str, str]:
    done = span.lines[-1]["step"] if span.lines else span.end
    cut = f" (to {done:,})" if done < span.end else ""
    return f"{span.begin:,} – {span.end:,}{cut}", str(span.frozen), span.targets


def _speed(span: Span) -> str:
    speeds = [value for value in series(span.lines, "timing", "clips_per_s")[1] if math.isfinite(value)]
    return f"{statistics.median(speeds):,.1f}" if speeds else ""


def _losses(span: Span) -> str:
    if not span.lines:
        return "not reached"
    values = [number(line.get("loss")) for line in span.lines]
    return f"{values[0]:.4g}" if len(values) == 1 else f"{values[0]:.4g} → {values[-1]:.4g}"


def events(history: History) -> list[Markup]:
    """Warnings, skipped files and everything else that was noted, in order."""
    parts: list[Markup] = []
    for words, kinds in (("Warnings and errors", ("warning", "error")), ("Skipped files", ("skipped",))):
        found = history.of_kind(*kinds)
        parts.append(heading(f"{words}: {len(found)}"))
        parts += _listed(found)
    rest = [event for event in history.events if event.kind not in ("warning", "error", "skipped")]
    return [*parts, heading(f"Switches, stops and ends: {len(rest)}"), *_listed(rest)]


def _listed(found: Sequence[Event]) -> list[Markup]:
    if not found:
        return [note("None.")]
    rows = [(clock(event.when), event.kind, event.text) for event in found[:SHOWN]]
    more = [note(f"{len(found) - SHOWN:,} more are in events.log.")] if len(found) > SHOWN else []
    return [table(("when", "what", "text"), rows, words=(0, 1), long=(2,)), *more]
