"""docs/recipes.md, made from the recipes: `python -m layerlock.recipes.catalogue > docs/recipes.md`."""

from __future__ import annotations

from layerlock.budget.devices import ASSUMED, DEVICES, Machine
from layerlock.budget.stages import budget, foretold, total, unknown_networks
from layerlock.budget.words import hours_text
from layerlock.model.cost import backbone_parameters
from layerlock.recipes import ROOMS
from layerlock.recipes.record import Recipe

PEAK = DEVICES["h100"].peak
HEAD = f"""# Recipes

Made by `python -m layerlock.recipes.catalogue`; a test holds this page to what that prints.

`layerlock pretrain NAME --dry-run` shows all settings of a recipe and each of its stages, `layerlock recipes NAME` what
it reaches and what was decided where its source is silent. `to reach` is what the source prints, not what was measured
here. FLOPs are of the whole training, counted from shapes. H100 hours are FLOPs over {ASSUMED.share:.0%} of the peak
rate, {PEAK["bf16"] / 1e12:.0f} TFLOP/s in bfloat16, {PEAK["fp32"] / 1e12:.0f} in float32 (no TF32; V-JEPA), and the
time to read and write weights, gradients and moments (`docs/plan.md`). This utilisation is an assumption; decoding and
evaluation are not included. `layerlock plan NAME` has memory and other devices. The cost is `unknown` if it depends on
a network of your own (`--dry-run` prints it once that network is on your machine), or if the plan decides during the
run when to switch (`Plateau`, `Auto`).
"""
OTHERS = """## From other encoders

**As a target.** Any encoder of `docs/encoders.md` can be predicted, frozen: `--plan.network` names it, `--plan.blocks`
its blocks (default: the last). It must take clips of as many frames as the run has (V-JEPA 2 takes any number);
frames are resized for it, and its features are resampled to the tokens of the run. It is not saved with the run: a
resume needs it under the same name, with the same weights.

    layerlock pretrain distill-tiny --data footage/                            # VideoMAE, downloaded at first use
    layerlock pretrain distill-small --data footage/ --plan.blocks 12 18 24    # three blocks of V-JEPA 2, averaged
    layerlock pretrain distill-tiny --data footage/ --plan.target frozen --plan.start 0.5 --plan.last 4
                                                                               # then LayerLock, from half-way on

A static teacher of your own takes two runs: the teacher predicts pixels, the student predicts its features:

    layerlock pretrain videomae-tiny --data footage/ --out runs/teacher
    layerlock pretrain static-teacher-tiny --data footage/ --plan.network runs/teacher

**As initial weights.** `--init-from` initialises any recipe from an encoder with the same model shape. `adapt` and
`adapt-tiny` take model and clip settings from that encoder; fields that you set yourself have priority. The lower half
of the blocks is frozen (`--plan.frozen N` sets another number, in every recipe that can freeze), the upper half learns.
Positions are resampled if clips have another size or length.

    layerlock pretrain adapt --data footage/                                   # VideoMAE, downloaded at first use
    layerlock pretrain adapt --data footage/ --init-from 4ds:FILE.npz --clip.size 112 --plan.frozen 8
    layerlock pretrain adapt-tiny --data footage/ --init-from runs/teacher
    layerlock pretrain adapt --data footage/ --plan.frozen 0 --plan.start 0.5 --plan.last 8    # LayerLock from there
"""
SETTINGS = """## Settings that no recipe has

**Other maskings.** `--masking.keep-to` draws how many tokens the model sees (R2MAE): anew for each `--masking.group`
consecutive clips, from `--masking.keep` to this share of the tokens, all numbers equally likely. `FutureMasking`
predicts a later part of the clip from an earlier one (RVM): `--masking.past` is the share of the times that context
comes from, `--masking.keep` the share of their tokens that is seen, `--masking.predict` the share of the tokens of the
later times that is predicted.

    layerlock pretrain mae-nano --data footage/ --masking.keep 0.1 --masking.keep-to 0.4
    layerlock pretrain mae-nano --data footage/ --masking.kind FutureMasking --masking.past 0.75 --masking.keep 0.3

**A loss that weights motion.** With `--plan.motion-weight a` the squared error of each patch has the weight
1 - a + a e / mean(e), where e is how much the patch changes over its frames, and the mean is over the patches that are
predicted together. It needs patches of several frames, as the target `motion` does.

    layerlock pretrain mae-nano --data footage/ --plan.motion-weight 0.5
"""
COLUMNS = ("recipe", "M parameters", "steps", "batch", "FLOPs", "H100 hours", "what it is")


def row(made: Recipe) -> tuple[str, ...]:
    """The cells of a recipe, after `COLUMNS`."""
    config = made.config
    stages = budget(config)
    found, unknown = total(config, stages, Machine()), bool(unknown_networks(stages)) or not foretold(stages)
    parameters = backbone_parameters(config.model, config.tokens) / 1e6
    return (
        f"`{made.name}`",
        f"{parameters:,.1f}",
        f"{config.steps:,}",
        f"{config.batch:,}",
        "unknown" if unknown else f"{found.flops:.2e}",
        "unknown" if unknown else hours_text(found.device_hours),
        made.line,
    )


def markdown() -> str:
    """The whole page."""
    parts = [HEAD, OTHERS, SETTINGS]
    for room in ROOMS:
        rows = [COLUMNS, ("---",) * len(COLUMNS), *map(row, room.RECIPES)]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
        parts.append(
            f"## {(room.__doc__ or '').strip().splitlines()[0].rstrip('.')}\n\n{table}\n{_decided(room.RECIPES)}"
        )
    return "\n".join(parts)


def _decided(recipes: tuple[Recipe, ...]) -> str:
    """The decisions of a room, once each, with the recipes that they are of where these are not all."""
    lines = []
    for text in dict.fromkeys(text for made in recipes for text in made.decided):
        of = [made.name for made in recipes if text in made.decided]
        names = "" if len(of) == len(recipes) else f" ({_names(of)})"
        lines.append(f"- {text}{names}")
    return "\nDecided:\n\n" + "\n".join(lines) + "\n" if lines else ""


def _names(names: list[str]) -> str:
    most = 4
    shown = ", ".join(f"`{name}`" for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


if __name__ == "__main__":
    print(markdown(), end="")
