"""What the model predicts for the same few clips at the end of each stage, kept for the report."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from layerlock.files import write_whole
from layerlock.learn.learner import Learner, Prediction
from layerlock.model.patches import gather_tokens, patchify

CLIPS = 4


@torch.no_grad()
def save_preview(folder: Path, step: int, learner: Learner, video_btchw: Tensor, index_b: Tensor) -> None:
    """Writes `step-N.safetensors`: the clips, their context positions, prediction and target of every tap; pixels in
    [0, 1].
    """
    folder.mkdir(parents=True, exist_ok=True)
    assert learner.stage is not None, "enter a stage first"
    part = learner.masking.parts(index_b)[0]
    video_btchw, index_b = video_btchw[part], index_b[part]
    masks = learner.masking.draw(learner.seed, index_b, learner.vit.grid)[0]
    tensors = {"video": video_btchw, "context": masks.context_bk}
    with torch.compiler.set_stance("force_eager"):  # four clips are not worth a compiled variant of every block
        groups = list(learner.groups(video_btchw, index_b, masks))
    for prediction in (prediction for group in groups for prediction in group.predictions):
        name = learner.stage.label(prediction.tap)
        predicted, target = _in_pixels(learner, video_btchw, prediction)
        tensors |= {f"predicted/{name}": predicted, f"target/{name}": target}
        if prediction.positions_bq is not None:
            tensors[f"positions/{name}"] = prediction.positions_bq.clone()
    whole = {name: value.cpu().contiguous() for name, value in tensors.items()}
    write_whole(folder / f"step-{step:08d}.safetensors", lambda part: save_file(whole, part))


def _in_pixels(learner: Learner, video_btchw: Tensor, prediction: Prediction) -> tuple[Tensor, Tensor]:
    """What was predicted and what should have been; pixels in [0, 1], normalised ones with what was taken from them."""
    predicted, target = prediction.predicted.float(), prediction.target.float()
    if prediction.tap.target.layer:
        return predicted, target
    if not prediction.tap.target.normalized:
        return learner.vit.denormalize(predicted), learner.vit.denormalize(target)
    patches_bnp = patchify(video_btchw, learner.vit.config.patch).float() / 255
    if prediction.positions_bq is not None:
        patches_bnp = gather_tokens(patches_bnp, prediction.positions_bq)
    std, mean = torch.std_mean(patches_bnp.unflatten(-1, (-1, 3)), dim=-2, keepdim=True)
    return (predicted.unflatten(-1, (-1, 3)) * std + mean).flatten(-2), patches_bnp
