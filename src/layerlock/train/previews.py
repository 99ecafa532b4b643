"""What the model predicts for the same few clips at the end of each stage, as tensors; pictures are the report's."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from layerlock.files import write_whole
from layerlock.learn.learner import Learner

CLIPS = 4


@torch.no_grad()
def save_preview(folder: Path, step: int, learner: Learner, video_btchw: Tensor, index_b: Tensor) -> None:
    """Writes `step-N.safetensors`: the clips, their context positions, and prediction and target of every tap as its
    loss has them; the stage stands in the metadata as JSON.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part = learner.masking.parts(index_b)[0]
    video_btchw, index_b = video_btchw[part], index_b[part]
    masks = learner.masking.draw(learner.seed, index_b, learner.vit.grid)[0]
    tensors = {"video": video_btchw, "context": masks.context_bk}
    with torch.compiler.set_stance("force_eager"):  # four clips are not worth a compiled variant of every block
        groups = list(learner.groups(video_btchw, index_b, masks))
    for prediction in (prediction for group in groups for prediction in group.predictions):
        name = learner.stage.label(prediction.tap)
        tensors |= {f"predicted/{name}": prediction.predicted.float(), f"target/{name}": prediction.target.float()}
        if prediction.positions_bq is not None:
            tensors[f"positions/{name}"] = prediction.positions_bq
    whole = {name: value.cpu().contiguous().clone() for name, value in tensors.items()}
    facts = {"stage": json.dumps(learner.stage.plain)}
    write_whole(folder / f"step-{step:08d}.safetensors", lambda part: save_file(whole, part, facts))
