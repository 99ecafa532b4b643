"""Whole clips through a frozen VideoMAE: our encoder beside transformers' own model of the same weights.

    python benchmarks/encode.py --size B S --batch 8 --threads 1

Both take uint8 clips of 16 x 224 x 224 and return the features after the last block, in float32 and in bfloat16 (theirs
under autocast). Each has a process of its own and they take turns: `layerlock evaluate` tells the C library of Linux to
keep memory that was freed, which would help whatever else is in its process; `kept` is transformers' model with that
setting. `unpacked` is ours with its weights as they are saved, in bfloat16 on a CPU (`Dense.pack`), `in turn` ours with
one clip after the other on all threads, where it would give each thread a clip (`clip_by_clip`). Prints the median
milliseconds a clip, the median ratio to ours of a turn with its minimum and maximum, and how far features are from
transformers' in float32 (norm of the difference over the norm).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from measure import machine
from torch import Tensor
from transformers import VideoMAEConfig, VideoMAEModel

from layerlock.encoders import open_encoder
from layerlock.encoders.videomae_weights import IMAGENET_MEAN, IMAGENET_STD
from layerlock.model.sizes import SIZES
from layerlock.process import keep_freed_memory

Reader = Callable[[Tensor], Tensor]
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
OURS, UNPACKED, IN_TURN = "layerlock", "layerlock, unpacked", "layerlock, in turn"
THEIRS, KEPT = "transformers", "transformers, kept"


def main() -> None:
    """Rows for each size and precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", choices=SIZES, default=["B", "S"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    print(f"{machine(torch.device(given.device))}\nbatch {given.batch}, {given.turns} turns")
    print("size precision                    ms a clip   times ours    min    max       off")
    for size in given.size:
        with tempfile.TemporaryDirectory() as folder:
            save(size, folder)
            for name in given.precision:
                compare(size, folder, PRECISIONS[name], given)


def save(size: str, folder: str) -> None:
    """A model of random weights, as transformers writes it."""
    torch.manual_seed(0)
    width, depth, mlp, heads = SIZES[size]
    shape = {"hidden_size": width, "num_hidden_layers": depth, "intermediate_size": mlp, "num_attention_heads": heads}
    VideoMAEModel(VideoMAEConfig(**shape, use_mean_pooling=False)).save_pretrained(folder)


def compare(size: str, folder: str, precision: torch.dtype, given: argparse.Namespace) -> None:
    """A row for each side."""
    context = get_context("spawn")
    pipes: dict[str, Connection] = {}
    off: dict[str, float] = {}
    exact = reader(THEIRS, folder, torch.float32, given.device)(some_clips(given.batch).to(given.device)).cpu()
    packs = precision == torch.bfloat16 and given.device == "cpu"
    spreads = given.device == "cpu" and torch.get_num_threads() > 1
    for name in (OURS, *((UNPACKED,) if packs else ()), *((IN_TURN,) if spreads else ()), THEIRS, KEPT):
        pipes[name], theirs = context.Pipe()
        task = (name, folder, precision, given.device, given.batch, torch.get_num_threads(), theirs)
        context.Process(target=serve, args=task, daemon=True).start()
        off[name] = float((pipes[name].recv().float() - exact).norm() / exact.norm())
    turns = [{name: turn(pipe) for name, pipe in pipes.items()} for _ in range(given.turns)]
    for pipe in pipes.values():
        pipe.send(False)
    for name in pipes:
        ratios = [each[name] / each[OURS] for each in turns]
        print(
            f"{size:4} {str(precision).removeprefix('torch.'):9} {name:19} "
            f"{statistics.median(each[name] for each in turns) * 1e3 / given.batch:8.1f} "
            f"{statistics.median(ratios):12.2f} {min(ratios):6.2f} {max(ratios):6.2f} {off[name]:9.1e}",
            flush=True,
        )


def turn(pipe: Connection) -> float:
    """Seconds of one reading in another process."""
    pipe.send(True)
    seconds: float = pipe.recv()
    return seconds


def serve(
    name: str, folder: str, precision: torch.dtype, device: str, batch: int, threads: int, pipe: Connection
) -> None:
    """One side's process: its features once, then the seconds of a reading whenever it is asked."""
    torch.set_num_threads(threads)
    if name != THEIRS:
        keep_freed_memory(torch.device(device))
    read, clips = reader(name, folder, precision, device), some_clips(batch).to(device)
    pipe.send(read(clips).cpu())
    while pipe.recv():
        begun = time.perf_counter()
        read(clips)
        if clips.device.type == "cuda":
            torch.cuda.synchronize(clips.device)
        pipe.send(time.perf_counter() - begun)


def some_clips(batch: int) -> Tensor:
    """Noise, the same in every process."""
    noise = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (batch, 16, 3, 224, 224), dtype=torch.uint8, generator=noise)


def reader(name: str, folder: str, precision: torch.dtype, device: str) -> Reader:
    """Clips to features after the last block."""
    if name in (OURS, UNPACKED, IN_TURN):
        encoder = open_encoder(f"hf:{folder}").prepare(torch.device(device), precision)
        if name == UNPACKED and isinstance(encoder, torch.nn.Module):
            encoder.to(device)  # whatever is moved is laid out no more

        def ours(clips: Tensor) -> Tensor:
            return encoder.forward_intermediates(clips, [encoder.depth])[0]

        return ours if name != IN_TURN else lambda clips: torch.cat([ours(clip) for clip in clips.split(1)])
    model: Any = VideoMAEModel.from_pretrained(Path(folder)).eval().requires_grad_(False).to(device)
    # their preprocessor would take out the pixels' mean and deviation
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))

    @torch.no_grad()
    def read(clips: Tensor) -> Tensor:
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == torch.bfloat16):
            features: Tensor = model((clips.to(device).float() / 255 - mean) / std).last_hidden_state
        return features

    return read


if __name__ == "__main__":
    main()
