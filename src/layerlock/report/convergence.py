"""The page of `layerlock analyze convergence`: Figure 1 of LayerLock with its noise band, and what ranks its cells."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from layerlock.errors import LayerlockError
from layerlock.files import write_whole
from layerlock.report.charts import CALM, INK, SOFT, step_axis, svg
from layerlock.report.markup import Section, card, cards, heading, image, note, paragraph, table, title, write_page

Found = Mapping[str, Any]


def write_convergence(found: Found, folder: Path) -> Path:
    """Writes `convergence.svg` (Figure 1) and `report.html` into a folder; returns the path of the page.

    Raises ImportError where matplotlib is missing, LayerlockError where the folder cannot be written.
    """
    picture = _figure(found)
    try:
        drawn = base64.b64decode(picture.partition(",")[2])
        write_whole(folder / "convergence.svg", lambda path: path.write_bytes(drawn))
    except OSError as error:
        raise LayerlockError(f"{folder}: cannot be written ({error.strerror})") from None
    head = [title("Which blocks have converged when"), paragraph(*sentences(found))]
    parts = [card(image(picture, _alt(found)), caption=_caption(found))]
    if (best := best_signal(found)) is not None:
        about = f"{best['name']}, of the baselines alone, and the deviation of the same cells."
        parts.append(card(image(_scatter(found, best), about), caption=about))
    sections = [
        Section(name="figure", title="Loss after freezing", parts=[cards(parts, "charts"), _cells(found)]),
        Section(name="signals", title="What a run alone tells", parts=_signals(found)),
        Section(name="baselines", title="Baselines", parts=[_baselines(found)]),
    ]
    return write_page(folder / "report.html", f"{found['recipe']}: convergence - layerlock", head, sections)


def sentences(found: Found) -> list[str]:
    """What was found, each no more than its figures say."""
    seeds, branched = len(found["seeds"]), len(found["branched"])
    said = [
        f"Baselines of {found['recipe']} on {found['data']}, {found['steps']:,} steps of {found['batch']:,} clips, "
        f"{seeds} seed{'s' * (seeds > 1)}. Branches of {branched} of these freeze the first L of "
        f"{found['encoder_blocks']} encoder blocks at one step and train to the end with the same target.",
        f"The final loss is the mean over the last {found['final_steps']:,} steps; a deviation is from the baseline of "
        "the same seed, with the same past, clips and masks.",
    ]
    if (band := found["band"]) is None:
        said.append(f"There is no noise band: {seeds} seed{'s are' if seeds > 1 else ' is'} too few, 3 are needed.")
    else:
        frozen = [cell for cell in found["cells"] if cell["layer"]]
        inside = sum(cell["within"] for cell in frozen)
        noise = "is their range over seeds" if branched > 1 else "is unknown with branches of one seed"
        said.append(
            f"Baselines of {band['seeds']} seeds differ from their mean by {band['low']:+.2f} to "
            f"{band['high']:+.2f} %: {inside} of {len(frozen)} cells that freeze something are not above that. Both "
            f"runs of a deviation are of one seed, so that this band is not its noise, which {noise}."
        )
    if found["pairs"]:
        said.append(
            f"Of {found['pairs']} pairs of branches that froze at one step the one with more frozen blocks has the "
            f"higher loss in {found['deeper']}."
        )
    if (best := best_signal(found)) is not None:
        control = max((one["spearman"] for one in _of(found, "control")), default=None)
        beside = "" if control is None else f"; the better control has {control:+.2f}"
        said.append(
            f"Of {len(_of(found, 'at once'))} signals that are known at the step itself, {best['name']} ranks the "
            f"cells best (Spearman {best['spearman']:+.2f} over {_ranked(best)} cells{beside}). The best of several is "
            "partly so by chance, the more with few cells."
        )
    return said


def best_signal(found: Found) -> Mapping[str, Any] | None:
    """Of the signals that are known at the step itself the one with the highest rank correlation."""
    return max(_of(found, "at once"), key=lambda one: float(one["spearman"]), default=None)


def _ranked(signal: Mapping[str, Any]) -> int:
    return sum(value is not None for value in signal["values"])


def _of(found: Found, known: str) -> list[Mapping[str, Any]]:
    return [one for one in found["signals"] if one["known"] == known and one["spearman"] is not None]


def _shade(found: Found, layer: int) -> float:
    return 0.05 + 0.8 * layer / found["encoder_blocks"]


def _figure(found: Found) -> str:
    """Deviation against the step of freezing, a curve for each number of blocks, shallow ones dark."""
    import matplotlib

    colours = matplotlib.colormaps["viridis"]

    def fill(axes: Any) -> None:
        if found["band"] is not None:
            axes.axhspan(found["band"]["low"], found["band"]["high"], color=SOFT, alpha=0.25, linewidth=0)
        axes.axhline(0.0, color=SOFT, linewidth=0.8, linestyle=":")
        for layer in sorted({cell["layer"] for cell in found["cells"]}):
            row = sorted(
                (cell for cell in found["cells"] if cell["layer"] == layer), key=lambda cell: int(cell["step"])
            )
            middle = [cell["deviation"] for cell in row]
            below = [cell["deviation"] - cell["low"] for cell in row]
            above = [cell["high"] - cell["deviation"] for cell in row]
            axes.errorbar(
                [cell["step"] for cell in row],
                middle,
                (below, above),
                marker="o",
                markersize=3.5,
                capsize=2.5,
                linewidth=1.2,
                color=colours(_shade(found, layer)),
                label=f"{layer} block{'s' * (layer != 1)}",
            )
        ends = [0.0, *(cell[end] for cell in found["cells"] for end in ("low", "high"))]
        room = 0.1 * (max(ends) - min(ends)) or 1.0
        axes.set_ylim(min(ends) - room, max(ends) + room)  # baselines can differ by far more than branches
        step_axis(axes, found["steps"])
        axes.set_xlabel("frozen at step", color=SOFT)
        axes.set_ylabel("final loss above the baseline, %", color=SOFT)
        axes.set_title("final loss of branches", loc="left", fontsize=9, color=INK)
        axes.legend()

    return svg(fill, (4.6, 3.2))


def _caption(found: Found) -> str:
    bars = "the bars are the range over seeds" if len(found["branched"]) > 1 else "there is one seed"
    band = "" if found["band"] is None else " Grey: as far as it is in view, the range of the baselines' final losses."
    return f"LayerLock, Figure 1, as deviations: means, {bars}.{band}"


def _alt(found: Found) -> str:
    told = [f"{cell['layer']} blocks at step {cell['step']}: {cell['deviation']:+.2f} %" for cell in found["cells"]]
    return f"Chart of the final loss above the baseline. {'; '.join(told)}"


def _scatter(found: Found, best: Mapping[str, Any]) -> str:
    import matplotlib

    colours = matplotlib.colormaps["viridis"]
    cells = [cell for cell in found["cells"] if cell["layer"]]

    def fill(axes: Any) -> None:
        for cell, value in zip(cells, best["values"], strict=True):
            if value is not None:
                axes.plot(value, cell["deviation"], "o", markersize=4, color=colours(_shade(found, cell["layer"])))
        axes.set_xlabel(best["name"], color=SOFT)
        axes.set_ylabel("final loss above the baseline, %", color=SOFT)
        axes.set_title("the best signal", loc="left", fontsize=9, color=CALM)

    return svg(fill, (4.6, 3.2))


def _cells(found: Found) -> Markup:
    words = {None: "no band", True: "yes", False: "no"}
    rows = [
        (
            cell["layer"],
            f"{cell['step']:,}",
            f"{cell['loss']:.5g}",
            f"{cell['deviation']:+.3f}",
            f"{cell['low']:+.3f} to {cell['high']:+.3f}" if len(cell["deviations"]) > 1 else "one seed",
            words[cell["within"]],
        )
        for cell in sorted(found["cells"], key=lambda cell: (cell["layer"], cell["step"]))
    ]
    head = ["frozen blocks", "at step", "final loss", "deviation, %", "range over seeds", "within the band"]
    return table(head, rows, words=(4, 5))


def _signals(found: Found) -> Sequence[Markup]:
    if not found["signals"]:
        return [note("No branch freezes anything.")]
    told = (
        "Each signal is of the baselines alone, for the same blocks at the same step, the mean over seeds. The rank "
        "correlation is Spearman's with the deviations of all cells that freeze something: at 1 a signal puts them in "
        "the same order, at 0 it says nothing. Controls look at no run: a signal that is no better than both tells "
        "nothing new. A decaying learning rate makes every change small, converged or not; signals over the rate are "
        "corrected for it."
    )
    rows = [
        (
            one["name"],
            "-" if one["spearman"] is None else f"{one['spearman']:+.2f}",
            one["known"],
            one["why"],
            one["about"],
        )
        for one in found["signals"]
    ]
    return [
        paragraph(told),
        table(["signal", "Spearman", "known", "missing", "what it is"], rows, words=(0, 2), long=(3, 4)),
        *_values(found),
    ]


def _values(found: Found) -> list[Markup]:
    cells = [cell for cell in found["cells"] if cell["layer"]]
    head = ["signal", *(f"{cell['layer']} at {cell['step']:,}" for cell in cells)]
    rows = [
        (one["name"], *("-" if value is None else f"{value:.3g}" for value in one["values"]))
        for one in found["signals"]
    ]
    return [heading("Values of the signals"), table(head, rows, words=(0,))]


def _baselines(found: Found) -> Markup:
    rows = [(one["seed"], f"{one['first loss']:.5g}", f"{one['final loss']:.5g}") for one in found["baselines"]]
    steps = f"{found['final_steps']:,}"
    return table(["seed", f"loss of the first {steps} steps", f"of the last {steps}"], rows)
