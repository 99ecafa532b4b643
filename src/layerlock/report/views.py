"""The sections made of the preview clips: what was predicted for them, and what their features look like."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from markupsafe import Markup
from safetensors import safe_open
from torch import Tensor

from layerlock.config import Config
from layerlock.errors import one_line
from layerlock.learn.targets import PatchTarget, of_patches
from layerlock.model.encoder import HEADLINE, Encoder
from layerlock.model.patches import gather_tokens, patchify
from layerlock.report import pictures
from layerlock.report.markup import card, cards, note, paragraph, row, table
from layerlock.train.folder import RunFolder

CLIPS = 3
"""Clips shown."""
PREVIEWS = 8
"""Stages shown at most, first and last among them."""
DEPTHS = (0.25, 0.5, 0.75, HEADLINE, 1.0)

Preview = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Previews:
    """Previews to show, by step; `left_out` counts whole ones that are not shown, `broken` names unreadable files."""

    by_step: dict[int, Preview]
    left_out: int
    broken: tuple[str, ...]


def read_previews(folder: Path, config: Config) -> Previews:
    """At most `PREVIEWS` of a run's previews, evenly spread, in order; pixels in [0, 1]."""
    paths = sorted(folder.glob("step-*.safetensors"))
    shown = [paths[i] for i in pictures.pick_frames(len(paths), PREVIEWS)] if paths else []
    found: dict[int, Preview] = {}
    broken = []
    for path in shown:
        try:
            found[int(path.stem.split("-")[1])] = _read(path, config)
        except Exception as error:  # of a target that nobody thought of: the others are shown
            broken.append(f"{path.name} ({one_line(error)})")
    return Previews(by_step=found, left_out=len(paths) - len(shown), broken=tuple(broken))


def _read(path: Path, config: Config) -> Preview:
    with safe_open(path, framework="pt") as file:
        preview = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        stage = json.loads((file.metadata() or {})["stage"])
    if not {"video", "context"} <= set(preview):
        raise ValueError("it holds no clips")
    targets = [PatchTarget(tap["target"]["kind"]) for tap in stage["taps"] if "kind" in tap["target"]]
    for name in targets_of(preview):
        if of_patches(name):
            target = next(each for each in targets if each.name == name.partition("@")[0])
            preview |= _in_pixels(preview, name, target, config)
    return preview


def _in_pixels(preview: Preview, name: str, target: PatchTarget, config: Config) -> Preview:
    """Prediction and target in [0, 1]."""
    patches_bnp = patchify(preview["video"], config.model.patch)
    if (positions_bq := preview.get(f"positions/{name}")) is not None:
        patches_bnp = gather_tokens(patches_bnp, positions_bq)
    predicted = target.pixels(preview[f"predicted/{name}"], patches_bnp, config.model)
    return {f"predicted/{name}": predicted, f"target/{name}": patches_bnp.float() / 255}


def targets_of(preview: Preview) -> list[str]:
    """Names of the targets in a preview: pixels first, then by layer."""
    names = [name.removeprefix("predicted/") for name in preview if name.startswith("predicted/")]
    return sorted(names, key=lambda name: (not of_patches(name), len(name), name))


def explained(preview: Preview, name: str) -> float:
    """Share of the target's variance over clips and tokens that the prediction explains; NaN for a constant target, and
    for a prediction of another shape.
    """
    if preview[f"target/{name}"].shape != preview[f"predicted/{name}"].shape:
        return float("nan")
    target, predicted = preview[f"target/{name}"].double(), preview[f"predicted/{name}"].double()
    variance = target.flatten(0, -2).var(dim=0, unbiased=False).mean()
    return float(1 - (predicted - target).square().mean() / variance) if variance > 0 else float("nan")


class Sheet:
    """Clips side by side, each a column of labelled strips of frames. In alt texts `{n}` is the clip's number."""

    def __init__(self, clips: int, config: Config) -> None:
        self.config = config
        self.columns: list[list[Markup]] = [[] for _ in range(clips)]

    def photos(self, label: str, alt: str, video_btchw: Tensor) -> None:
        """A row of frames as they are."""
        frames = pictures.pick_frames(video_btchw.shape[1])
        for n, column in enumerate(self.columns):
            column.append(row(label, pictures.photo_strip(video_btchw[n, frames]), alt.replace("{n}", str(n + 1))))

    def tokens(self, label: str, alt: str, colours_bn3: Tensor) -> None:
        """A row of tokens in colours, at the times of the frames of the other rows."""
        tokens = pictures.token_video(colours_bn3, self.config.grid)
        times = [frame // self.config.model.patch[0] for frame in pictures.pick_frames(self.config.clip.frames)]
        for n, column in enumerate(self.columns):
            column.append(row(label, pictures.token_strip(tokens[n, times]), alt.replace("{n}", str(n + 1)), "tokens"))

    def html(self) -> Markup:
        """All of it."""
        return cards((card(*column) for column in self.columns), "clips")


def prediction_section(previews: Previews, config: Config) -> list[Markup]:
    """Input, masked input, and what was predicted at the end of each stage."""
    if not previews.by_step:
        nothing = "No preview was saved, so there is nothing to show: one is written at the end of each stage."
        return [note(nothing), *_broken(previews)]
    newest = list(previews.by_step.values())[-1]
    sheet = Sheet(min(CLIPS, len(newest["video"])), config)
    _inputs(sheet, newest)
    colours: Tensor | None = None
    undrawn = []
    for step, preview in previews.by_step.items():
        for name in targets_of(preview) if preview is newest else targets_of(preview)[-1:]:
            try:
                if of_patches(name):
                    _reconstruction(sheet, preview, name, step)
                else:
                    colours = _latents(sheet, preview, name, step, colours)
            except Exception as error:  # of a target that nobody thought of: the others are shown
                undrawn.append(note(f"Step {step:,}: {name} could not be drawn ({one_line(error)})."))
    more = [note(f"{previews.left_out} more stages are in previews/.")] if previews.left_out else []
    parts = [paragraph(*_what_is_shown(sheet, newest)), sheet.html(), *more]
    return [*parts, *undrawn, *_broken(previews), *_explained_table(previews)]


def _what_is_shown(sheet: Sheet, preview: Preview) -> list[str]:
    config = sheet.config
    frames = len(pictures.pick_frames(config.clip.frames))
    said = [
        f"{len(sheet.columns)} of the clips the run began with, {frames} frames of each.",
        f"The encoder saw {config.context_tokens / config.tokens:.0%} of the patches.",
        "Pixel targets are shown as the predicted clip; latent targets as colours: red, green and blue are the first"
        " three principal components of the target over these clips, and the prediction goes through the same map.",
        "An even, saturated picture is a prediction that lies outside the range of the target.",
    ]
    if len(targets_of(preview)) > 1:
        said.append("Of several targets the deepest is shown; at the end of the run, all are.")
    if any(name.startswith("positions/") for name in preview):
        said.append("Patches that are not predicted are grey.")
    return said


def _broken(previews: Previews) -> list[Markup]:
    return [note(f"Not readable: {', '.join(previews.broken)}.")] if previews.broken else []


def _explained_table(previews: Previews) -> list[Markup]:
    rows = [
        (f"{step:,}", name, f"{explained(preview, name):.3f}")
        for step, preview in previews.by_step.items()
        for name in targets_of(preview)
    ]
    what = (
        "Share of the target's variance that the prediction explains, on all preview clips, which are training clips"
        " (1: perfect; 0 and below: no better than the mean)."
    )
    return [paragraph(what), table(("step", "target", "explained"), rows, words=(1,))]


def _inputs(sheet: Sheet, preview: Preview) -> None:
    video_btchw = pictures.as_bytes(preview["video"])
    masked = pictures.masked_input(video_btchw, preview["context"], sheet.config.grid, sheet.config.model.patch)
    sheet.photos("input", "Frames of clip {n}", video_btchw)
    sheet.photos("what the encoder sees", "Clip {n}, all but the context patches grey", masked)


def _reconstruction(sheet: Sheet, preview: Preview, name: str, step: int) -> None:
    """Adds a row of pixels; patches that are not predicted are those of the clip."""
    patch, predicted = sheet.config.model.patch, preview[f"predicted/{name}"]
    positions_bq = preview.get(f"positions/{name}")
    if positions_bq is not None:
        patches = patchify(preview["video"], patch).float() / 255
        predicted = patches.scatter(1, positions_bq[..., None].expand_as(predicted), predicted.to(patches))
    video = pictures.reconstruction(predicted, sheet.config.grid, patch)
    what = "reconstruction" + name.removeprefix("pixels").replace("@", " after block ")
    sheet.photos(f"step {step:,}: {what}", f"Clip {{n}} as reconstructed at step {step}", video)


def _latents(sheet: Sheet, preview: Preview, name: str, step: int, follow: Tensor | None) -> Tensor:
    """Adds the rows of a latent target; returns the target's colours, which the next one's follow."""
    clips = len(sheet.columns)
    target, predicted = (preview[f"{part}/{name}"][:clips] for part in ("target", "predicted"))
    positions_bq = preview.get(f"positions/{name}")
    follow = follow if follow is not None and follow.shape[:2] == target.shape[:2] else None
    palette = pictures.fit_palette(target, follow)
    for part, features in (("target", target), ("predicted", predicted)):
        painted = palette.paint(features)
        if positions_bq is not None:
            painted = pictures.place(painted, positions_bq[:clips], sheet.config.tokens)
        sheet.tokens(f"step {step:,}: {name}, {part}", f"Clip {{n}}, {name} {part} at step {step}, in colours", painted)
    return palette.paint(target)


def open_encoder(folder: RunFolder) -> Encoder | str:
    """The run's encoder on the best device there is; where there is none, why, in words."""
    if not folder.encoder.is_dir():
        return "There is no encoder in the run folder yet: it is exported when a run ends or is stopped."
    try:
        return Encoder.from_pretrained(folder.encoder, device="cuda" if torch.cuda.is_available() else "cpu")
    except Exception as error:
        return f"The run's encoder cannot be used: {one_line(error)}"


@torch.no_grad()
def feature_section(previews: Previews, encoder: Encoder | str, config: Config) -> list[Markup]:
    """Features of whole clips at several depths, in PCA colours of each depth."""
    if isinstance(encoder, str):
        return [note(encoder)]
    if not previews.by_step:
        return [note("No preview was saved, so there are no clips to show features of.")]
    newest = list(previews.by_step.values())[-1]
    video_btchw = pictures.as_bytes(newest["video"][:CLIPS])
    depths = sorted({0, *(encoder.at_depth(fraction) for fraction in DEPTHS)})
    features = [x.float().cpu() for x in encoder.forward_intermediates(video_btchw, depths)]
    sheet = Sheet(len(video_btchw), config)
    sheet.photos("input", "Frames of clip {n}", video_btchw)
    colours: Tensor | None = None
    for depth, x_bnd in zip(depths, features, strict=True):
        label = "patch projection" if depth == 0 else f"block {depth} of {encoder.depth}"
        label += " (decodes in training)" if depth > config.encoder_depth else ""
        colours = pictures.fit_palette(x_bnd, colours).paint(x_bnd)
        sheet.tokens(label, f"Features of clip {{n}} after {label}, in colours", colours)
    head = (
        "The exported encoder on the same clips, nothing masked. At each depth red, green and blue are the first three"
        " principal components of the features over the clips shown; from depth to depth only their signs are matched."
    )
    return [paragraph(head), sheet.html()]
