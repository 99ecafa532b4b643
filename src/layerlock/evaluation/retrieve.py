"""Retrieval: no training; the depth is chosen on one part, leave-one-out on the test part is what is reported."""

from __future__ import annotations

from layerlock.evaluation.opened import Opened
from layerlock.evaluation.results import Evaluation


def retrieve(opened: Opened) -> Evaluation:
    raise NotImplementedError
