"""`layerlock plan`: figures without a model, the same as a dry run's, settings that fit, what freezing saves."""

from __future__ import annotations

import json
import math
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import config as tiny_config

import layerlock
from layerlock.budget.devices import DEVICES, Machine
from layerlock.budget.fit import bytes_of
from layerlock.budget.stages import budget, clips_at_once, micro_batch, total
from layerlock.budget.words import bytes_text, hours_text, saved_text, seconds_text
from layerlock.cli import main, pretrain_arguments
from layerlock.errors import ConfigError
from layerlock.learn.plans import Progressive
from layerlock.model.cost import Numerics
from layerlock.model.vit import ViT
from layerlock.recipes import recipe
from layerlock.train import timing

TINY = "layerlock-tiny"


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a model was built")

    monkeypatch.setattr(ViT, "__init__", refuse)


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("name", [TINY, "4ds-e-layerlock", "vjepa-l-two-masks", "blockwise-deit-tiny", "videomae-b"])
def test_no_model_is_built(name: str) -> None:
    found = layerlock.plan(name)
    assert len(found.stages) == len(recipe(name).build_plan().timeline)  # type: ignore[attr-defined]
    assert all(math.isfinite(each.peak) and each.step_seconds > 0 for each in found.stages)


def test_a_dry_run_prints_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    _, planned, _ = call(capsys, "plan", TINY, "--optim.accumulate", "2")
    _, dry, _ = call(capsys, "pretrain", TINY, "--optim.accumulate", "2", "--dry-run")
    assert planned
    assert planned in dry


def test_bytes_add_up() -> None:
    made = recipe(TINY)
    first, *_, last = budget(made)
    for each in (first, last):
        memory = made.memory(each.stage, Numerics(compute=2))
        assert (each.gradients, each.moments) == (4 * each.live, 8 * each.live)
        assert each.kept == made.batch * memory.kept.clip + memory.kept.fixed
        clips = made.batch * (memory.inputs + memory.working)
        assert each.peak == each.weights + each.moments + clips + max(each.kept, each.gradients)
        assert each.weights == memory.weights
    assert last.weights < first.weights


def test_moments_are_the_optimizers() -> None:
    made = recipe(TINY)
    for optim, numbers in (({}, 2), ({"name": "sgd"}, 1), ({"name": "sgd", "betas": (0.0, 0.9)}, 0)):
        first = layerlock.plan(replace(made, optim=replace(made.optim, **optim))).stages[0]
        assert first.moments == numbers * first.gradients


def test_a_plan_given_in_code_is_the_one_that_is_fitted() -> None:
    made = recipe(TINY)
    pixels = replace(made, plan=replace(made.plan, target="pixels")).build_plan()  # type: ignore[arg-type]
    found = layerlock.plan(made, pixels)
    assert [each.stage.targets for each in found.stages] == ["pixels"] * 5
    (whole, *_) = layerlock.fit(found, found.total.peak)
    assert (whole.options, whole.total.flops, whole.total.peak) == ("", found.total.flops, found.total.peak)


def test_devices_divide_a_batch_and_recomputation_costs_time_and_saves_memory() -> None:
    made = recipe(TINY)
    one, four = layerlock.plan(made), layerlock.plan(made, gpus=4)
    assert four.total.device_hours == pytest.approx(4 * four.total.hours)
    assert one.total.hours / 4 < four.total.hours < one.total.hours
    assert four.total.peak < one.total.peak
    assert micro_batch(made, four.machine) == 8
    again = layerlock.plan(replace(made, run=replace(made.run, recompute=True)))
    assert again.total.hours > one.total.hours
    assert again.total.peak < one.total.peak
    assert again.total.flops == one.total.flops


def test_masks_of_one_group_are_computed_at_once() -> None:
    made = recipe("vjepa-tiny")
    assert clips_at_once(made, Machine()) == made.masking.group < made.batch  # type: ignore[union-attr]


def test_energy_and_money_are_those_of_all_devices() -> None:
    found = layerlock.plan(TINY, device="a100", gpus=2, price=3.0, watts=250)
    assert found.total.kwh == pytest.approx(found.total.device_hours * 0.25)
    assert found.total.money == pytest.approx(found.total.device_hours * 3)
    assert layerlock.plan(TINY, device="a100").total.kwh == pytest.approx(
        layerlock.plan(TINY, device="a100").total.device_hours * DEVICES["a100"].watts / 1000
    )
    assert math.isnan(layerlock.plan(TINY).total.money)


def test_half_the_utilisation_takes_nearly_twice_the_time() -> None:
    made = recipe("4ds-g")
    slow, fast = (layerlock.plan(made, mfu=share).total.hours for share in (0.2, 0.4))
    assert slow / fast == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize(
    ("name", "clips", "flops", "memory"),
    [
        ("4ds-g-layerlock", 250e6, 0.054, 0.230),
        ("4ds-g-layerlock", 1e9, 0.054, 0.230),
        ("vit-g-250m-freeze", 250e6, 0.045, 0.123),
    ],
)
def test_what_freezing_with_pixels_saves_by_counting(name: str, clips: float, flops: float, memory: float) -> None:
    found = layerlock.plan(name, clips=clips)
    pixels = found.pixels or found.total
    assert 1 - pixels.flops / found.baseline.flops == pytest.approx(flops, abs=0.001)
    assert 1 - pixels.last_peak / found.baseline.last_peak == pytest.approx(memory, abs=0.002)
    assert found.config.steps == round(clips / 2048)


def test_the_papers_figures_stand_beside_ours(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "plan", "4ds-g-layerlock", "--clips", "250e6")
    assert code == 0
    assert re.search(r"the same freezing, pixels throughout.* 5\.4% ", out)
    assert re.search(r"9 % .* 16 % .* 250 M clips, 19 % .* 1 B", out)


@pytest.mark.parametrize("name", [TINY, "4ds-g-layerlock", "vit-b-50m-layerlock"])
def test_settings_that_fit_are_options_of_pretrain(name: str) -> None:
    found = layerlock.plan(name)
    limit = 0.6 * found.total.peak if name == TINY else 80e9
    proposals = layerlock.fit(found, limit)
    assert [each.total.hours for each in proposals] == sorted(each.total.hours for each in proposals)
    for each in proposals:
        config = pretrain_arguments([name, *shlex.split(each.options)]).config
        assert replace(config, out=each.config.out) == each.config
        stages = budget(config)
        assert max(stage.peak for stage in stages) == each.total.peak <= limit
        if each.micro < config.batch:
            larger = replace(config, optim=replace(config.optim, accumulate=config.batch // (2 * each.micro)))
            assert total(larger, budget(larger), found.machine).peak > limit


def test_a_smaller_share_of_the_patches_comes_last() -> None:
    made = recipe(TINY)
    plan = Progressive(target="frozen", frozen=4)
    made = replace(made, batch=2, clip=replace(made.clip, size=96), plan=plan)
    least = replace(made, optim=replace(made.optim, accumulate=2), run=replace(made.run, recompute=True))
    smaller = replace(least, plan=replace(plan, latent_fraction=0.25))
    whole, quarter = (layerlock.plan(each).total.peak for each in (least, smaller))
    assert "--plan.latent-fraction" not in layerlock.fit(layerlock.plan(made), whole)[0].options
    for each in layerlock.fit(layerlock.plan(made), quarter):
        assert "--plan.latent-fraction" in each.options
        assert each.total.peak <= quarter
    with pytest.raises(ConfigError, match=r"nothing fits into .*micro-batches of one clip with recomputation need"):
        layerlock.fit(layerlock.plan(made), "1MB")


def test_the_proposed_command_trains_what_was_planned(capsys: pytest.CaptureFixture[str]) -> None:
    told = ["--plan.target", "pixels", "--clips=1e5", "--optim.accumulate", "2", "--model.depth", "8"]
    code, out, err = call(capsys, "plan", TINY, "--device", "a100", "--fit", "100MB", *told)
    assert code == 0, err
    line = next(line for line in out.splitlines() if line.startswith("layerlock pretrain"))
    config = pretrain_arguments(shlex.split(line)[2:]).config
    assert (config.model.depth, config.plan.target, config.steps) == (8, "pixels", 3125)  # type: ignore[union-attr]
    assert config.optim.accumulate > 2
    assert layerlock.plan(config, device="a100").total.peak <= 100e6


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--device", "b200"], r"device: 'b200' is not known; there are: h100, h200, a100, cpu, measured"),
        (["--gpus", "0"], "gpus: 0 is not positive"),
        (["--gpus", "7"], "batch: 32 clips cannot be divided equally among 7 processes"),
        (["--clips", "3"], "clips: 3 are not one batch of 32"),
        (["--clips", "nan"], "clips: nan"),
        (["--clips", "1e6", "--steps", "3"], "clips: set steps or clips, not both"),
        (["--mfu", "1.2"], "mfu: 1.2 must be above 0 and at most 1"),
        (["--mfu", "nan"], "mfu: nan"),
        (["--watts", "-1"], "watts: -1.0 is not a power"),
        (["--price", "cheap"], "price: 'cheap' is no price"),
        (["--price", "-2"], "price: '-2' is no price"),
        (["--optim.name", "lion"], "no optimizer is called 'lion'"),
        (["--fit", "24"], "fit: '24' is no size of memory; write 24GB or 80GiB"),
        (["--fit", "0GB"], "fit: '0GB' is no size of memory"),
        (["--fit", "2MB"], "fit: nothing fits into 2 MB"),
        (["--device", "measured", "--gpus", "2"], "device: measured is this machine as it is"),
        (["--optim.accumulate", "5"], "optim.accumulate: 5 does not divide"),
    ],
)
def test_bad_input_is_told_in_words(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    code, _, err = call(capsys, "plan", TINY, *arguments)
    assert code == 2
    assert re.search(said, err)


@pytest.mark.parametrize(
    ("text", "size"), [("24GB", 24e9), ("80 GiB", 80 * 2**30), ("1.5TB", 1.5e12), ("500MB", 5e8), ("1e3GB", 1e12)]
)
def test_sizes_of_memory(text: str, size: float) -> None:
    assert bytes_of(text) == size


def test_figures_as_text() -> None:
    assert [bytes_text(value) for value in (1.5e6, 999e6, 1e9, 1466e9, math.nan)] == [
        "1.5 MB",
        "999 MB",
        "1 GB",
        "1,466 GB",
        "unknown",
    ]
    assert [seconds_text(value) for value in (0.0123, 2.345, math.nan)] == ["12.3 ms", "2.35 s", "unknown"]
    assert [saved_text(*pair) for pair in ((0.9, 1.0), (1.5, 1.0), (math.nan, 1.0))] == ["10.0%", "-50.0%", "unknown"]
    assert hours_text(math.nan) == "unknown"


def test_a_network_that_is_not_here_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = layerlock.plan("static-teacher-tiny")
    assert math.isnan(found.total.peak)
    assert math.isnan(found.total.hours)
    with pytest.raises(ConfigError, match="memory of runs/videomae-tiny is unknown"):
        layerlock.fit(found, "80GB")


def test_the_page_has_curves_and_all_figures(tmp_path: Path) -> None:
    layerlock.plan(TINY, out=tmp_path / "page", price=2.0)
    page, kept = (tmp_path / "page" / name for name in ("plan.html", "plan.json"))
    assert page.read_text().count("data:image/svg+xml") == 2
    figures = json.loads(kept.read_text())
    assert [each["frozen"] for each in figures["stages"]] == [0, 1, 2, 3, 4]
    flops = sum(each["flops_per_clip"] * each["batch"] * (each["end"] - each["begin"]) for each in figures["stages"])
    assert figures["run"]["flops"] == flops
    assert figures["machine"]["utilisation"]["source"]
    layerlock.plan("layerlock-plateau-tiny", out=tmp_path / "observes")
    assert "unknown from here on" in (tmp_path / "observes" / "plan.html").read_text()


def test_a_run_of_one_stage_is_compared_with_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, "plan", "mae-tiny")
    assert "first stage" not in out
    assert "%" not in next(line for line in out.splitlines() if "this run" in line)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = call(capsys, "plan", TINY, "--out", str(tmp_path / "file" / "page"))
    assert code == 2
    assert "cannot be written" in err


def test_measured_steps_make_the_hours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = replace(tiny_config(tmp_path), optim=replace(tiny_config(tmp_path).optim, accumulate=2))
    clock = iter(range(10**6))
    monkeypatch.setattr(timing, "_now", lambda _: float(next(clock)))
    found = layerlock.plan(made, device="measured", watts=50, quiet=True)
    assert [each.step_seconds for each in found.stages] == [3.0] * 3  # two micro-batches and an update, a second each
    assert found.total.hours == pytest.approx(3.0 * made.steps / 3600)
    assert found.total.kwh == pytest.approx(found.total.hours * 0.05)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="fit: times of other settings are not measured"):
        layerlock.fit(found, "1GB")


def test_measured_steps_are_of_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    found = layerlock.plan(tiny_config(tmp_path), device="measured", quiet=True)
    assert all(0 < each.step_seconds < 60 for each in found.stages)
    assert found.machine.device.memory > 1e8
    assert torch.get_num_threads() == threads
