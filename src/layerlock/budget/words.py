"""Figures of a budget as people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from layerlock.budget.devices import Machine
from layerlock.budget.forecast import Forecast
from layerlock.budget.stages import (
    StageBudget,
    Total,
    clips_at_once,
    divides,
    foretold,
    micro_batch,
    precision,
    total,
    unknown_networks,
)
from layerlock.config import Config
from layerlock.learn.observed import UNKNOWN


def cost_in_words(config: Config, stages: Sequence[StageBudget], machine: Machine | None = None) -> str:
    """FLOPs and hours of a run, and what is not known of them."""
    machine = machine or Machine()
    found = total(config, stages, machine)
    first = "" if foretold(stages) else f"{UNKNOWN}; throughout in its first stage "
    hours = f"{hours_text(found.device_hours)} {machine.device.name.upper()} hours {rate_in_words(config, machine)}"
    return "; ".join(filter(None, [f"{first}{found.flops:.3g} FLOPs", hours, unknown_in_words(stages)]))


def rate_in_words(config: Config, machine: Machine) -> str:
    """The assumption behind predicted hours."""
    name = precision(config)
    return f"at {machine.utilisation.share:.0%} of {machine.device.peak[name] / 1e12:,.4g} TFLOP/s ({name})"


def unknown_in_words(stages: Sequence[StageBudget]) -> str:
    """The networks whose cost is in no figure, in words; empty for none."""
    names = unknown_networks(stages)
    return f"without {', '.join(names)}: its cost is unknown until it is on this machine" if names else ""


def hours_text(hours: float) -> str:
    """Whole hours from 10 on, two digits below; nothing finer than a hundredth of an hour."""
    if math.isnan(hours):
        return "unknown"
    if hours < 0.01:
        return "under 0.01"
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"


def bytes_text(count: float) -> str:
    """Three digits, in GB or MB (powers of ten)."""
    if math.isnan(count):
        return "unknown"
    unit, size = ("GB", 1e9) if count >= 1e9 else ("MB", 1e6)
    value = count / size
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def seconds_text(seconds: float) -> str:
    """Three digits, in seconds or milliseconds."""
    if math.isnan(seconds):
        return "unknown"
    return f"{seconds:,.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def saved_text(part: float, whole: float) -> str:
    """The share by which `part` is less than `whole`; negative where it is more."""
    return "unknown" if math.isnan(part / whole) else f"{1 - part / whole:.1%}"


Lines = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""a table's head and its rows"""


def stage_lines(found: Forecast) -> Lines:
    """What each stage holds on one device, and how long it takes."""
    head = ("steps", "frozen", "weights", "gradients", "moments", "kept for backward", "peak", "a step", "hours")
    rows = [
        (
            steps_text(each),
            str(each.stage.frozen),
            *map(bytes_text, (each.weights, each.gradients, each.moments, each.kept, each.peak)),
            seconds_text(each.step_seconds),
            hours_text(each.step_seconds * each.steps(found.config.steps) / 3600),
        )
        for each in found.stages
    ]
    return head, rows


def steps_text(each: StageBudget) -> str:
    """From its first step up to its end."""
    return f"{each.begin:,}-{'?' if each.end is None else f'{each.end:,}'}"


def run_lines(found: Forecast) -> Lines:
    """The whole run beside those that it is compared with."""
    compared = {"this run": found.total}
    if foretold(found.stages) and len(found.stages) > 1:
        compared["in its first stage throughout"] = found.baseline
    if found.pixels is not None:
        compared["the same freezing, pixels throughout"] = found.pixels
    money = f"cost, {found.machine.currency}".removesuffix(", ")
    head = ("", "FLOPs", "saved", "peak in the last stage", "saved", "hours", "device hours", "kWh", money)
    base = found.baseline if len(compared) > 1 else found.total
    return head, [(name, *_figures(one, base)) for name, one in compared.items()]


def _figures(one: Total, base: Total) -> tuple[str, ...]:
    pairs = ((one.flops, base.flops), (one.last_peak, base.last_peak))
    flops, peak = ("", "") if one is base else (saved_text(*pair) for pair in pairs)
    hours, amounts = map(hours_text, (one.hours, one.device_hours)), map(_amount, (one.kwh, one.money))
    return (f"{one.flops:.3g}", flops, bytes_text(one.last_peak), peak, *hours, *amounts)


def _amount(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"


def on_what(found: Forecast) -> str:
    """The devices, and the clips that they compute at once."""
    micro, at_once = micro_batch(found.config, found.machine), clips_at_once(found.config, found.machine)
    parts = "" if at_once == micro else f", activations of {at_once} at once"
    devices = f"one of {found.machine.gpus} " if found.machine.gpus > 1 else ""
    plan = found.plan or found.config.build_plan()
    divided = ", moments divided" if divides(found.config, plan, found.machine) else ""
    return f"{devices}{found.machine.device.words}, micro-batches of {micro} clips{parts}{divided}"


def sentences(found: Forecast) -> list[str]:
    """What the figures rest on."""
    config, machine, device = found.config, found.machine, found.machine.device
    here = f"{found.total.flops:.3g} FLOPs; {hours_text(found.total.hours)} hours on this machine."
    said = [here if found.measured else f"{cost_in_words(config, found.stages, machine)}."]
    if foretold(found.stages) and len(found.stages) > 1:
        share = found.total.flops / found.baseline.flops
        said.append(f"{share:.3f} times the FLOPs of a run that stays in its first stage.")
    if found.measured:
        rates = [each.clip.total * each.batch / each.step_seconds / 1e12 for each in found.stages]
        reached = f"{min(rates):.3g} to {max(rates):.3g} TFLOP/s"
        said.append(f"Steps were timed on this machine with random clips, without reading or logging: {reached}.")
    else:
        said.append(f"The utilisation of {machine.utilisation.share:.0%} is {machine.utilisation.source}.")
        said.append(f"{device.words}: {device.source}.")
    if config.run.compile != "no" and not device.cpu:
        said.append("Bytes are those without torch.compile, which may keep fewer.")
    if found.total.peak > device.memory:
        said.append(
            f"It does not fit: {bytes_text(found.total.peak)} of {bytes_text(device.memory)}; --fit"
            f" {device.memory / 1e9:.0f}GB looks for settings that do."
        )
    return [sentence for sentence in said if sentence]
