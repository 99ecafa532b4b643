"""The ablations of the LayerLock paper (arXiv 2509.10156): Table 10's columns; Tables 3 to 7, Figure 3, row by row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from layerlock.config import Config
from layerlock.learn.plans import LiveLatents, Progressive
from layerlock.model.vit import Position
from layerlock.recipes.four_ds import COSINE, MINI_WARMUP, PIXELS, SAVES, SWITCH, table_8
from layerlock.recipes.record import Recipe, freezing


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of Table 10; what it leaves out is Table 8's. `steps` are examples over the batch."""

    size: str
    steps: int
    batch: int
    lr: float
    warmup: int
    weight_decay: float = 0.0

    def config(
        self,
        name: str,
        plan: Progressive | LiveLatents = PIXELS,
        *,
        position: Position = "rope",
        mini_warmup: int = MINI_WARMUP,
    ) -> Config:
        """A run of this column; `mini_warmup` in steps."""
        base = table_8(name, self.size, PIXELS)
        return replace(
            base,
            steps=self.steps,
            batch=self.batch,
            plan=plan,
            model=replace(base.model, position=position),
            optim=replace(
                base.optim,
                lr=self.lr,
                warmup=self.warmup / self.steps,
                mini_warmup=mini_warmup / self.steps,
                weight_decay=self.weight_decay,
            ),
        )


G_250M = Column(size="G", steps=122_070, batch=2048, lr=1e-4, warmup=5_000)
G_56M = Column(size="G", steps=437_500, batch=128, lr=1e-4, warmup=5_000)
H_100M = Column(size="H", steps=12_207, batch=8192, lr=1e-3, warmup=1_000)
B_50M = Column(size="B", steps=97_656, batch=512, lr=3e-4, warmup=2_000, weight_decay=1e-3)

G_250M_TIMES = freezing(G_250M.steps, start=25_000, interval=20_000, first=5, jump=4, last=17)
G_250M_LOCK = Progressive(target="frozen", **G_250M_TIMES)
G_250M_FREEZE = Progressive(target="pixels", **G_250M_TIMES)
G_56M_LOCK = Progressive(
    target="frozen", **freezing(G_56M.steps, start=19_000, interval=30_000, first=5, jump=4, last=44)
)
LIVE_LAYERS = (4, 8, 12, 16, 20, 24, 28)

FROM_ZERO = "Target layers are counted from zero: layer 4 is the output of the fifth block, so five blocks are frozen."
LEARNED = "Without RoPE, position embeddings are learned, as in the published 4DS checkpoints."

TABLE_3_DECIDED = (
    COSINE,
    "Batch 8096 is taken as 8192.",
    "The paper gives neither the layers nor the loss weight: here every fourth encoder block, weight 1. It mentions no"
    " stop-gradient, so gradients also flow into the targets (`--plan.stop-gradient` prevents this).",
    "The weight of the latent losses rises from 0 to its full value over the run, on a cosine schedule.",
)
TABLE_3 = (
    Recipe(
        config=H_100M.config("vit-h-100m"),
        about="ViT-H on 100 M clips, pixels alone",
        source="LayerLock Table 10; Table 3 row 1",
        reaches="SSv2 50.1, ScanNet 0.19",
        decided=TABLE_3_DECIDED[:2],
    ),
    Recipe(
        config=H_100M.config("vit-h-100m-latent-constant", LiveLatents(layers=LIVE_LAYERS)),
        about="ViT-H, predicts pixels and its own latents, nothing frozen: collapses",
        source="LayerLock Table 10; Table 3 row 2",
        reaches="SSv2 3.7, ScanNet 0.38",
        decided=TABLE_3_DECIDED[:3],
    ),
    Recipe(
        config=H_100M.config("vit-h-100m-latent-cosine", LiveLatents(layers=LIVE_LAYERS, ramp="cosine")),
        about="The same, with a latent loss weight that rises during training: collapses",
        source="LayerLock Table 10; Table 3 row 3",
        reaches="SSv2 5.6, ScanNet 0.37",
        decided=TABLE_3_DECIDED,
    ),
)

TABLE_4 = (
    Recipe(
        config=G_250M.config("vit-g-250m-no-rope", position="learned"),
        about="ViT-G on 250 M clips, pixels alone, learned positions",
        source="LayerLock Table 10; Table 4 row 1",
        reaches="SSv2 56.1, ScanNet 0.15",
        decided=(COSINE, LEARNED),
    ),
    Recipe(
        config=G_250M.config("vit-g-250m"),
        about="ViT-G on 250 M clips, pixels alone, 3D RoPE",
        source="LayerLock Table 10; Table 4 row 2",
        reaches="SSv2 58.9, ScanNet 0.13",
        decided=(COSINE,),
    ),
    Recipe(
        config=G_250M.config("vit-g-250m-layerlock", G_250M_LOCK),
        about="ViT-G on 250 M clips with LayerLock: 5, 9, 13, 17 blocks frozen from step 25k on",
        source="LayerLock Table 10; Table 4 row 3, Table 6 row 2",
        reaches="SSv2 60.1, ScanNet 0.13 (Table 4); SSv2 59.8, ScanNet 0.15 (Table 6)",
        decided=(COSINE, SWITCH, FROM_ZERO),
    ),
    Recipe(
        config=G_250M.config("vit-g-250m-rope-attention", position="rope-attention"),
        about="ViT-G on 250 M clips, pixels alone, RoPE inside attention",
        source="LayerLock Table 10; section 3.1",
        reaches="less than RoPE after the first norm",
        decided=(
            COSINE,
            "Decoding tokens are learned, plus a fixed sin-cos position embedding, which alone distinguishes them.",
        ),
    ),
)

ON_56M = (
    "The paper does not say which model Table 5 uses. Here it is the ViT-G on 56 M clips of Table 10: no other table"
    " can use that model, and 55.5 for a single target differs from the 60.1 of Table 4 for 250 M clips."
)
CAPPED = (
    "The last target, layer 44 counted from zero, would freeze a decoder block: only the 44 encoder blocks are frozen."
)
TABLE_5 = (
    Recipe(
        config=G_56M.config("vit-g-56m-layerlock", G_56M_LOCK),
        about="ViT-G on 56 M clips with LayerLock, the latest target alone",
        source="LayerLock Table 10; Table 5 row 1",
        reaches="SSv2 55.5, ScanNet 0.16",
        decided=(COSINE, SWITCH, FROM_ZERO, ON_56M, CAPPED),
    ),
    Recipe(
        config=G_56M.config("vit-g-56m-layerlock-multi", replace(G_56M_LOCK, keep_targets=True)),
        about="ViT-G on 56 M clips with LayerLock, pixels and all targets so far",
        source="LayerLock Table 10; Table 5 row 2",
        reaches="SSv2 55.4, ScanNet 0.16",
        decided=(COSINE, SWITCH, FROM_ZERO, ON_56M, CAPPED),
    ),
)

TABLE_6 = tuple(
    Recipe(
        config=G_250M.config(f"vit-g-250m-layerlock-warmup-{name}", G_250M_LOCK, mini_warmup=steps),
        about=f"ViT-G on 250 M clips with LayerLock, {steps or 'no'} steps of warm-up after a switch",
        source=f"LayerLock Table 10; Table 6 row {row}",
        reaches=reaches,
        decided=(COSINE, FROM_ZERO),
    )
    for name, steps, row, reaches in (
        ("none", 0, 1, "SSv2 58.7, ScanNet 0.14"),
        ("3k", 3_000, 3, "SSv2 59.4, ScanNet 0.15"),
    )
)

FIGURE_3_DECIDED = (
    COSINE,
    FROM_ZERO,
    "Each switch is followed by 1,000 steps of warm-up, although the target does not change.",
    "The paper does not say whether Figure 3 uses RoPE. Its baseline matches Table 4 without RoPE; both are recipes.",
)
FIGURE_3 = (
    Recipe(
        config=G_250M.config("vit-g-250m-freeze", G_250M_FREEZE),
        about="ViT-G on 250 M clips, progressive freezing with pixel targets",
        source="LayerLock Table 10; Figure 3",
        saves=SAVES,
        reaches="what its baseline without freezing does: SSv2 56.1 against 56.0, ScanNet 0.15 against 0.16",
        decided=FIGURE_3_DECIDED,
    ),
    Recipe(
        config=G_250M.config("vit-g-250m-freeze-no-rope", G_250M_FREEZE, position="learned"),
        about="The same with learned positions; its baseline is vit-g-250m-no-rope",
        source="LayerLock Table 10; Figure 3",
        saves=SAVES,
        reaches="what its baseline without freezing does: SSv2 56.1 against 56.0, ScanNet 0.15 against 0.16",
        decided=(*FIGURE_3_DECIDED, LEARNED),
    ),
)

# what follows the name, the schedule where it is not the first row's, SSv2, ScanNet
TABLE_7_ROWS: tuple[tuple[str, dict[str, Any], float, float], ...] = (
    ("", {}, 38.3, 0.24),
    ("-start-2k", {"start": 2_000}, 36.0, 0.25),
    ("-start-4k", {"start": 4_000}, 37.1, 0.25),
    ("-jump-3", {"first": 3, "jump": 3, "last": 12}, 36.0, 0.25),
    ("-jump-4", {"first": 4, "jump": 4, "last": 12}, 33.1, 0.26),
    ("-interval-2k", {"interval": 2_000, "first": 1, "jump": 1}, 40.0, 0.24),
    ("-interval-8k", {"interval": 8_000, "first": 4, "jump": 4}, 36.2, 0.25),
    ("-interval-16k", {"interval": 16_000, "first": 8, "jump": 8}, 28.5, 0.28),
)
TABLE_7_FIRST = {"start": 6_000, "interval": 4_000, "first": 2, "jump": 2, "last": 8}
INTO_DECODER = (
    "Targets up to layer 11, counted from zero, freeze all 12 blocks, including the decoder's 4; then only heads train."
)


def _table_7(row: int, ending: str, changes: dict[str, Any], ssv2: float, scannet: float) -> Recipe:
    """A row of Table 7: ViT-B on 50 M clips."""
    schedule = TABLE_7_FIRST | changes
    into_decoder = schedule["last"] == 12
    times = freezing(B_50M.steps, **schedule)
    plan = Progressive(target="frozen", freeze_decoder=into_decoder, **times)
    said = ", ".join(f"{name} {schedule[name]:,}" for name in ("start", "interval", "jump", "last"))
    return Recipe(
        config=B_50M.config(f"vit-b-50m-layerlock{ending}", plan),
        about=f"ViT-B on 50 M clips with LayerLock: {said}",
        source=f"LayerLock Table 10; Table 7 row {row}",
        reaches=f"SSv2 {ssv2}, ScanNet {scannet}",
        decided=(COSINE, SWITCH, FROM_ZERO, *([INTO_DECODER] if into_decoder else [])),
    )


TABLE_7 = tuple(_table_7(number, *row) for number, row in enumerate(TABLE_7_ROWS, 1))

RECIPES = (*TABLE_3, *TABLE_4, *TABLE_5, *TABLE_6, *FIGURE_3, *TABLE_7)
