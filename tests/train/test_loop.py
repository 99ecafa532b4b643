"""Whole runs of twelve updates."""

from __future__ import annotations

import copy
import json
import math
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import DECODING, GRID, LOCK, MASKING, MODEL, PIXEL_STAGE, Noise, config, lock_stage, run_config
from torch.nn import functional as F
from video_files import write_video

import layerlock
from layerlock.config import OptimConfig
from layerlock.data import batches, crop_and_flip
from layerlock.data.decode.video import UnreadableVideo, VideoInfo
from layerlock.encoders.run import TENSORS
from layerlock.errors import ConfigError, LayerlockError
from layerlock.learn.learner import Learner, StepFigures
from layerlock.learn.plan import FixedPlan, Stage, Switch, SwitchLog, Tap
from layerlock.learn.plans import LiveLatents, Progressive
from layerlock.learn.targets import FeatureTarget
from layerlock.model.encoder import Encoder
from layerlock.model.patches import gather_tokens, patchify
from layerlock.model.position import rotate
from layerlock.model.separate import SeparateDecoding
from layerlock.train import checkpoint, loop
from layerlock.train.loop import Run, train
from layerlock.train.monitors import CollapseMonitor


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (out / "metrics.jsonl").read_text().splitlines()]


def learned(out: Path) -> list[dict[str, Any]]:
    """The metrics without what depends on the machine and the moment."""
    return [{name: value for name, value in line.items() if name != "timing"} for line in lines(out)]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "encoder" / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.usefixtures("noise")
def test_a_run_leaves_its_folder_behind(tmp_path: Path) -> None:
    outcome = train(config(tmp_path), quiet=True)
    assert (outcome.folder, outcome.step, outcome.signal) == (tmp_path, 12, None)
    assert {p.name for p in tmp_path.iterdir()} == {
        "config.json",
        "plan.json",
        "metrics.jsonl",
        "events.log",
        "checkpoints",
        "previews",
        "encoder",
    }
    found = lines(tmp_path)
    assert [line["step"] for line in found] == list(range(1, 13))
    assert [line["targets"] for line in found] == ["pixels"] * 4 + ["h1"] * 3 + ["h2"] * 5
    assert [line["frozen"] for line in found] == [0] * 4 + [1] * 3 + [2] * 5
    assert all(len(line["weight_norms"]) == 7 for line in found)
    assert all(line["loss"] == sum(line["losses"].values()) for line in found)
    assert all({"effective_rank", "token_cosine", "target_variance", "lr", "timing"} <= line.keys() for line in found)
    assert all({"clips_per_s", "data_wait", "memory_bytes"} <= line["timing"].keys() for line in found)
    events = (tmp_path / "events.log").read_text()
    assert "step 4 switch: 1 blocks frozen, target h1" in events
    assert "step 7 switch: 2 blocks frozen, target h2" in events
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000008", "step-00000012"]
    encoder = layerlock.load(tmp_path)
    assert isinstance(encoder, Encoder)
    state = checkpoint.read(tmp_path / "checkpoints" / "step-00000012").tensors
    assert all(torch.equal(value, state[f"model/vit.{name}"]) for name, value in encoder.vit.state_dict().items())


@pytest.mark.usefixtures("noise")
def test_without_a_switch_the_machinery_changes_no_bit_of_the_loss(tmp_path: Path) -> None:
    optim = OptimConfig(lr=1e-3, warmup=0.5, weight_decay=0.05, betas=(0.9, 0.95))
    settings = config(tmp_path, plan=Progressive(), steps=6, optim=optim, seed=3)
    train(settings, quiet=True)

    start = Learner(MODEL, GRID, MASKING, DECODING, PIXEL_STAGE, seed=3)
    vit, head = copy.deepcopy(start.vit), copy.deepcopy(start.heads["pixels_at_4"])
    parameters = [*vit.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim == 2], "weight_decay": 0.05},
            {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.95),
        fused=True,
    )
    losses = []
    for step, batch in enumerate(batches(Noise(), batch=4, start=0, stop=6, workers=0)):
        patches = patchify(crop_and_flip(batch), MODEL.patch)
        context = MASKING.draw(3, batch.index_b, GRID)[0].context_bk
        table = vit.rotation()
        assert table is not None
        here = table.at(context)
        x = vit.embed(gather_tokens(patches, context).float() / 255)
        for block in vit.blocks[:4]:
            x = block(x, here)
        y = torch.cat([rotate(torch.ones(36, 24), table).expand(4, 36, 24), x], dim=1)
        for block in vit.blocks[4:]:
            y = block(y, table.joined(here, 4))
        loss = F.mse_loss(head(y[:, :36]), patches.float() / 255)
        loss.backward()
        rate = 1e-3 * (step + 1) / 3 if step < 3 else 1e-3 * 0.5 * (1 + math.cos(math.pi * (step - 3) / 3))
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert [line["loss"] for line in lines(tmp_path)] == losses
    assert same(weights(tmp_path), vit.state_dict())


@pytest.mark.usefixtures("noise")
def test_a_run_repeats_bit_for_bit_and_differs_by_seed(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(config(tmp_path / name, seed=seed), quiet=True)
    assert learned(tmp_path / "a") == learned(tmp_path / "b")
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert learned(tmp_path / "a") != learned(tmp_path / "c")


@pytest.mark.usefixtures("noise")
@pytest.mark.parametrize("stop", [2, 4, 7, 9])
@pytest.mark.parametrize("heads", ["drawn", "solved"])
def test_a_run_cut_short_and_resumed_is_the_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int, heads: str
) -> None:
    """Losses not yet logged, a switch just done, scales of targets and monitors that remember are all in the
    checkpoint; heads are solved on the batches after a switch, whichever call goes through it.
    """
    plan = replace(LOCK, standardized=True, patch_weight=0.5) if heads == "solved" else LOCK
    run: dict[str, Any] = {"run": run_config(log_every=5, checkpoint_every=stop), "plan": plan, "heads": heads}
    train(config(tmp_path / "whole", **run), quiet=True)
    assert ("h2_at_4 explains" in (tmp_path / "whole" / "events.log").read_text()) == (heads == "solved")
    update = Run.update

    def cut(self: Run, *args: Any, **kwargs: Any) -> Any:
        if self.step == stop + 2:
            raise KeyboardInterrupt
        return update(self, *args, **kwargs)

    monkeypatch.setattr(Run, "update", cut)
    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path / "cut", **run), quiet=True)
    monkeypatch.setattr(Run, "update", update)
    train(config(tmp_path / "cut", **run), resume=True, quiet=True)
    assert learned(tmp_path / "cut") == learned(tmp_path / "whole")
    assert same(weights(tmp_path / "cut"), weights(tmp_path / "whole"))
    states = [checkpoint.read(tmp_path / name / "checkpoints" / "step-00000012") for name in ("cut", "whole")]
    assert states[0].monitor == states[1].monitor
    assert "variance of target h1" in states[0].monitor["best"], "seen before the cut"
    assert states[0].log == states[1].log


@pytest.mark.usefixtures("noise")
def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    train(config(tmp_path), quiet=True)
    before, encoder = learned(tmp_path), weights(tmp_path)
    assert train(config(tmp_path), resume=True, quiet=True).step == 12
    assert learned(tmp_path) == before
    assert same(weights(tmp_path), encoder)


@pytest.mark.usefixtures("noise")
def test_accumulating_gradients_gives_the_same_run_up_to_rounding(tmp_path: Path) -> None:
    for name, parts in (("whole", 1), ("parts", 4)):
        optim = OptimConfig(lr=1e-3, warmup=0.2, mini_warmup=0.1, accumulate=parts)
        train(config(tmp_path / name, optim=optim), quiet=True)
    for a, b in zip(learned(tmp_path / "whole"), learned(tmp_path / "parts"), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)
    assert learned(tmp_path / "whole")[0]["loss"] == pytest.approx(learned(tmp_path / "parts")[0]["loss"], rel=1e-6)


@pytest.mark.usefixtures("noise")
def test_clipping_bounds_the_gradient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []
    step = torch.optim.AdamW.step

    def watch(self: torch.optim.AdamW, *args: Any) -> Any:
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(float(torch.stack([g.square().sum() for g in grads if g is not None]).sum().sqrt()))
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", watch)
    for name, limit in (("free", None), ("clipped", 0.01)):
        optim = OptimConfig(lr=1e-3, warmup=0.2, clip_norm=limit)
        train(config(tmp_path / name, steps=3, plan=Progressive(), optim=optim), quiet=True)
    assert min(norms[:3]) > 0.01
    assert norms[3:] == pytest.approx([0.01] * 3, rel=1e-3)


@pytest.mark.usefixtures("noise")
def test_weights_can_come_from_a_run_or_an_encoder_and_the_rest_starts_anew(tmp_path: Path) -> None:
    train(config(tmp_path / "first"), quiet=True)
    for number, start in enumerate(("first", "first/encoder")):
        made = config(tmp_path / f"next{number}", init_from=str(tmp_path / start), seed=8)
        learner = loop.build_learner(made, torch.device("cpu"), PIXEL_STAGE, made.init_from)
        assert same(learner.vit.state_dict(), weights(tmp_path / "first"))
        train(made, quiet=True)
    assert learned(tmp_path / "next0") == learned(tmp_path / "next1")
    assert learned(tmp_path / "next0")[0]["lr"] == learned(tmp_path / "first")[0]["lr"]


@pytest.mark.usefixtures("noise")
def test_weights_of_another_shape_are_refused_and_no_run_is_begun(tmp_path: Path) -> None:
    train(config(tmp_path / "first", steps=3, plan=Progressive()), quiet=True)
    wide = config(tmp_path / "next", model=replace(MODEL, width=48), init_from=str(tmp_path / "first"))
    with pytest.raises(LayerlockError, match=r"model\.width"):
        train(wide, quiet=True)
    with pytest.raises(LayerlockError, match="is no encoder"):
        train(replace(wide, init_from=str(tmp_path / "nowhere")), quiet=True)
    assert not (tmp_path / "next").exists(), "the call with the mistake mended would have to say --overwrite"


@pytest.mark.parametrize("log_every", [1, 5])
def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noise: Noise, log_every: int
) -> None:
    mse = F.mse_loss
    calls: list[None] = []

    def bad(*args: Any) -> torch.Tensor:
        calls.append(None)
        return mse(*args) * (math.nan if len(calls) == 6 else 1.0)

    monkeypatch.setattr(F, "mse_loss", bad)
    with pytest.raises(LayerlockError) as error:
        train(config(tmp_path, plan=Progressive(), run=run_config(log_every=log_every, threads=1)), quiet=True)
    text = str(error.value)
    assert "step 6" in text
    assert all(f"noise/{index}" in text for index in range(20, 24))
    assert "noise/19" not in text
    assert "noise/24" not in text
    good = tmp_path / "checkpoints" / "step-00000004"
    assert str(good) in text
    assert text in (tmp_path / "events.log").read_text()
    assert checkpoint.latest(tmp_path / "checkpoints") == good
    assert not (tmp_path / "encoder").exists()


@pytest.mark.usefixtures("noise")
@pytest.mark.parametrize("moment", ["export", "save", "metrics"])
def test_a_disk_that_fills_up_is_told_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    from test_checkpoint import full_disk

    name = "write_line" if moment == "metrics" else moment
    before = getattr(Run, name)

    def fails(self: Run, *args: Any) -> Any:
        if self.step < 7:
            return before(self, *args)
        with full_disk(size=16 if moment == "metrics" else 4096):
            return before(self, *args)

    monkeypatch.setattr(Run, name, fails)
    with pytest.raises(LayerlockError, match=r"last good checkpoint: .*step-000000"):
        train(config(tmp_path), quiet=True)
    newest = checkpoint.latest(tmp_path / "checkpoints")
    assert newest is not None
    checkpoint.read(newest)


@pytest.mark.usefixtures("noise")
def test_a_plan_of_ones_own_goes_in_as_an_argument(tmp_path: Path) -> None:
    class Alternating:
        """Twelve steps; from the fifth on h1, two steps after that switch h1 and h3 live."""

        def stage(self, step: int, log: SwitchLog) -> Stage:
            if step < 5:
                return PIXEL_STAGE
            if log and step >= log[0].step + 2:
                live = Tap(depth=4, target=FeatureTarget((3,), live=True))
                return replace(lock_stage(1), taps=(*lock_stage(1).taps, live))
            return lock_stage(1)

    outcome = layerlock.pretrain(config(tmp_path), Alternating(), quiet=True)
    assert outcome.step == 12
    assert [line["targets"] for line in lines(tmp_path)] == ["pixels"] * 5 + ["h1"] * 2 + ["h1+h3"] * 5
    state = checkpoint.read(tmp_path / "checkpoints" / "step-00000012")
    assert [switch.step for switch in state.log] == [5, 7]


def test_a_plan_that_cannot_be_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    plan = FixedPlan(((0, PIXEL_STAGE), (3, lock_stage(2, frozen=1)), (5, Stage(frozen=6, last=6, taps=()))))
    with pytest.raises(ConfigError) as error:
        train(config(tmp_path / "run"), plan, quiet=True)
    assert [problem[:7] for problem in error.value.problems] == ["step 3:", "step 5:", "step 5:"]
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("noise")
@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (1, "warning: head pixels_at_4 keeps the weights that it was drawn with: 14 tokens are too few for 24 inputs"),
        (2, "head: pixels_at_4 nothing held out to tell what it explains; solved on 28 tokens"),
    ],
)
def test_a_run_too_short_to_solve_a_head_says_so_and_trains(
    tmp_path: Path, batch: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    masking, plan = replace(MASKING, predict=0.5), Progressive(masked=True)
    train(config(tmp_path, steps=1, batch=batch, masking=masking, plan=plan, heads="solved"), quiet=batch == 2)
    assert f"step 0 {words}" in (tmp_path / "events.log").read_text()
    assert (words.removeprefix("warning: ") in capsys.readouterr().out) == (batch == 1)
    assert [line["step"] for line in lines(tmp_path)] == [1]


@pytest.mark.usefixtures("noise")
def test_bfloat16_trains_on_a_cpu_and_its_frozen_weights_stay(tmp_path: Path) -> None:
    train(config(tmp_path, run=run_config(precision="bf16", checkpoint_every=1, keep=12)), quiet=True)
    assert all(math.isfinite(line["loss"]) for line in lines(tmp_path))
    states = [checkpoint.read(tmp_path / "checkpoints" / f"step-{n:08d}").tensors for n in (5, 12)]
    for name in ("model/vit.embed.weight", "model/vit.blocks.0.fc1.weight", "model/vit.blocks.0.norm1.weight"):
        assert torch.equal(states[0][name], states[1][name])
        assert states[0][name].dtype == torch.bfloat16
    assert layerlock.load(tmp_path)(torch.zeros(1, 8, 3, 24, 24)).isfinite().all()


def test_files_that_could_not_be_used_are_named_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        loop, "open_source", lambda *args, **kwargs: Noise(skips=9, rejected=(("text.mp4", "no video"),))
    )
    train(config(tmp_path), quiet=True)
    events = (tmp_path / "events.log").read_text()
    assert events.count("skipped: text.mp4: no video") == 1
    assert events.count("skipped: broken.mp4: it is empty") == 1
    assert [line["skipped"] for line in lines(tmp_path)] == [1] * 2 + [2] * 10


@pytest.mark.usefixtures("noise")
def test_warnings_of_a_collapse_go_to_the_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = CollapseMonitor.figures

    def collapsed(self: CollapseMonitor, step: StepFigures) -> dict[str, Any]:
        found = figures(self, step)
        return found | {"effective_rank": 1.0} if found and "h2" in found["target_variance"] else found

    monkeypatch.setattr(CollapseMonitor, "figures", collapsed)
    train(config(tmp_path), quiet=True)
    events = (tmp_path / "events.log").read_text()
    assert "step 8 warning: possible collapse: effective rank of features is 1," in events
    assert events.count("effective rank") == 1


@pytest.mark.usefixtures("noise")
def test_the_pixel_loss_falls(tmp_path: Path) -> None:
    train(config(tmp_path, plan=Progressive(), steps=40, optim=OptimConfig(lr=3e-3)), quiet=True)
    losses = [line["loss"] for line in lines(tmp_path)]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_lines_off_a_terminal_say_stage_loss_and_time_left(
    tmp_path: Path, noise: Noise, capsys: pytest.CaptureFixture[str]
) -> None:
    train(config(tmp_path))
    said = capsys.readouterr().out
    assert "switch to 1 frozen blocks, target h1" in said
    assert "loss pixels" in said
    assert "clips/s" in said
    assert "wait" in said
    assert "left" in said
    assert "\x1b" not in said


@pytest.mark.usefixtures("noise")
def test_a_plan_that_reads_the_log_is_resumed_in_the_stage_it_was_in(tmp_path: Path) -> None:
    class Counting:
        """Freezes one more block three steps after each switch, the first after three steps."""

        def stage(self, step: int, log: tuple[Switch, ...]) -> Stage:
            since = step - (log[-1].step if log else 0)
            frozen = min(len(log) + (1 if since >= 3 else 0), 2)
            return Stage(frozen=frozen, last=6, taps=(Tap(depth=4),))

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(config(whole, plan=Progressive(), run=run_config(checkpoint_every=1, keep=20)), Counting(), quiet=True)
    for step in (3, 4, 7):
        shutil.rmtree(cut, ignore_errors=True)
        shutil.copytree(whole, cut)
        for place in (cut / "checkpoints").glob("step-*"):
            if int(place.name[5:]) > step:
                shutil.rmtree(place)
        again = config(cut, plan=Progressive(), run=run_config(checkpoint_every=1, keep=20))
        train(again, Counting(), resume=True, quiet=True)
        assert learned(cut) == learned(whole)
    with pytest.raises(LayerlockError, match="another plan"):
        train(config(cut, plan=Progressive(), run=run_config(checkpoint_every=1, keep=20)), resume=True, quiet=True)


def test_a_run_on_a_list_that_stands_elsewhere_is_resumed_where_its_videos_were_moved(tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "a.mp4", frames=12, size=(32, 32))
    (tmp_path / "list.txt").write_text("a.mp4\n")
    where = {"data": str(tmp_path / "list.txt"), "data_root": str(tmp_path / "videos")}
    train(config(tmp_path / "whole", **where), quiet=True)
    train(config(tmp_path / "cut", **where), quiet=True)
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step-00000012")
    (tmp_path / "videos").rename(tmp_path / "moved")
    train(config(tmp_path / "cut", **where | {"data_root": str(tmp_path / "moved")}), resume=True, quiet=True)
    assert learned(tmp_path / "cut") == learned(tmp_path / "whole")
    assert same(weights(tmp_path / "cut"), weights(tmp_path / "whole"))
    assert not (tmp_path / "cut" / "events.log").read_text().count("cannot be opened")


def test_a_run_is_not_resumed_on_other_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "open_source", lambda *args, **kwargs: Noise())
    train(config(tmp_path), quiet=True)
    monkeypatch.setattr(loop, "open_source", lambda *args, **kwargs: Noise(fingerprint="others"))
    with pytest.raises(LayerlockError, match="not those that this run was trained on"):
        train(config(tmp_path), resume=True, quiet=True)


def test_a_video_lost_between_two_calls_is_skipped_and_the_run_goes_on(tmp_path: Path) -> None:
    for number in range(6):
        write_video(tmp_path / "data" / f"{number}.mp4", frames=20, size=(32, 48))
    settings = config(tmp_path / "run", data=str(tmp_path / "data"), plan=Progressive(), run=run_config(store_gb=0.0))
    train(settings, quiet=True)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000012")
    (tmp_path / "data" / "2.mp4").unlink()
    (tmp_path / "data" / "2b.mp4").write_bytes((tmp_path / "data" / "1.mp4").read_bytes())
    train(settings, resume=True, quiet=True)
    assert lines(tmp_path / "run")[-1]["step"] == 12
    events = (tmp_path / "run" / "events.log").read_text()
    assert events.count("2.mp4: it cannot be opened: No such file") == 1
    assert "2b.mp4" not in events


def test_a_run_that_cannot_begin_leaves_the_one_before_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "data" / "a.mp4", frames=20, size=(32, 48))
    settings = config(tmp_path / "run", data=str(tmp_path / "data"), plan=Progressive())
    train(settings, quiet=True)
    before = sorted(path.name for path in (tmp_path / "run").iterdir())
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    with pytest.raises(LayerlockError, match="torchcodec cannot be used here"):
        train(replace(settings, clip=replace(settings.clip, backend="torchcodec")), overwrite=True, quiet=True)
    monkeypatch.setattr("layerlock.data.folder.read_clips", lost)
    with pytest.raises(LayerlockError, match="1 video in a row could not be used"):
        train(replace(settings, run=run_config(store_gb=0.0)), overwrite=True, quiet=True)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before


def lost(video: VideoInfo, *_: Any, **__: Any) -> None:
    raise UnreadableVideo(video.path, "it is gone")


SEPARATE = SeparateDecoding(width=12, depth=1, heads=2, mlp=24)


@pytest.mark.usefixtures("noise")
@pytest.mark.parametrize(
    "name",
    ["vit.blocks.3.fc1.weight", "heads.h2_at_4.bias", "decoders.at_6.blocks.0.fc1.weight", "decoders.at_6.token"],
)
def test_weights_that_are_not_finite_are_never_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    update = loop.Run.update

    def poisoned(self: loop.Run, *args: Any, **kwargs: Any) -> StepFigures:
        figures = update(self, *args, **kwargs)
        if self.step == 9:  # after the last update before a checkpoint: no loss and no gradient tells of it yet
            with torch.no_grad():
                dict(self.learner.named_parameters())[name].view(-1)[0] = torch.inf
        return figures

    monkeypatch.setattr(loop.Run, "update", poisoned)
    message = rf"weights are not finite after step 10: {re.escape(name)}.*step-00000008"
    changes = {"decoder": SEPARATE, "plan": Progressive()} if "decoder" in name else {"plan": LOCK}
    with pytest.raises(LayerlockError, match=message):
        train(config(tmp_path, run=run_config(checkpoint_every=2, log_every=100), **changes), quiet=True)
    assert checkpoint.latest(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "step-00000008"


@pytest.mark.usefixtures("noise")
def test_a_finished_run_resumed_keeps_its_only_checkpoint(tmp_path: Path) -> None:
    train(config(tmp_path, run=run_config(keep=1)), quiet=True)
    before = (tmp_path / "checkpoints" / "step-00000012" / TENSORS).stat().st_mtime_ns
    train(config(tmp_path, run=run_config(keep=1)), resume=True, quiet=True)
    assert (tmp_path / "checkpoints" / "step-00000012" / TENSORS).stat().st_mtime_ns == before


@pytest.mark.usefixtures("noise")
@pytest.mark.parametrize("log_every", [1, 5])
def test_a_gradient_that_is_not_finite_stops_the_run_though_its_loss_is_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_every: int
) -> None:
    """In a decoder's last bias alone: the update leaves the backbone as it is."""
    update = Run.update

    def spoilt(self: Run, *args: Any, **kwargs: Any) -> StepFigures:
        if self.step == 5:
            self.learner.decoders["at_6"].norm.bias.register_hook(lambda gradient: gradient * math.nan)
        return update(self, *args, **kwargs)

    monkeypatch.setattr(Run, "update", spoilt)
    made = config(tmp_path, decoder=SEPARATE, plan=Progressive(), run=run_config(log_every=log_every))
    with pytest.raises(LayerlockError, match=r"the gradient of step 6 is not finite.*step-00000004"):
        train(made, quiet=True)
    assert checkpoint.latest(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "step-00000004"


@pytest.mark.usefixtures("noise")
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_logged_loss_is_what_is_minimised_and_each_loss_stands_under_its_name(
    tmp_path: Path, accumulate: int
) -> None:
    plan = LiveLatents(layers=(1, 2), weight=3.0, ramp="cosine")
    optim = OptimConfig(lr=1e-3, accumulate=accumulate)
    train(config(tmp_path / "each", plan=plan, optim=optim), quiet=True)
    train(config(tmp_path / "some", plan=plan, optim=optim, run=run_config(log_every=4)), quiet=True)
    factors = plan.build(12, 4, 6)
    objectives = []
    for step, line in enumerate(lines(tmp_path / "each")):
        weights = factors.weights(step)
        objectives.append(sum(weights.get(name, 1.0) * loss for name, loss in line["losses"].items()))
        assert line["loss"] == pytest.approx(objectives[-1], rel=1e-6)
    for number, line in enumerate(lines(tmp_path / "some")):
        assert line["loss"] == pytest.approx(sum(objectives[4 * number : 4 * number + 4]) / 4, rel=1e-6)
    assert abs(lines(tmp_path / "each")[0]["loss"] - sum(lines(tmp_path / "each")[0]["losses"].values())) > 1e-3


@pytest.mark.usefixtures("noise")
@pytest.mark.parametrize("limit", [None, 0.01])
def test_the_norm_of_the_gradients_is_logged_as_it_is_before_they_are_clipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: float | None
) -> None:
    norms: list[float] = []
    step = loop.Learner.step

    def watch(self: Learner, *args: Any, **kwargs: Any) -> StepFigures:
        figures = step(self, *args, **kwargs)
        norms.append(
            float(sum(p.grad.double().square().sum() for p in self.live().values() if p.grad is not None)) ** 0.5
        )
        return figures

    monkeypatch.setattr(Learner, "step", watch)
    optim = OptimConfig(lr=1e-3, clip_norm=limit)
    train(config(tmp_path, optim=optim, run=run_config(log_every=2, threads=1)), quiet=True)
    logged = {line["step"]: line["gradient_norm"] for line in lines(tmp_path)}
    assert logged[2] == pytest.approx((norms[0] + norms[1]) / 2, rel=1e-5)
    assert logged[12] == pytest.approx((norms[10] + norms[11]) / 2, rel=1e-5)


@pytest.mark.usefixtures("noise")
@pytest.mark.parametrize("fault", ["target", "disk", "memory", "collapse"])
def test_no_picture_and_no_figure_beside_the_losses_can_end_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    from test_checkpoint import full_disk

    train(config(tmp_path / "whole"), quiet=True)
    preview, figures = loop.save_preview, CollapseMonitor.figures

    def fails(*args: Any) -> None:
        if fault == "target":
            raise ValueError("no picture of\nsuch a target")
        if fault == "memory":
            raise torch.OutOfMemoryError("no room")
        with full_disk():
            preview(*args)

    def no_figures(*args: Any) -> Any:
        if fault == "collapse":
            raise RuntimeError("no eigenvalues")
        return figures(*args)

    monkeypatch.setattr(loop, "save_preview", preview if fault == "collapse" else fails)
    monkeypatch.setattr(CollapseMonitor, "figures", no_figures)
    assert layerlock.pretrain(config(tmp_path / "run"), quiet=True).step == 12
    assert same(weights(tmp_path / "run"), weights(tmp_path / "whole"))
    events = (tmp_path / "run" / "events.log").read_text()
    words = {
        "target": "warning: no preview was saved: ValueError: no picture of such a target",
        "disk": "warning: no preview was saved: ",
        "memory": "warning: no preview was saved: OutOfMemoryError: no room",
        "collapse": "warning: collapse figures could not be computed: RuntimeError: no eigenvalues",
    }[fault]
    assert events.count(words) == 1, "said once, though there are three previews and twelve lines"
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.usefixtures("noise")
@pytest.mark.parametrize("allocates", [lambda: torch.empty(2**60), lambda: np.empty(2**60, np.uint8)])
def test_memory_that_is_not_there_ends_a_run_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allocates: Callable[[], Any]
) -> None:
    monkeypatch.setattr(Run, "update", lambda *_, **__: allocates())
    with pytest.raises(LayerlockError, match=r"out of memory on cpu .* try a larger --optim.accumulate"):
        train(config(tmp_path), quiet=True)


def test_a_batch_that_is_too_large_is_said_before_anything_else(tmp_path: Path) -> None:
    with pytest.raises(LayerlockError, match=r"batch: 1,000,000,000,000 clips"):
        train(config(tmp_path / "run", batch=10**12, data=str(tmp_path / "none")), quiet=True)
    assert not (tmp_path / "run").exists()
