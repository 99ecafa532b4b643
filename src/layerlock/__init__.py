"""layerlock: self-supervised video representation learning with depth-wise training plans.

    config = layerlock.recipe("layerlock-tiny", data="footage/", out="run")
    layerlock.pretrain(config)
    encoder = layerlock.load("run")
    features = encoder(video)          # [B, N, D]

Everything here is imported on first use.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if "torch" not in sys.modules and not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    # read once, by the OpenMP that torch brings on Linux: threads that wait for others spin for some microseconds, not
    # for milliseconds, of which a core that is shared has none to spare (docs/performance.md)
    os.environ["GOMP_SPINCOUNT"] = "1000"

if TYPE_CHECKING:
    from layerlock.api import (
        Embeddings,
        analyze_convergence,
        analyze_depth,
        describe_recipe,
        embed,
        evaluate,
        fit,
        index,
        info,
        list_recipes,
        load,
        pack,
        plan,
        pretrain,
        recipe,
        synth,
        write_report,
    )
    from layerlock.config import Config, OptimConfig, RunConfig
    from layerlock.data import ClipConfig
    from layerlock.data.index import Index
    from layerlock.errors import ConfigError, LayerlockError
    from layerlock.evaluation.config import EvaluateConfig
    from layerlock.evaluation.results import Evaluation
    from layerlock.learn.decoders import BackboneDecoding
    from layerlock.learn.learner import Learner
    from layerlock.learn.masking import RandomMasking
    from layerlock.learn.plan import Decision, FixedPlan, Observer, Plan, Stage, Switch, SwitchLog, Tap
    from layerlock.learn.plans import Auto, Blockwise, Distill, JointEmbedding, LiveLatents, Plateau, Progressive
    from layerlock.learn.targets import FeatureTarget, PatchTarget
    from layerlock.model.encoder import Encoder
    from layerlock.model.vit import ViT, ViTConfig

_HOMES = {
    "layerlock.api": (
        "Embeddings",
        "analyze_convergence",
        "analyze_depth",
        "describe_recipe",
        "embed",
        "evaluate",
        "fit",
        "index",
        "info",
        "list_recipes",
        "load",
        "pack",
        "plan",
        "pretrain",
        "recipe",
        "synth",
        "write_report",
    ),
    "layerlock.config": ("Config", "OptimConfig", "RunConfig"),
    "layerlock.data": ("ClipConfig",),
    "layerlock.data.index": ("Index",),
    "layerlock.errors": ("ConfigError", "LayerlockError"),
    "layerlock.evaluation.config": ("EvaluateConfig",),
    "layerlock.evaluation.results": ("Evaluation",),
    "layerlock.learn.decoders": ("BackboneDecoding",),
    "layerlock.learn.learner": ("Learner",),
    "layerlock.learn.masking": ("RandomMasking",),
    "layerlock.learn.plan": ("Decision", "FixedPlan", "Observer", "Plan", "Stage", "Switch", "SwitchLog", "Tap"),
    "layerlock.learn.targets": ("FeatureTarget", "PatchTarget"),
    "layerlock.learn.plans": (
        "Auto",
        "Blockwise",
        "Distill",
        "JointEmbedding",
        "LiveLatents",
        "Plateau",
        "Progressive",
    ),
    "layerlock.model.encoder": ("Encoder",),
    "layerlock.model.vit": ("ViT", "ViTConfig"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Auto",
    "BackboneDecoding",
    "Blockwise",
    "ClipConfig",
    "Config",
    "ConfigError",
    "Decision",
    "Distill",
    "Embeddings",
    "Encoder",
    "EvaluateConfig",
    "Evaluation",
    "FeatureTarget",
    "FixedPlan",
    "Index",
    "JointEmbedding",
    "LayerlockError",
    "Learner",
    "LiveLatents",
    "Observer",
    "OptimConfig",
    "PatchTarget",
    "Plan",
    "Plateau",
    "Progressive",
    "RandomMasking",
    "RunConfig",
    "Stage",
    "Switch",
    "SwitchLog",
    "Tap",
    "ViT",
    "ViTConfig",
    "analyze_convergence",
    "analyze_depth",
    "describe_recipe",
    "embed",
    "evaluate",
    "fit",
    "index",
    "info",
    "list_recipes",
    "load",
    "pack",
    "plan",
    "pretrain",
    "recipe",
    "synth",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'layerlock' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
