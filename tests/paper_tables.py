"""The papers' settings, typed from their tables: nothing here comes from `layerlock.recipes`.

Numbers are in the tables' units: steps, the share of patches that is masked. A schedule is (step, blocks frozen,
target) for every stage. Where a table is silent, what stands here is the decision that `docs/recipes.md` names.
"""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]
Stages = list[tuple[int, int, str]]

# width, depth, MLP, heads
TI, S, S16, B = (192, 12, 768, 3), (384, 12, 1536, 6), (384, 16, 1536, 6), (768, 12, 3072, 12)
L, H, G, E = (1024, 24, 4096, 16), (1280, 32, 5120, 16), (1664, 48, 8192, 16), (1792, 56, 15360, 16)

PIXELS: Stages = [(0, 0, "pixels")]


def one_based(start: int, every: int, layers: range) -> Stages:
    """Tables 8 and 9: target layers counted from one; what is predicted is what is frozen."""
    return [(start + every * i, layer, f"h{layer}") for i, layer in enumerate(layers)]


def zero_based(start: int, every: int, *layers: int) -> Stages:
    """Tables 7 and 10: target layers counted from zero; layer 4 is the output of the fifth block."""
    return PIXELS + [(start + every * i, layer + 1, f"h{layer + 1}") for i, layer in enumerate(layers)]


def on(kind: str, stages: Stages) -> Stages:
    """The same freezing with another target."""
    return [(step, frozen, kind) for step, frozen, _ in stages]


# --- Table 8 and what sections 3 and 4 say of all 4DS models ---------------------------------------------------------

TABLE_8: Row = {
    "size": G,
    "steps": 488_282,
    "frames": 16,
    "stride": 2,
    "resolution": 224,
    "resize": 1.15,
    "flip": True,
    "area": None,
    "jitter": 0.0,
    "grayscale": 0.0,
    "patch": (2, 16, 16),
    "position": "rope",
    "rope": (10_000, 0.10, 0.25, 0.25),
    "pixels": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "block": ("tanh", 1e-6, True),
    "final norm": False,
    "masking": ("random", 0.95),
    "decoder": ("backbone", 4, "position"),
    "start lr": 0.0,
    "lr": 3e-4,
    "end lr": 0.0,
    "warmup": 10_000,
    "mini warmup": 1_000,
    "cycles": 1,
    "batch": 2048,
    "weight decay": (0.05, 0.05),
    "mask tokens": (1, "random", False),
    "first weights": "xavier",
    "betas": (0.90, 0.95),
    "clip norm": None,
    "ema": None,
    "precision": "auto",
    "loss": ("squared", "everywhere", 1.0),
    "factor": None,
    "stages": PIXELS,
}
LOCK_G = PIXELS + one_based(160_000, 10_000, range(1, 33))
LOCK_E = PIXELS + one_based(200_000, 10_000, range(1, 30))

FOUR_DS: dict[str, Row] = {
    "4ds-g": TABLE_8,
    "4ds-g-layerlock": TABLE_8 | {"stages": LOCK_G},
    "4ds-g-layerlock-sparse": TABLE_8 | {"stages": LOCK_G, "loss": ("squared", "everywhere", 0.05)},
    "4ds-e": TABLE_8 | {"size": E},
    "4ds-e-layerlock": TABLE_8 | {"size": E, "stages": LOCK_E},
}

# --- Table 10 --------------------------------------------------------------------------------------------------------

NO = (0.0, 0.0)
G_250M = TABLE_8 | {"lr": 1e-4, "warmup": 5_000, "batch": 2048, "weight decay": NO, "steps": 250_000_000 // 2048}
G_56M = TABLE_8 | {"lr": 1e-4, "warmup": 5_000, "batch": 128, "weight decay": NO, "steps": 56_000_000 // 128}
H_100M = TABLE_8 | {
    "size": H,
    "lr": 1e-3,
    "warmup": 1_000,
    "batch": 8192,  # printed: 8096
    "weight decay": NO,
    "steps": 100_000_000 // 8192,
}
B_50M = TABLE_8 | {
    "size": B,
    "lr": 3e-4,
    "warmup": 2_000,
    "batch": 512,
    "weight decay": (1e-3, 1e-3),
    "steps": 50_000_000 // 512,
}
LEARNED = {"position": "learned", "decoder": ("backbone", 4, "learned")}
G_250M_LOCK = zero_based(25_000, 20_000, 4, 8, 12, 16)
# printed up to 44, which is the first of the decoder's blocks
G_56M_LOCK = zero_based(19_000, 30_000, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 43)
ALL_SO_FAR = [
    (step, frozen, "+".join(target for _, _, target in G_56M_LOCK[: i + 1]))
    for i, (step, frozen, _) in enumerate(G_56M_LOCK)
]
LIVE = [(0, 0, "pixels+h4+h8+h12+h16+h20+h24+h28")]

ABLATIONS: dict[str, Row] = {
    # Table 3
    "vit-h-100m": H_100M,
    "vit-h-100m-latent-constant": H_100M | {"stages": LIVE, "factor": (1.0, 1.0, 1.0), "both sides": True},
    "vit-h-100m-latent-cosine": H_100M | {"stages": LIVE, "factor": (0.0, 0.5, 1.0), "both sides": True},
    # Table 4
    "vit-g-250m-no-rope": G_250M | LEARNED,
    "vit-g-250m": G_250M,
    "vit-g-250m-layerlock": G_250M | {"stages": G_250M_LOCK},
    "vit-g-250m-rope-attention": G_250M | {"position": "rope-attention", "decoder": ("backbone", 4, "learned")},
    # Table 5
    "vit-g-56m-layerlock": G_56M | {"stages": G_56M_LOCK},
    "vit-g-56m-layerlock-multi": G_56M | {"stages": ALL_SO_FAR},
    # Table 6, but for its second row
    "vit-g-250m-layerlock-warmup-none": G_250M | {"stages": G_250M_LOCK, "mini warmup": 0},
    "vit-g-250m-layerlock-warmup-3k": G_250M | {"stages": G_250M_LOCK, "mini warmup": 3_000},
    # Figure 3
    "vit-g-250m-freeze": G_250M | {"stages": on("pixels", G_250M_LOCK)},
    "vit-g-250m-freeze-no-rope": G_250M | LEARNED | {"stages": on("pixels", G_250M_LOCK)},
    # Table 7
    "vit-b-50m-layerlock": B_50M | {"stages": zero_based(6_000, 4_000, 1, 3, 5, 7)},
    "vit-b-50m-layerlock-start-2k": B_50M | {"stages": zero_based(2_000, 4_000, 1, 3, 5, 7)},
    "vit-b-50m-layerlock-start-4k": B_50M | {"stages": zero_based(4_000, 4_000, 1, 3, 5, 7)},
    "vit-b-50m-layerlock-jump-3": B_50M | {"stages": zero_based(6_000, 4_000, 2, 5, 8, 11)},
    "vit-b-50m-layerlock-jump-4": B_50M | {"stages": zero_based(6_000, 4_000, 3, 7, 11)},
    "vit-b-50m-layerlock-interval-2k": B_50M | {"stages": zero_based(6_000, 2_000, 0, 1, 2, 3, 4, 5, 6, 7)},
    "vit-b-50m-layerlock-interval-8k": B_50M | {"stages": zero_based(6_000, 8_000, 3, 7)},
    "vit-b-50m-layerlock-interval-16k": B_50M | {"stages": zero_based(6_000, 16_000, 7)},
}

# --- section A.1 and Figure 1 ----------------------------------------------------------------------------------------

A_1 = TABLE_8 | {"size": S16, "steps": 14_000, "batch": 2048, "lr": 1e-4, "warmup": 1_000, "mini warmup": 0}
CONVERGENCE: dict[str, Row] = {
    "convergence-s16": A_1,
    **{
        f"convergence-s16-freeze-{layer}-at-{thousand}k": A_1
        | {"stages": [*PIXELS, (1_000 * thousand, layer, "pixels")]}
        for layer in (3, 6, 9, 12)
        for thousand in (2, 4, 6, 8, 10, 12)
    },
}

# --- Table 9 ---------------------------------------------------------------------------------------------------------

BLOCKS = ("blocks", 8, (0.3, 0.3), (0.75, 1.50), 24)
TABLE_9 = TABLE_8 | {
    "size": L,
    "steps": 262_501,
    "stride": 4,
    "jitter": 0.8,
    "position": "learned",
    "block": ("exact", 1e-6, True),
    "final norm": True,
    "masking": BLOCKS,
    "decoder": ("separate", (384, 12, 1536, 16), "learned", ("exact", 1e-6, True), 1e-6, True, False),
    "mask tokens": (1, "zero", True),
    "first weights": "normal",
    "start lr": 1.3e-4,
    "lr": 4.17e-4,
    "end lr": 6.6e-7,
    "warmup": 90_000,
    "weight decay": (0.04, 0.4),
    "betas": (0.9, 0.999),
    "ema": (0.998, 0.998),
    "precision": "fp32",
    "loss": ("absolute", "masked", 1.0, "normed features"),
    "stages": [(0, 0, "t24")],
}
LADDER = [(0, 0, "h1"), *one_based(100_000, 6_000, range(1, 25))]
OF_TEACHER = [(step, frozen, target.replace("h", "t")) for step, frozen, target in LADDER]

VJEPA: dict[str, Row] = {
    "vjepa-l": TABLE_9,
    "vjepa-l-layerlock": TABLE_9 | {"stages": OF_TEACHER},
    "vjepa-l-layerlock-own": TABLE_9 | {"stages": LADDER, "ema": None},
    "vjepa-l-two-masks": TABLE_9
    | {
        "masking": [
            ("blocks", 8, (0.15, 0.15), (0.75, 1.50), 24),
            ("blocks", 2, (0.7, 0.7), (0.75, 1.50), 24),
        ],
        "mask tokens": (2, "zero", True),
    },
}

# --- VideoMAE: arXiv 2203.12602 and the published scripts; learning rates are per 256 clips --------------------------

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PLAIN = ("exact", 1e-12, False)
KINETICS = TABLE_8 | {
    "stride": 4,
    "flip": False,
    "area": (0.33, 0.75, 6 / 7, 7 / 6),
    "position": "sincos-1d",
    "pixels": IMAGENET,
    "block": PLAIN,
    "final norm": True,
    "masking": ("tube", 0.9),
    "weight decay": (0.05, 0.05),
    "betas": (0.9, 0.95),
    "loss": ("squared", "masked", 1.0, "normalized"),
    "mini warmup": None,
}
VIDEOMAE: dict[str, Row] = {
    "videomae-s": KINETICS
    | {
        "size": S,
        "batch": 32 * 32,
        "steps": 1_600 * 240_000 // 1024,
        "warmup": 40 * 240_000 // 1024,
        "start lr": 4e-6,
        "lr": 6e-4,
        "end lr": 4e-5,
        "decoder": ("separate", (192, 4, 768, 3), "sincos-1d", PLAIN, 1e-5, False, False),
    },
    "videomae-b": KINETICS
    | {
        "size": B,
        "batch": 64 * 32,
        "steps": 1_600 * 240_000 // 2048,
        "warmup": 40 * 240_000 // 2048 + 1,  # 4687.5
        "start lr": 8e-6,
        "lr": 1.2e-3,
        "end lr": 8e-5,
        "decoder": ("separate", (384, 4, 1536, 6), "sincos-1d", PLAIN, 1e-5, False, False),
    },
}

# --- blockwise learning: arXiv 2601.09040 ----------------------------------------------------------------------------

EPOCH = 9_537 / 64
DEIT = TABLE_8 | {
    "batch": 64,
    "stride": 4,
    "resolution": 128,
    "patch": (8, 16, 16),
    "position": "sincos",
    "pixels": IMAGENET,
    "block": ("exact", 1e-6, True),
    "final norm": True,
    "masking": ("tube", 0.9),
    "decoder": ("separate", (192, 4, 768, 3), "sincos", ("exact", 1e-6, True), 1e-6, True, False),
    "lr": 1e-4,
    "weight decay": (0.05, 0.05),
    "mini warmup": 0,
    "loss": ("squared", "masked", 1.0, "normalized"),
}


def at_once(*ends: int) -> Stages:
    """A loss after each of these blocks; a bar where gradients stop."""
    return [(0, 0, "+".join(f"pixels@{end}" for end in ends))]


def deit(size: tuple[int, ...], epochs: int) -> dict[str, Row]:
    """The rows of one size, by what follows its name."""
    steps = round(epochs * EPOCH)
    base = DEIT | {"size": size, "steps": steps, "warmup": round(0.05 * steps)}
    parts = ((0, 3), (3, 6), (6, 9), (9, 12))
    turns = {
        factor: [(round(i / 4 * round(epochs * EPOCH * factor)), below, "pixels") for i, (below, _) in enumerate(parts)]
        for factor in (1, 4)
    }
    return {
        "": base | {"stages": at_once(3, 6, 9, 12), "stops": True},
        "-k6": base | {"stages": at_once(2, 4, 6, 8, 10, 12), "stops": True},
        "-sequential": base
        | {
            "steps": round(4 * epochs * EPOCH),
            "stages": turns[4],
            "cycles": 4,
            "warmup": round(0.05 * round(4 * epochs * EPOCH) / 4),
        },
        "-sequential-matched": base | {"stages": turns[1], "cycles": 4, "warmup": round(0.05 * steps / 4)},
        "-end-to-end": base,
        "-deep-supervision": base | {"stages": at_once(3, 6, 9, 12)},
    }


BLOCKWISE: dict[str, Row] = {
    f"blockwise-deit-{name}{ending}": row
    for name, size, epochs in (("tiny", TI, 150), ("small", S, 300))
    for ending, row in deit(size, epochs).items()
}

ROWS: dict[str, Row] = FOUR_DS | ABLATIONS | CONVERGENCE | VJEPA | VIDEOMAE | BLOCKWISE
