"""Whole clips through a frozen VideoMAE: our encoder beside transformers' own model of the same weights.

    python benchmarks/encode.py --size B S --batch 8 --threads 1

Both take uint8 clips of 16 x 224 x 224 and return the features after the last block; the two take turns, in float32 and
in bfloat16 (theirs under autocast). Prints the median milliseconds a clip of both, the median ratio of a turn with its
minimum and maximum, and how far each one's features are from their float32 ones (norm of the difference over the norm).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import VideoMAEConfig, VideoMAEModel

from layerlock.evaluation.encoders import FrozenEncoder, open_encoder
from layerlock.learn.videomae import IMAGENET_MEAN, IMAGENET_STD
from layerlock.model.sizes import SIZES

Reader = Callable[[Tensor], Tensor]


def main() -> None:
    """A row for each size and precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", choices=SIZES, default=["B", "S"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    device = torch.device(given.device)
    where = f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    print(f"batch {given.batch}, {given.turns} turns, {where}")
    print("size precision  theirs    ours  ratio    min    max   theirs off   ours off")
    for size in given.size:
        compare(size, given.batch, given.turns, device)


def compare(size: str, batch: int, turns: int, device: torch.device) -> None:
    """Rows of one size, both precisions."""
    torch.manual_seed(0)
    width, depth, mlp, heads = SIZES[size]
    shape = {"hidden_size": width, "num_hidden_layers": depth, "intermediate_size": mlp, "num_attention_heads": heads}
    model = VideoMAEModel(VideoMAEConfig(**shape, use_mean_pooling=False)).eval().requires_grad_(False)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        encoder = open_encoder(f"hf:{folder}")
    model = model.to(device)
    clips = torch.randint(0, 256, (batch, 16, 3, 224, 224), dtype=torch.uint8).to(device)
    exact = theirs(model, torch.float32)(clips)
    for precision in (torch.float32, torch.bfloat16):
        readers = (theirs(model, precision), ours(encoder.prepare(device, precision)))
        off = [float((read(clips).float() - exact).norm() / exact.norm()) for read in readers]
        rows = [[timed(read, clips) for read in readers] for _ in range(turns)]
        ratios = [a / b for a, b in rows]
        first, second = (statistics.median(column) * 1e3 / batch for column in zip(*rows, strict=True))
        print(
            f"{size:4} {str(precision).removeprefix('torch.'):9} {first:7.1f} {second:7.1f} "
            f"{statistics.median(ratios):6.2f} {min(ratios):6.2f} {max(ratios):6.2f} {off[0]:12.1e} {off[1]:10.1e}"
        )


def theirs(model: Any, precision: torch.dtype) -> Reader:
    """Their model, with the pixels' mean and deviation that their preprocessor would take out."""
    device = model.device
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))

    @torch.no_grad()
    def read(clips: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == torch.bfloat16):
            features: Tensor = model((clips.float() / 255 - mean) / std).last_hidden_state
        return features

    return read


def ours(encoder: FrozenEncoder) -> Reader:
    """Our encoder, after its last block."""
    return lambda clips: encoder.forward_intermediates(clips, [encoder.depth])[0]


def timed(read: Reader, clips: Tensor) -> float:
    """Seconds of one reading."""
    begun = time.perf_counter()
    read(clips)
    if clips.device.type == "cuda":
        torch.cuda.synchronize(clips.device)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
