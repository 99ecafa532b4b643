"""Encoders of others that cannot be used, as targets and as first weights: every error names the field and the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import tiny
import torch
from hub_models import hub_model
from safetensors.torch import load_file

import layerlock
from layerlock import Distill, cli
from layerlock.errors import ConfigError
from layerlock.model.encoder import ClipShape, Encoder

FOURDS = f"4ds:{tiny.FIXTURES / '4ds_checkpoint.npz'}"
EIGHT = ("--clip.frames", "8", "--model.patch", "2", "8", "8")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encoders of several kinds in one folder, some of them not to be used."""
    place = tmp_path_factory.mktemp("world")
    hub_model("VideoMAEModel").save_pretrained(place / "videomae")
    hub_model("VJEPA2Model").save_pretrained(place / "vjepa2")
    for name in ("code", "pickled", "other"):
        hub_model("VideoMAEModel").save_pretrained(place / name)
    config = json.loads((place / "code" / "config.json").read_text())
    code = config | {"auto_map": {"AutoModel": "modeling_better.BetterVideoMAE"}}
    (place / "code" / "config.json").write_text(json.dumps(code))
    (place / "other" / "config.json").write_text(json.dumps(config | {"model_type": "timesformer"}))
    (place / "pickled" / "model.safetensors").rename(place / "pickled" / "pytorch_model.bin")
    torch.save({"state_dict": {"conv1.weight": torch.ones(3)}}, place / "resnet.pth")
    (place / "begun" / "checkpoints").mkdir(parents=True)
    (place / "begun" / "config.json").write_text("{}")
    numbered = replace(tiny.MODEL, position="sincos-1d")
    Encoder.random(numbered, ClipShape(frames=8, stride=1, size=16)).save_pretrained(place / "numbered")
    return place


TARGET = [
    ("4DS of eight frames", (FOURDS, ()), (FOURDS[4:], "takes clips of 8 frames", "not of 16 frames", "clip.frames")),
    ("VideoMAE of eight frames", ("hf:videomae", ()), ("config.json", "takes clips of 8 frames", "clip.frames")),
    ("a published one", ("hf:MCG-NJU/videomae-base", EIGHT), ("takes clips of 16 frames, not of 8", "clip.frames")),
    ("a block too deep", ("hf:videomae", (*EIGHT, "--plan.blocks", "4")), ("hf:videomae: has 3 blocks, no block 4",)),
    ("code of its own", ("hf:code", EIGHT), ("code/config.json", "auto_map", "modeling_better", "refused")),
    ("pickled weights", ("hf:pickled", EIGHT), ("pickled: no model.safetensors", "never read")),
    ("another kind of model", ("hf:other", EIGHT), ("other/config.json", "'timesformer' is none of videomae, vjepa2")),
    ("another file of torch", ("resnet.pth", EIGHT), ("resnet.pth: no tensor patch_embed.proj.weight",)),
    ("a run that has not ended", ("begun", EIGHT), ("begun: a run without an encoder yet",)),
    ("not on this machine", ("hf:nobody/at-all", EIGHT), ("hf:nobody/at-all: no such folder, and not available",)),
    ("no such run", ("runs/misspelt", EIGHT), ("'runs/misspelt' is no encoder",)),
    (
        "a kind misspelt",
        ("fh:MCG-NJU/videomae-base", EIGHT),
        ("'fh:MCG-NJU/videomae-base' is no encoder", "hf:ORG/NAME"),
    ),
    ("no kind", ("MCG-NJU/videomae-base", EIGHT), ("'MCG-NJU/videomae-base' is no encoder", "hf:ORG/NAME")),
    ("no such file", ("4ds:none.npz", EIGHT), ("none.npz: not a readable .npz file",)),
    ("nothing", ("", EIGHT), ("'' names no frozen encoder",)),
]
START = [
    ("adapt", ("hf:vjepa2", ()), ("hf:vjepa2 has blocks of another kind",)),
    ("adapt", ("hf:code", ()), ("code/config.json", "auto_map", "refused")),
    ("adapt", ("misspelt", ()), ("'misspelt' is no encoder",)),
    ("adapt", ("hf:videomae", ("--clip.size", "33")), ("model.patch", "33 height")),
    ("adapt", ("hf:videomae", ("--plan.frozen", "4")), ("stage.frozen: 4 frozen blocks, where 0 to 3 can be",)),
    ("adapt", ("hf:videomae", ("--model.depth", "5")), ("model.depth: hf:videomae has 3, this run 5",)),
    ("mae-tiny", ("hf:nobody/at-all", ()), ("hf:nobody/at-all: no such folder, and not available",)),
    ("mae-tiny", ("hf:videomae", ()), ("model.width: hf:videomae has 24", "model.position")),
    ("adapt", ("numbered", ("--model.position", "sincos-1d", "--clip.size", "24")), ("numbers the tokens", "learned")),
    ("mae-tiny", ("begun", ()), ("begun: a run without an encoder yet",)),
]


def refused(
    arguments: Sequence[str], world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """What `layerlock pretrain` says; it writes nothing."""

    def offline(*_: object, **__: object) -> None:
        raise OSError("offline")

    monkeypatch.chdir(world)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(SystemExit) as end:
        cli.main(["pretrain", *arguments, "--out", "run", "--steps", "20", "--run.workers", "0", "--run.device", "cpu"])
    assert end.value.code == 2
    assert not (world / "run").exists()
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    return said.err


@pytest.mark.parametrize(("given", "words"), [case[1:] for case in TARGET], ids=[case[0] for case in TARGET])
def test_a_target_that_cannot_be_names_plan_network_and_the_file(
    given: tuple[str, Sequence[str]],
    words: Sequence[str],
    world: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    network, more = given
    err = refused(["distill-tiny", f"--plan.network={network}", *more], world, monkeypatch, capsys)
    assert "plan.network: " in err
    assert all(word in err for word in words), err


@pytest.mark.parametrize(
    ("recipe", "given", "words"), START, ids=[f"{name} {given[0]} {' '.join(given[1])}" for name, given, _ in START]
)
def test_first_weights_that_cannot_be_name_the_field_and_the_file(
    recipe: str,
    given: tuple[str, Sequence[str]],
    words: Sequence[str],
    world: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    err = refused([recipe, "--init-from", given[0], *given[1]], world, monkeypatch, capsys)
    assert all(word in err for word in words), err
    assert given[0] not in ("misspelt", "begun", "hf:code", "hf:vjepa2", "hf:nobody/at-all") or "init_from: " in err


def test_a_run_is_not_resumed_with_a_teacher_that_was_trained_again(noise: tiny.Noise, tmp_path: Path) -> None:
    shape = ClipShape(frames=8, stride=1, size=24)
    teacher, run = tmp_path / "teacher", tmp_path / "run"
    Encoder.random(tiny.MODEL, shape, seed=1).save_pretrained(teacher / "encoder")
    made = tiny.config(run, plan=Distill(network=str(teacher), error="absolute"), steps=4)
    layerlock.pretrain(made, quiet=True)
    layerlock.pretrain(made, resume=True, quiet=True)
    Encoder.random(tiny.MODEL, shape, seed=2).save_pretrained(teacher / "encoder")
    with pytest.raises(ConfigError, match=rf"plan\.network: the weights of {teacher} are not those"):
        layerlock.pretrain(made, resume=True, quiet=True)
    (teacher / "encoder" / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"plan\.network: .*model\.safetensors: missing"):
        layerlock.pretrain(made, resume=True, quiet=True)


@pytest.mark.usefixtures("noise")
def test_a_distillation_is_resumed_exactly(tmp_path: Path) -> None:
    """Across a switch to frozen blocks; the teacher has another size of frames, and is in no checkpoint."""
    Encoder.random(tiny.MODEL, ClipShape(frames=8, stride=1, size=32), seed=1).save_pretrained(tmp_path / "teacher")
    plan = Distill(network=str(tmp_path / "teacher"), target="frozen", start=0.5, last=2, patches="normalized")
    whole, cut = (tiny.config(tmp_path / name, plan=plan) for name in ("whole", "cut"))
    layerlock.pretrain(whole, quiet=True)
    layerlock.pretrain(cut, quiet=True)
    last = max((tmp_path / "cut" / "checkpoints").iterdir())
    shutil.rmtree(last)
    layerlock.pretrain(cut, resume=True, quiet=True)
    first, second = (load_file(tmp_path / name / "encoder" / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    names = load_file(last / "state.safetensors")
    assert not any("teacher" in name for name in names)
    facts = json.loads((last / "state.json").read_text())
    assert list(facts["networks"]) == [plan.network]
