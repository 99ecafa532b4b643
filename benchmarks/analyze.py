"""What an analysis by depth costs: one pass for all figures of all depths beside other ways, and its memory.

    python benchmarks/analyze.py --size S --clips 256 --batch 32 --rounds 3
    python benchmarks/analyze.py --memory 1000 10000

Clips are noise in 13 classes, so that no decoder is measured. The first command takes turns with

- `one pass`: `layerlock.analyze.figures.Figures`, as `layerlock analyze depth` runs it;
- `a pass a depth`: the same figures, the encoder run anew for each depth, as far as it;
- `libraries`: the encoder run anew for each depth and the figures that common libraries have, one by one: CKA of every
  pair of depths by ckatorch, ranks by numpy, the probe and retrieval by scikit-learn. Nothing for tokens, attention and
  what is explained, which `one pass` has.

and tells, of the passes alone, what one for each depth and figure would take. The second analyses as many links to a
few small videos as it is told, each count in a process of its own that decodes them too, and prints its peak resident
size (Linux).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

import ckatorch.core
import numpy as np
import torch
from measure import begin, median_and_range, options, seconds, take_turns
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

import layerlock
from layerlock.analyze.figures import Figures, Seen
from layerlock.config import RunConfig
from layerlock.features.probe import FOLDS, INVERSE_PENALTIES
from layerlock.model.encoder import ClipShape, Encoder
from layerlock.model.sizes import SIZES, vit
from layerlock.train.device import pick_precision

CLASSES = 13
VIDEOS = 26


def main() -> None:
    """Parses the options and prints the rows of what was asked for."""
    parser = options(__doc__, batch=32, rounds=3)
    parser.add_argument("--size", default="S", choices=SIZES)
    parser.add_argument("--clips", type=int, default=256)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--pixels", type=int, default=112)
    parser.add_argument(
        "--memory", type=int, nargs="+", default=[], help="numbers of videos to analyse in place of that"
    )
    parser.add_argument("--videos", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.videos:
        show_memory(given)
        return
    device = begin(given)
    if given.memory:
        compare_memory(given)
    else:
        compare_time(given, device)


# --- time ------------------------------------------------------------


def compare_time(given: argparse.Namespace, device: torch.device) -> None:
    """A row for each way."""
    encoder = an_encoder(given)
    encoder.prepare(device, pick_precision(RunConfig(device=given.device, precision=given.precision), device))
    shape = (given.clips, given.frames, 3, given.pixels, given.pixels)
    video_vtchw = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    label_v = torch.arange(given.clips) % CLASSES
    found: dict[str, int] = {}
    ways: dict[str, Callable[[], None]] = {
        "one pass": lambda: found.update(one_pass(encoder, video_vtchw.to(device), label_v, given.batch)),
        "a pass a depth": lambda: found.update(
            one_pass(encoder, video_vtchw.to(device), label_v, given.batch, anew=True)
        ),
        "libraries": lambda: libraries(encoder, video_vtchw.to(device), label_v, given.batch),
    }
    times = take_turns(list(ways.values()), device, given.rounds, warmup=1)
    passes = seconds(lambda: read_each(encoder, video_vtchw.to(device), given.batch), device)
    print(f"{given.size}, {encoder.depth + 1} depths, {given.clips} clips of {'x'.join(map(str, shape[1:]))}")
    for name, own in zip(ways, times, strict=True):
        ratios = [one / first for one, first in zip(own, times[0], strict=True)]
        print(f"{name:16} {median_and_range(own)} s, {median_and_range(ratios)} times one pass")
    count = found["figures"]
    print(
        f"passes alone     {passes:.2f} s, one a depth; {count * passes:.0f} s, one a depth and each of {count} figures"
    )


def an_encoder(given: argparse.Namespace) -> Encoder:
    """One with random weights, patches of 2 x 16 x 16 where they divide the frame, else 2 x 8 x 8."""
    side = 16 if given.pixels % 16 == 0 else 8
    clip = ClipShape(frames=given.frames, stride=1, size=given.pixels)
    return Encoder.random(vit(given.size, patch=(2, side, side)), clip)


def read_each(encoder: Encoder, video_vtchw: Tensor, batch: int) -> None:
    """Every depth by a pass of its own."""
    for depth in range(encoder.depth + 1):
        for part in video_vtchw.split(batch):
            encoder.forward_intermediates(part, [depth])


def one_pass(
    encoder: Encoder, video_vtchw: Tensor, label_v: Tensor, batch: int, *, anew: bool = False
) -> dict[str, int]:
    """All figures; with `anew` every depth by a pass of its own. How many figures a depth has."""
    depths = range(encoder.depth + 1)
    figures = Figures({"encoder": encoder}, set(range(len(label_v))), set(range(len(label_v))), seed=0)
    for row_b, part in zip(torch.arange(len(label_v)).split(batch), video_vtchw.split(batch), strict=True):
        if anew:
            features = [encoder.forward_intermediates(part, [depth])[0] for depth in depths]
        else:
            features = encoder.forward_intermediates(part, depths)
        by_place = {("encoder", depth): x_bnd.float() for depth, x_bnd in zip(depths, features, strict=True)}
        figures.add(Seen(rows=row_b.tolist(), features=by_place, one_patch={}, views={}))
    made = figures.found(label_v, torch.arange(len(label_v)), lambda done, total: None)
    return {"figures": len(made["metrics"]) + len({each["name"] for each in made["maps"]})}


def libraries(encoder: Encoder, video_vtchw: Tensor, label_v: Tensor, batch: int) -> None:
    """Ranks, CKA, the probe and retrieval of every depth."""
    warnings.simplefilter("ignore")  # scikit-learn's, of noise at weak penalties and of few clips of a class
    pooled = [torch.cat(list(pooled_at(encoder, video_vtchw, depth, batch))) for depth in range(encoder.depth + 1)]
    for x_vd in pooled:
        x, y = x_vd.double().numpy(), label_v.numpy()
        np.linalg.eigvalsh(np.cov(x.T, bias=True))
        np.linalg.svd(x, compute_uv=False)
        for penalty in INVERSE_PENALTIES:
            regression = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=300, tol=1e-3))
            cross_val_predict(regression, x, y, cv=KFold(FOLDS, shuffle=True, random_state=0), method="predict_proba")
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        for row in range(len(y)):
            others = np.arange(len(y)) != row
            average_precision_score(y[others] == y[row], unit[others] @ unit[row])
    for one, other in combinations(pooled, 2):
        ckatorch.core.cka_base(one, other, kernel="linear")
        whole = len(one) // batch * batch
        ckatorch.core.cka_batch(*(x_vd[:whole].unflatten(0, (-1, batch)) for x_vd in (one, other)))


def pooled_at(encoder: Encoder, video_vtchw: Tensor, depth: int, batch: int) -> Iterator[Tensor]:
    """Mean-pooled features of each batch, by a pass for this depth."""
    for part in video_vtchw.split(batch):
        yield encoder.forward_intermediates(part, [depth])[0].float().mean(1).cpu()


# --- memory ------------------------------------------------------------


def compare_memory(given: argparse.Namespace) -> None:
    """A row for each number of videos."""
    with tempfile.TemporaryDirectory() as folder:
        videos = layerlock.synth(Path(folder) / "videos", videos=VIDEOS, size=given.pixels, frames=given.frames)
        for count in given.memory:
            links = Path(folder) / str(count)
            for number in range(count):
                video = videos[number % VIDEOS]
                link = links / video.parent.name / f"{number:06}.mp4"
                link.parent.mkdir(parents=True, exist_ok=True)
                os.link(video, link)
            command = [sys.executable, *sys.argv, "--videos", str(links)]
            subprocess.run(command, check=True)


def show_memory(given: argparse.Namespace) -> None:
    """Analyses a folder and prints the peak of this process."""
    found = layerlock.analyze_depth(
        an_encoder(given),
        given.videos,
        out=given.videos.with_suffix(".out"),
        batch=given.batch,
        device=given.device,
        precision=given.precision,
        threads=given.threads,
        workers=0,
        quiet=True,
    )
    (peak,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    print(f"{given.size}, {found['clips']:,} clips: peak resident {int(peak.split()[1]) / 1e3:,.0f} MB", flush=True)


if __name__ == "__main__":
    main()
