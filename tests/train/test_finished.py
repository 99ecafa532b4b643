"""A run that is there is taken for the one that is asked for where its settings and its videos are the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tiny import Noise, config

from layerlock.errors import ConfigError, LayerlockError
from layerlock.train import finished
from layerlock.train.finished import is_finished
from layerlock.train.folder import RunFolder
from layerlock.train.loop import train


def test_a_run_counts_where_it_is_at_its_end_and_of_the_same_settings_and_videos(
    tmp_path: Path, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[dict[str, object]]()
    shown = [noise]
    monkeypatch.setattr(finished, "open_source", lambda *_, **settings: asked.append(settings) or shown[0])
    made = config(tmp_path / "run")
    assert not is_finished(made)
    assert not asked
    train(made, quiet=True)
    assert is_finished(made)
    assert [each["saved"] for each in asked] == [RunFolder(made.out).index]
    with pytest.raises(ConfigError, match="batch: the run to resume has 4, now 2"):
        is_finished(replace(made, batch=2))
    shown[0] = Noise(fingerprint="others")
    with pytest.raises(LayerlockError, match=r"elsewhere: its videos are not those that .*run was trained on; name an"):
        is_finished(replace(made, data="elsewhere"))
    shown[0] = noise
    events = tmp_path / "run" / "events.log"
    told = events.read_text()
    events.write_text("".join(line for line in told.splitlines(keepends=True) if " end: " not in line))
    assert not is_finished(made), "killed before the last encoder was there"
    events.write_text(told)
    assert is_finished(made)
    last = tmp_path / "run" / "checkpoints" / "step-00000012"
    last.rename(tmp_path / "elsewhere")
    assert not is_finished(made), "other videos are refused when it is resumed"
