"""The commands: help, dry runs, mistakes, exit codes."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import MODEL, config
from video_files import write_video

import layerlock
from layerlock import cli, encoders
from layerlock.config import Config
from layerlock.dry_run import other_maskings, show
from layerlock.errors import ConfigError, LayerlockError
from layerlock.learn.masking import RandomMasking
from layerlock.learn.plans import Auto, Locking, Plateau, Progressive
from layerlock.model.encoder import ClipShape, Encoder
from layerlock.recipes import RECIPES
from layerlock.settings import from_dict, kinds_of
from layerlock.train.loop import train


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a command."""
    code: int | str | None = 0
    try:
        cli.main(arguments)
    except SystemExit as end:
        code = end.code
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    return int(code or 0), said.out, said.err


@pytest.mark.parametrize(
    "verb", ["recipes", "synth", "embed", "evaluate", "analyze", "index", "pack", "info", "report", "pretrain"]
)
def test_every_verb_has_help(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    code, out, _ = call(capsys, verb, "--help")
    assert code == 0
    assert f"layerlock {verb}" in out


def test_help_lists_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "--help")
    assert code == 0
    assert all(verb in out for verb in cli.VERBS)


def test_help_of_a_recipe_shows_its_values(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "pretrain", "layerlock-tiny", "--help")
    assert code == 0
    for flag in ("--data", "--out", "--steps", "--resume", "--overwrite", "--init-from", "--dry-run", "--optim.lr"):
        assert flag in out
    assert "1000" in out


def test_recipes_are_listed_with_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "recipes")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == list(RECIPES)
    assert all(len(line.split()) > 3 for line in out.splitlines())


def test_a_recipe_is_told_whole(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "recipes", "vjepa-l")
    assert code == 0
    for words in ("Table 9", "SSv2 52.1", "H100 hours at 30% of 67 TFLOP/s (fp32)", "AdamW betas"):
        assert words in out
    code, _, err = call(capsys, "recipes", "vjepa-xl")
    assert code == 2
    assert "vjepa-l" in err


def test_a_dry_run_prints_config_and_stages_and_touches_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(
        capsys, "pretrain", "layerlock-tiny", "--data", "nowhere", "--steps", "300", "--optim.lr", "0.5", "--dry-run"
    )
    assert code == 0
    assert list(tmp_path.iterdir()) == []
    start = out.index("{")
    printed, _ = json.JSONDecoder().raw_decode(out[start:])
    assert (printed["steps"], printed["data"], printed["optim"]["lr"]) == (300, "nowhere", 0.5)
    assert re.search(r"180-210\W+1\W+h1", out)
    assert re.search(r"270-300\W+4\W+h4", out)
    assert "FLOPs" in out
    assert "H100 hours at 30% of 989 TFLOP/s (bf16)" in out
    assert "M parameters" in out


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_a_dry_run(capsys: pytest.CaptureFixture[str], name: str) -> None:
    show(RECIPES[name].config)
    out = capsys.readouterr().out
    assert out.count("h32") == (1 if "4ds-g-layerlock" in name else 0)


@pytest.mark.parametrize(
    ("name", "shares"),
    [
        ("mae-nano", [(0.25, 0.5), (0.25, 1.0), (0.25, 0.25), (0.1, 1.0), (0.1, 0.25)]),
        ("videomae-tiny", [(0.25, 1.0), (0.25, 0.25), (0.1, 1.0), (0.1, 0.25)]),
        ("mae-tiny", [(0.25, None), (0.1, None)]),
        ("vjepa-nano", []),
    ],
)
def test_a_dry_run_shows_what_other_maskings_cost(
    capsys: pytest.CaptureFixture[str], name: str, shares: list[tuple[float, float | None]]
) -> None:
    code, out, err = call(capsys, "pretrain", name, "--dry-run")
    assert code == 0, err
    _, _, table = out.partition("with others of its kind")
    rows = [re.split(r"\s*│\s*", line.strip("│ ")) for line in table.splitlines() if line.startswith("│")]
    assert [(float(row[0]), None if row[1] == "-" else float(row[1])) for row in rows] == shares
    config = layerlock.recipe(name)
    stage = config.build_plan().stage(0, ())
    for row, (keep, predict) in zip(rows, shares, strict=True):
        cost = replace(config, masking=replace(config.masking, keep=keep, predict=predict)).cost(stage)  # type: ignore[call-arg]
        assert [float(flops) for flops in row[4:8]] == pytest.approx(
            [part / 1e9 for part in (cost.encoder, cost.decoder, cost.heads, cost.total)], rel=0.005
        )
        assert float(row[8]) == pytest.approx(cost.total / config.cost(stage).total, abs=0.005)


def test_maskings_that_the_grid_has_no_tokens_for_are_not_shown() -> None:
    config = replace(layerlock.recipe("mae-nano"), masking=RandomMasking(keep=0.3, keep_to=0.5, predict=0.5))
    stage = config.build_plan().stage(0, ())
    assert len(other_maskings(config, stage)) == 4
    small = replace(config, clip=replace(config.clip, frames=4, size=16))  # 4 tokens, of which 0.1 is none
    assert other_maskings(small, stage) == [
        RandomMasking(keep=0.25, predict=1.0),
        RandomMasking(keep=0.25, predict=0.25),
    ]


def printed_config(out: str) -> Config:
    values, _ = json.JSONDecoder().raw_decode(out[out.index("{") :])
    made = from_dict(Config, values)
    assert isinstance(made, Config)
    return made


KINDS = [(field, name) for field, kinds in kinds_of(Config).items() for name in kinds]


@pytest.mark.parametrize(("field", "name"), KINDS)
def test_every_member_of_a_union_can_be_chosen_and_is_listed(
    capsys: pytest.CaptureFixture[str], field: str, name: str
) -> None:
    plan = layerlock.recipe("vjepa-tiny").plan
    more = {
        "RandomMasking": ["--plan.kind", "Progressive"],
        "BackboneDecoding": ["--model.no-final-norm"],
        "Distill": ["--plan.network", "hf:MCG-NJU/videomae-base"],
        "Blockwise": ["--plan.parts", "5"],
    }.get(name, [])
    code, out, err = call(capsys, "pretrain", "vjepa-tiny", f"--{field}.kind", name, *more, "--dry-run")
    assert code == 0, err
    made = printed_config(out)
    assert type(getattr(made, field)).__name__ == name
    assert made.plan == plan or field == "plan" or name == "RandomMasking", "a kind that stays keeps its values"
    _, out, _ = call(capsys, "pretrain", "vjepa-tiny", f"--{field}.kind={name}", *more, "--help")
    assert all(other in out for each, other in KINDS if each == field)
    assert f"(default: {name})" in re.sub(r"[\s│]+", " ", out)


def test_fields_of_a_kind_that_was_chosen_can_be_set_in_any_order(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--plan.freeze-decoder", "--plan.lines", "7", "--plan.kind", "Plateau", "--plan.target=frozen"]
    code, out, _ = call(capsys, "pretrain", "layerlock-tiny", *flags, "--dry-run")
    assert code == 0
    assert printed_config(out).plan == Plateau(target="frozen", lines=7, freeze_decoder=True)
    same = layerlock.recipe("layerlock-tiny").plan
    code, out, _ = call(capsys, "pretrain", "layerlock-tiny", "--plan.kind", "Progressive", "--dry-run")
    assert printed_config(out).plan == same, "the recipe's kind keeps the recipe's values"


@pytest.mark.parametrize("flags", [["--plan", "auto"], ["--plan=Auto"], ["--plan.kind", "Auto"]])
def test_a_kind_has_a_short_form_and_what_is_predicted_stays(
    capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    before = layerlock.recipe("layerlock-nano").plan
    assert isinstance(before, Progressive)
    code, out, _ = call(capsys, "pretrain", "layerlock-nano", *flags, "--plan.lines", "7", "--dry-run")
    assert code == 0
    kept = {name: getattr(before, name) for name in Locking.__annotations__}
    assert printed_config(out).plan == Auto(**kept, lines=7)
    assert (kept["target"], kept["patches"], kept["masked"], kept["patch_weight"]) == ("frozen", "motion", True, 1.0)
    code, out, _ = call(capsys, "pretrain", "mae-tiny", "--masking", "tubemasking", *flags, "--dry-run")
    assert type(printed_config(out).masking).__name__ == "TubeMasking"
    assert printed_config(out).plan == Auto()
    assert (
        "invalid choice 'slowly' for argument '--plan.kind'"
        in call(capsys, "pretrain", "mae-tiny", "--plan", "slowly")[2]
    )


@pytest.mark.usefixtures("noise")
def test_a_resume_need_not_repeat_the_kind_and_another_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    train(config(tmp_path / "run", recipe="layerlock-tiny", plan=Plateau(last=2), steps=3), quiet=True)
    flags = ["--out", str(tmp_path / "run"), "--resume"]
    assert call(capsys, "pretrain", "layerlock-tiny", *flags)[0] == 0
    assert call(capsys, "pretrain", "layerlock-tiny", *flags, "--plan.kind", "Plateau")[0] == 0
    code, _, err = call(capsys, "pretrain", "layerlock-tiny", *flags, "--plan.kind", "Progressive")
    assert code == 2
    assert "plan.kind: the run to resume has 'Plateau', now 'Progressive'" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pretrain"], "usage"),
        (["pretrain", "mae-tiny", "--plan.kind", "Plateu"], "invalid choice 'Plateu' for argument '--plan.kind'"),
        (
            ["pretrain", "mae-tiny", "--plan.lines", "3"],
            "plan.lines: Progressive has no such field; --plan.kind Plateau",
        ),
        (
            ["pretrain", "mae-tiny", "--decoder.mask-tokens=2"],
            "decoder.mask_tokens: BackboneDecoding has no such field",
        ),
        (["pretrain", "mae-tiny", "--plan.linez", "3"], "--plan.linez"),
        (["pretrain", "layerlok"], "layerlock-tiny"),
        (["pretrain", "layerlock-tiny", "--stepz", "3"], "stepz"),
        (["pretrain", "layerlock-tiny", "--steps", "three"], "three"),
        (["pretrain", "layerlock-tiny", "--model.position", "ropes"], "ropes"),
        (["pretrain", "layerlock-tiny", "--steps", "3", "--dry-run"], "too few"),
        (["pretrain", "layerlock-tiny", "--clip.size", "50", "--dry-run"], "does not divide"),
        (["pretrain", "layerlock-tiny", "--run.device", "tpu7", "--out", "run"], "run.device"),
        (["pretrain", "layerlock-tiny", "--data", "nowhere", "--out", "run"], "nowhere"),
        (["pretrain", "layerlock-tiny", "--out", "run", "--resume"], "no run to resume"),
        (["pretrain", "layerlock-tiny", "--init-from", "nowhere", "--out", "run"], "nowhere"),
        (["info", "nowhere"], "no run here"),
        (["report", "nowhere"], "no run here"),
        (["embed", "nowhere", "--data", "x", "--out", "y.npz"], "'nowhere' is no encoder"),
        (["pretrain", "layerlock-tiny", "--data", "", "--out", "run"], "data: the name is empty"),
        (["pretrain", "layerlock-tiny", "--run.store-gb", "nan", "--out", "run"], "run.store_gb: nan"),
        (["pretrain", "layerlock-tiny", "--run.store-gb", "inf", "--out", "run"], "run.store_gb: inf"),
        (["pretrain", "layerlock-tiny", "--run.store-gb", "-1", "--out", "run"], "run.store_gb: -1"),
        (["embed"], "emb"),
        (["analyze", "breadth", "a"], "usage: layerlock analyze depth"),
        (["analyze", "depth", "a", "--encoders", "b"], "encoders: named twice"),
        (["analyze", "depth", "nowhere", "--data", "x"], "'nowhere' is no encoder"),
        (["index", "nowhere"], "nowhere"),
        (["index", ""], "data: the name is empty"),
    ],
)
def test_mistakes_are_told_in_words_and_exit_with_2(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, *arguments)
    assert code == 2
    assert words in out + err
    assert list(tmp_path.iterdir()) == []


def test_all_problems_are_listed_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--batch", "0", "--optim.lr", "-1", "--clip.size", "50", "--run.keep", "0"]
    code, _, err = call(capsys, "pretrain", "layerlock-tiny", "--dry-run", *flags)
    assert code == 2
    assert all(name in err for name in ("batch", "optim.lr", "does not divide", "run.keep"))


def test_index_says_what_is_there_and_names_what_cannot_be_used(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_video(tmp_path / "run" / "a.mp4", frames=25, size=(32, 64))
    write_video(tmp_path / "sit" / "b.mp4", frames=5, codec="mpeg4")
    (tmp_path / "sit" / "new\nline.mp4").touch()
    code, out, err = call(capsys, "index", str(tmp_path), "--workers", "0")
    assert (code, err) == (0, "")
    assert re.search(r"^layout +class folders\nusable +2\nrejected +1\n", out)
    for line in ("1  h264", "1  mpeg4", "2  25", "1  64 x 32", "1  run", "1  sit"):
        assert re.search(rf"^ +{line}$", out, re.MULTILINE)
    assert out.endswith("sit/new\\nline.mp4: it is empty\n")
    (tmp_path / "run" / "a.mp4").unlink()
    (tmp_path / "sit" / "b.mp4").write_bytes(b"no video")
    code, out, err = call(capsys, "index", str(tmp_path), "--workers", "0")
    assert code == 2
    assert err == f"error: none of the 2 videos of {tmp_path} can be used\n"
    assert out.startswith("cannot be used\n")
    assert len(out.splitlines()) == 3
    assert call(capsys, "index", str(tmp_path), "--workers", "-3") == (2, "", "error: workers: -3 is negative\n")


def test_embed_prints_odd_names_as_escapes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder.random(MODEL, ClipShape(frames=8, stride=1, size=24), seed=2)
    monkeypatch.setattr(encoders, "open_encoder", lambda *_, **__: encoder)
    write_video(tmp_path / "videos" / "a.mp4", frames=10)
    (tmp_path / "videos" / "new\nline\x1b\udce9.mp4").touch()
    flags = ["--data", str(tmp_path / "videos"), "--workers", "0", "--device", "cpu"]
    code, out, _ = call(capsys, "embed", "run", *flags, "--out", str(tmp_path / "two\nlines"))
    assert code == 0
    assert out.splitlines() == [
        rf"1 videos x 24 features in {tmp_path}/two\nlines, not whitened; 1 files skipped",
        rf"skipped {tmp_path}/videos/new\nline\x1b\udce9.mp4: it is empty",
    ]
    assert (tmp_path / "two\nlines").exists()
    for more, words in ((["--batch", "0"], "batch: 0 is not positive"), (["--data", ""], "data: the name is empty")):
        code, _, err = call(capsys, "embed", "run", *flags, "--out", str(tmp_path / "x.npz"), *more)
        assert (code, words in err) == (2, True)


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--depth", "2"], "2 videos x 24 features in {out}, whitened; 0 files skipped"),
        (
            ["--depth", "2", "5", "--whiten", "no"],
            "2 videos x 2 blocks x 24 features in {out}, not whitened; 0 files skipped",
        ),
        (
            ["--per", "clip", "--hop", "0.08"],
            "6 clips of 2 videos x 24 features in {out}, whitened; 0 files or clips skipped",
        ),
        (["--per", "token"], "2 videos x 36 tokens x 24 features in {out}, not whitened; 0 files skipped"),
        (
            ["--per", "token", "--depth", "0", "6", "3"],
            "2 videos x 3 blocks x 36 tokens x 24 features in {out}, not whitened; 0 files skipped",
        ),
    ],
)
def test_embed_says_what_it_wrote(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], line: str
) -> None:
    encoder = Encoder.random(MODEL, ClipShape(frames=8, stride=1, size=24), seed=2)
    monkeypatch.setattr(encoders, "open_encoder", lambda *_, **__: encoder)
    for name, frames in (("a", 10), ("b", 14)):
        write_video(tmp_path / "videos" / f"{name}.mp4", frames=frames, size=(32, 32))
    out = tmp_path / "x.npz"
    flags = ["--data", str(tmp_path / "videos"), "--workers", "0", "--device", "cpu", "--out", str(out)]
    assert call(capsys, "embed", "run", *flags, *more)[:2] == (0, line.format(out=out) + "\n")


def test_a_list_may_stand_elsewhere_than_its_videos(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder.random(MODEL, ClipShape(frames=8, stride=1, size=24), seed=2)
    monkeypatch.setattr(encoders, "open_encoder", lambda *_, **__: encoder)
    write_video(tmp_path / "videos" / "x" / "a.mp4", frames=10)
    (tmp_path / "lists").mkdir()
    data = tmp_path / "lists" / "all.txt"
    data.write_text("x\\a.mp4 10 1.0\n")
    root = ["--data-root", str(tmp_path / "videos"), "--workers", "0"]
    code, out, _ = call(capsys, "index", str(data), *root)
    assert code == 0
    assert re.search(r"usable +1\n", out)
    flags = ["--data", str(data), *root, "--device", "cpu", "--out", str(tmp_path / "x.npz")]
    assert call(capsys, "embed", "run", *flags)[0] == 0
    code, _, err = call(capsys, "index", str(data), "--workers", "0")
    assert (code, err.splitlines()[1]) == (2, f"Paths begin at {tmp_path / 'lists'}; --data-root names another folder.")


def test_index_without_the_cache_leaves_no_trace(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAYERLOCK_CACHE", str(tmp_path / "cache"))
    video = write_video(tmp_path / "a.mp4", frames=2)
    assert call(capsys, "index", str(video), "--workers", "0", "--no-cache")[0] == 0
    assert not (tmp_path / "cache").exists()
    assert len(layerlock.index(video, workers=0)) == 1
    assert (tmp_path / "cache").exists()


@pytest.mark.usefixtures("noise")
def test_info_says_where_a_run_stands(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    train(config(tmp_path), quiet=True)
    code, out, _ = call(capsys, "info", str(tmp_path))
    assert code == 0
    assert "12 of 12" in out
    assert "6 blocks of width 24" in out
    assert "step-00000012" in out


@pytest.mark.usefixtures("noise")
def test_a_run_that_is_there_and_a_resume_of_another_recipe_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    train(config(tmp_path), quiet=True)
    code, _, err = call(capsys, "pretrain", "layerlock-tiny", "--out", str(tmp_path))
    assert code == 2
    assert "--resume" in err
    code, _, err = call(capsys, "pretrain", "layerlock-tiny", f"--out={tmp_path}", "--resume")
    assert code == 2
    assert "a run of test" in err


def test_recipes_take_changes_and_refuse_unknown_ones() -> None:
    assert layerlock.recipe("layerlock-tiny", steps=7).steps == 7
    with pytest.raises(LayerlockError, match="stepz"):
        layerlock.recipe("layerlock-tiny", stepz=7)
    assert issubclass(ConfigError, LayerlockError)


@pytest.mark.parametrize(
    "name", ["list_recipes", "write_report", "recipe", "pretrain", "load", "embed", "index", "info", "pack", "synth"]
)
def test_verbs_are_functions_whatever_has_been_imported(name: str) -> None:
    importlib.import_module("layerlock.recipes")
    importlib.import_module("layerlock.report")
    assert callable(getattr(layerlock, name))


def test_the_public_face_is_whole_and_lazy() -> None:
    assert all(getattr(layerlock, name) is not None for name in layerlock.__all__)
    with pytest.raises(AttributeError, match="nothing_here"):
        layerlock.nothing_here  # noqa: B018
    code = "import sys, layerlock; print({'torch', 'av', 'tyro'} & sys.modules.keys())"
    environment = os.environ | {"PYTHONPATH": str(Path(layerlock.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "set()"


def test_names_that_look_like_placeholders_and_markup_go_through_all_verbs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["{0}", "%s", "%(x)d {", "}", "{x!r}", "[red]a", "<b>&amp;", "100%"]
    for number, label in enumerate(["cl{0}ass%s", "%(x)s{name}[b]"]):
        for at, name in enumerate(names):
            write_video(Path("data", label, f"v{name}.mp4"), frames=12 + number * len(names) + at, size=(32, 32))
        Path("data", label, "bad{0}%s[i].mp4").write_bytes(b"no video")
    small = "--steps 20 --batch 2 --clip.frames 4 --clip.size 16 --model.width 24 --model.mlp 24 --run.workers 0"
    few = "--examples 8 --batch 4 --workers 0 --depths 0.5 --validation-share 0.3 --test-share 0.3 --baselines no"
    commands = [
        ["index", "data", "--workers", "0"],
        ["pack", "data", "--out", "p{0}%s", "--workers", "0"],
        ["pretrain", "layerlock-tiny", "--data", "data", "--out", "r{0}%s", *small.split()],
        ["evaluate", "r{0}%s", "--data", "data", "--out", "e{0}%s", "--readout", "linear", *few.split()],
        ["evaluate", "r{0}%s", "--data", "data", "--out", "q{0}%s", "--task", "retrieval", *few.split()[4:]],
        ["embed", "r{0}%s", "--data", "data", "--out", "m{0}%s.npz", "--workers", "0"],
        ["report", "r{0}%s"],
        ["info", "r{0}%s"],
    ]
    for command in commands:
        code, out, said = call(capsys, *command)
        assert code == 0, (command, said)
        assert "bad{0}%s[i].mp4" in out or command[0] in ("pretrain", "evaluate", "report", "info")
    assert "bad{0}%s[i].mp4" in Path("r{0}%s", "events.log").read_text()
    page = Path("q{0}%s", "report.html").read_text()
    assert "cl{0}ass%s" in page
    assert "<b>&amp;.mp4" not in page
