"""Blockwise learning against end-to-end training, with the controls that tell what makes the difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from layerlock.config import Config
from layerlock.learn.plans import Blockwise

BASELINE = "end to end"
PARTS = {"nano": (2, 3), "tiny": (2, 4), "small": (4, 6), "deit-tiny": (4, 6), "deit-small": (4, 6)}
"""recipes `blockwise-*`, and into how many parts their encoder is cut"""


def arms(base: Config, parts: Sequence[int]) -> dict[str, Config]:
    """What the study trains, by name: the recipe `base` end to end, and in each number of parts

    - simultaneously, with a gradient-isolated loss for each part;
    - sequentially, as in the paper, with all steps for each part; and matched, with as many steps in all as the others:
      this separates the order of training from its budget;
    - under deep supervision, with the same losses and no stopped gradient: this separates the place of the losses from
      the locality of their gradients.
    """
    patches = base.plan.patches if isinstance(base.plan, Blockwise) else Blockwise.patches
    found = {BASELINE: replace(base, plan=Blockwise(regime="end-to-end", parts=1, patches=patches))}
    for count in parts:
        cuts = tuple(round(base.model.depth * part / count) for part in range(1, count + 1))

        def cut(count: int = count, cuts: tuple[int, ...] = cuts, **regime: Any) -> Config:
            return replace(base, plan=Blockwise(parts=count, cuts=cuts, patches=patches, **regime))

        # each part has the warm-up and the cosine of a run of its own
        own = replace(base.optim, warmup=base.optim.warmup / count, mini_warmup=0.0, cycles=count)
        sequential = replace(cut(regime="sequential"), optim=own)
        found |= {
            f"simultaneous, {count} parts": cut(),
            f"sequential, {count} parts": replace(sequential, steps=base.steps * count),
            f"sequential, {count} parts, matched": sequential,
            f"deep supervision, {count} parts": cut(regime="deep-supervision"),
        }
    return found
