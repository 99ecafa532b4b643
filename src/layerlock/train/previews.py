"""What the model predicts for the same few clips at the end of each stage, kept for the report."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from layerlock.files import write_whole
from layerlock.learn.learner import Learner
from layerlock.learn.plan import PIXELS

CLIPS = 4


@torch.no_grad()
def save_preview(folder: Path, step: int, learner: Learner, video_btchw: Tensor, index_b: Tensor) -> None:
    """Writes `step-N.safetensors`: the clips, their context positions, prediction and target of every tap; pixels in
    [0, 1].
    """
    folder.mkdir(parents=True, exist_ok=True)
    assert learner.stage is not None, "enter a stage first"
    context_bk = learner.masking.context(learner.seed, index_b, learner.vit.tokens)
    tensors = {"video": video_btchw, "context": context_bk}
    with torch.compiler.set_stance("force_eager"):  # four clips are not worth a compiled variant of every block
        groups = list(learner.groups(video_btchw, index_b))
    for group in groups:
        for prediction in group.predictions:
            name = learner.stage.label(prediction.tap)
            shown = learner.vit.denormalize if prediction.tap.target == PIXELS else Tensor.float
            tensors |= {f"predicted/{name}": shown(prediction.predicted), f"target/{name}": shown(prediction.target)}
            if prediction.positions_bq is not None:
                tensors[f"positions/{name}"] = prediction.positions_bq.clone()
    whole = {name: value.cpu().contiguous() for name, value in tensors.items()}
    write_whole(folder / f"step-{step:08d}.safetensors", lambda part: save_file(whole, part))
