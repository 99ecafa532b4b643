"""Who may write into a run folder, and what it keeps."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import config, run_config

from layerlock.config import load_config
from layerlock.errors import ConfigError, LayerlockError
from layerlock.files import write_whole
from layerlock.train import folder as folders
from layerlock.train.folder import PARTS, RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "run")
    made.begin(config(made.path), resume=False, overwrite=False)
    return made


def test_a_new_run_writes_its_config_with_versions(folder: RunFolder) -> None:
    assert load_config(folder.config) == config(folder.path)
    assert {"python", "torch", "numpy"} <= json.loads(folder.config.read_text())["versions"].keys()


def test_a_run_that_is_there_is_not_touched_unasked(folder: RunFolder) -> None:
    before = folder.config.read_bytes()
    with pytest.raises(LayerlockError, match=r"--resume.*--overwrite"):
        folder.begin(config(folder.path, seed=9), resume=False, overwrite=False)
    with pytest.raises(LayerlockError, match="say one"):
        folder.begin(config(folder.path), resume=True, overwrite=True)
    assert folder.config.read_bytes() == before


@pytest.mark.parametrize(("resume", "overwrite"), [(False, False), (True, False), (False, True)])
def test_a_folder_of_somebody_elses_is_refused_and_left_alone(tmp_path: Path, resume: bool, overwrite: bool) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(LayerlockError, match="not a run of ours"):
        RunFolder(tmp_path).begin(config(tmp_path), resume=resume, overwrite=overwrite)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoints", "thesis.txt"]


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(LayerlockError, match="run"):
        RunFolder(tmp_path / "run").begin(config(tmp_path), resume=False, overwrite=True)


def test_an_empty_folder_will_do(tmp_path: Path) -> None:
    RunFolder(tmp_path).begin(config(tmp_path), resume=False, overwrite=False)
    assert (tmp_path / "config.json").exists()


@pytest.mark.parametrize("at", [1, 2])
def test_a_run_that_is_killed_while_it_begins_can_be_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    count = 0

    class Killed(BaseException):
        pass

    def killed(path: Path, write: Callable[[Path], object]) -> None:
        nonlocal count
        count += 1
        if count == at:
            write(path.with_name(f".{path.name}.0123abcd.part"))
            raise Killed
        write_whole(path, write)

    monkeypatch.setattr(folders, "write_whole", killed)
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(Killed):
        folder.begin(config(folder.path), resume=False, overwrite=False)
    monkeypatch.undo()
    (folder.path / ".lock").touch()
    folder.begin(config(folder.path), resume=folder.exists, overwrite=False)
    assert (folder.exists, folder.plan_facts()) == (True, {})


def test_what_comes_after_the_checkpoint_of_a_step_is_told_once(folder: RunFolder) -> None:
    folder.write_event(4, "warning", "after update 4, before its checkpoint")
    folder.write_event(4, "switch", "1 blocks frozen")
    folder.write_event(4, "skipped", "a.mp4: damaged")
    folder.write_event(4, "resume", "from step-4")
    folder.rewind(4)
    kinds = [line.split()[3] for line in folder.events.read_text().splitlines()]
    assert kinds == ["warning:", "resume:"]


def test_overwriting_removes_a_runs_parts_and_nothing_else(folder: RunFolder) -> None:
    for name in PARTS[1:]:
        path = folder.path / name
        if "." in name:
            path.write_text("old")
        else:
            path.mkdir()
            (path / "old").write_text("old")
    (folder.path / "notes.md").write_text("mine")
    (folder.path / "figures").mkdir()
    folder.begin(config(folder.path, seed=5), resume=False, overwrite=True)
    assert sorted(p.name for p in folder.path.iterdir()) == ["config.json", "figures", "notes.md", "plan.json"]
    assert load_config(folder.config).seed == 5


def test_resuming_with_another_config_lists_every_field_that_differs(folder: RunFolder) -> None:
    before = config(folder.path)
    other = replace(before, seed=1, optim=replace(before.optim, lr=0.5), clip=replace(before.clip, flip=False))
    with pytest.raises(ConfigError) as error:
        folder.begin(other, resume=True, overwrite=False)
    assert [line.split(":")[0] for line in error.value.problems] == ["clip.flip", "optim.lr", "seed"]
    assert "0.001" in error.value.problems[1]
    assert "0.5" in error.value.problems[1]
    assert load_config(folder.config) == before


def test_how_a_run_is_carried_out_may_change_on_resume(folder: RunFolder) -> None:
    changed = config(folder.path, run=run_config(workers=7, log_every=2, threads=3))
    folder.begin(changed, resume=True, overwrite=False)
    assert load_config(folder.config) == changed


def test_metrics_after_a_checkpoint_are_taken_back_with_the_line_that_was_cut(folder: RunFolder) -> None:
    for step in (1, 2, 3, 4):
        folder.write_line({"step": step, "loss": 0.1 * step})
    with folder.metrics.open("a") as file:
        file.write('{"step": 5, "lo')
    assert [line["step"] for line in folder.lines()] == [1, 2, 3, 4]
    folder.rewind(2)
    assert folder.metrics.read_text() == '{"step": 1, "loss": 0.1}\n{"step": 2, "loss": 0.2}\n'
    folder.rewind(0)
    assert folder.metrics.read_text() == ""


def test_an_event_is_one_line_with_its_kind(folder: RunFolder) -> None:
    folder.write_event(0, "skipped", "odd\nname.mp4: empty")
    folder.write_event(3, "skipped", "\x1b[31m\udce9é.mp4: empty")
    lines = folder.events.read_text().splitlines()
    assert len(lines) == 2
    assert lines[0].split(" ", 1)[1] == "step 0 skipped: odd name.mp4: empty"
    assert lines[1].endswith(r"step 3 skipped: \x1b[31m\udce9é.mp4: empty")


def test_a_config_that_is_none_is_named(folder: RunFolder, tmp_path: Path) -> None:
    for text in ("{", "[]", '{"model": {}}', '{"config": 3}', '{"config": {"stepz": 3}}', '{"config": {"optim": 3}}'):
        folder.config.write_text(text)
        with pytest.raises(LayerlockError):
            load_config(folder.config)
    with pytest.raises(LayerlockError, match="missing"):
        load_config(tmp_path / "nowhere.json")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LayerlockError, match="file"):
        RunFolder(tmp_path / "file" / "run").begin(config(tmp_path), resume=False, overwrite=False)
