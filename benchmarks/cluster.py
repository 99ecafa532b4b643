"""What the papers' recipes need of GPUs, counted from shapes: the table of `docs/cluster.md`."""

from __future__ import annotations

from dataclasses import replace

import layerlock
from layerlock.budget.devices import Machine
from layerlock.budget.stages import budget, total
from layerlock.budget.words import hours_text
from layerlock.model.cost import FLOAT, Numerics

RECIPES = (
    "4ds-g-layerlock",
    "vit-g-250m-freeze",
    "vit-h-100m-latent-constant",
    "vit-b-50m-layerlock",
    "vjepa-l",
    "vjepa-l-layerlock",
    "videomae-b",
)
GPU, LEFT = 80e9, 0.9
"""bytes of a GPU, and the share of them that tensors can have"""
MOMENTS = 2 * FLOAT
PROCESSES = 64
"""that divide the moments"""


def needs(name: str, recompute: bool, processes: int = 1) -> tuple[float, float, int]:
    """Bytes that a process holds whatever its share, bytes of a clip, and clips that fit, in the fullest stage; where
    so many processes divide the moments.
    """
    config = layerlock.recipe(name)
    config = replace(config, run=replace(config.run, recompute=recompute))
    steps = [config.memory(each.stage, Numerics(compute=2)) for each in budget(config)]
    held = [step.weights + (FLOAT + MOMENTS / processes) * step.live + step.kept.fixed for step in steps]
    clip = [step.kept.clip + step.working + step.inputs for step in steps]
    return max(held), max(clip), min(int((LEFT * GPU - a) // b) for a, b in zip(held, clip, strict=True))


def main() -> None:
    """Prints the table."""
    print(
        "| recipe | batch | weights, gradients, moments | moments divided | a clip | clips on a GPU | exchanged a step "
        "| H100 hours |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in RECIPES:
        config = layerlock.recipe(name)
        stages = budget(config)
        first, last = (FLOAT * config.memory(stages[at].stage, Numerics(compute=2)).live / 1e9 for at in (0, -1))
        (held, clip, fit), (_, clip_again, fit_again) = needs(name, False), needs(name, True)
        divided = needs(name, False, PROCESSES)[0]
        hours = hours_text(total(config, stages, Machine()).device_hours)
        print(
            f"| `{name}` | {config.batch:,} | {held / 1e9:.1f} GB | {divided / 1e9:.1f} GB "
            f"| {clip / 1e6:,.0f} ({clip_again / 1e6:,.0f}) MB "
            f"| {fit:,} ({fit_again:,}) | {first:.2f} to {last:.2f} GB | {hours} |"
        )


if __name__ == "__main__":
    main()
