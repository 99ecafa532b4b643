"""Training steps side by side with transformers, taking turns step by step in one process.

    python benchmarks/against_transformers.py --method videomae --size base --batch 2 --rounds 10 --precision bf16
    python benchmarks/against_transformers.py --method vjepa --size small --batch 8 --rounds 10 [--compile]

VideoMAE: their VideoMAEForPreTraining, with the weights and masks of ours. V-JEPA: their VJEPA2 layers on the gathered
context, a teacher and a predictor. Both: fused AdamW, bfloat16 by autocast on their side, attention by PyTorch's fused
kernel (their default). They get float clips that are normalised already and masks drawn beforehand; ours starts from
bytes and sample indices. `--compile` compiles both, theirs with `torch.compile(model)`, ours block by block.

Prints clips a second, milliseconds of a step, the ratio of the two of the same round (median and range), bytes kept for
backward at the fullest moment, and the peak of all memory on CUDA.
"""

from __future__ import annotations

import videomae_pair
import vjepa_pair
from measure import begin, options
from sides import show_sides

from layerlock.config import RunConfig
from layerlock.train.device import pick_precision

PAIRS = {"videomae": videomae_pair, "vjepa": vjepa_pair}


def main() -> None:
    """Parses the options, builds the sides and prints a row for each."""
    parser = options(__doc__, batch=4, rounds=10)
    parser.add_argument("--method", default="videomae", choices=tuple(PAIRS))
    parser.add_argument("--size", default="small", choices=("base", "small"))
    parser.add_argument("--compile", action="store_true")
    given = parser.parse_args()
    device = begin(given)
    run = RunConfig(device=given.device, precision=given.precision, compile="yes" if given.compile else "no")
    pair = PAIRS[given.method]
    sides = pair.sides(pair.GEOMETRIES[given.size], given.batch, run, device)
    if given.compile:
        for name, side in sides.items():
            if name != "ours":
                side.model.compile()
    precision = str(pick_precision(run, device)).removeprefix("torch.")
    how = "both compiled" if given.compile else "eager"
    print(f"{given.method}, {given.size}, {given.batch} clips, {precision}, {how}, {given.rounds} rounds")
    show_sides(sides, given.batch, given.rounds, device)


if __name__ == "__main__":
    main()
