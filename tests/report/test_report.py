from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import tiny
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from layerlock.data import index
from layerlock.data.index.listing import Listing
from layerlock.errors import LayerlockError
from layerlock.learn.masking import TubeMasking
from layerlock.learn.plans import Progressive
from layerlock.model.encoder import load
from layerlock.model.patches import gather_tokens, patchify
from layerlock.report import charts, neighbours, views
from layerlock.report.history import read_history
from layerlock.report.page import SECTIONS, write_report
from layerlock.report.tables import summary
from layerlock.settings import to_dict
from layerlock.train import loop
from layerlock.train.folder import RunFolder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six updates with two switches, from pixels to a random half of the patches' features."""
    out = tmp_path_factory.mktemp("report") / "run"
    plan = replace(tiny.LOCK, latent_fraction=0.5)
    config = tiny.config(out, steps=6, plan=plan, data="somewhere/gone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "open_source", lambda *args, **kwargs: tiny.Noise())
        loop.train(config, quiet=True)
    return out


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> RunFolder:
    """A copy of the run to do things to."""
    shutil.copytree(trained, tmp_path / "run")
    return RunFolder(tmp_path / "run")


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the charts out, which take most of the time and are looked at elsewhere."""
    monkeypatch.setattr(charts, "draw", lambda chart, marked, last: "data:image/svg+xml;base64,")


def bare(path: Path, lines: list[dict[str, Any]] | None = None, **changes: Any) -> RunFolder:
    """A run folder with nothing but a config and, perhaps, metrics."""
    folder = RunFolder(path)
    path.mkdir()
    folder.config.write_text(json.dumps({"config": to_dict(tiny.config(path, **changes)), "versions": {}}))
    for line in lines or []:
        folder.write_line(line)
    return folder


class Outside(HTMLParser):
    """Collects tags, and every reference that leaves the page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.without_alt = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.without_alt += tag == "img" and not given.get("alt")
        for name in ("src", "href", "srcset", "action", "data"):
            value = given.get(name) or ""
            if value and not value.startswith(("data:image/", "#")):
                self.references.append(value)


def write(folder: RunFolder) -> str:
    page = write_report(folder).read_text(encoding="utf-8")
    for name, title in SECTIONS:
        assert f'<section id="{name}">\n<h2>{title}</h2>' in page
    seen = Outside(page)
    assert seen.references == []
    assert not {"script", "link", "iframe", "object"} & set(seen.tags)
    assert seen.without_alt == 0
    assert not re.search(r"https?://|url\(|@import", page)
    return page


def test_page_is_whole_and_keeps_to_itself(run: RunFolder) -> None:
    before = sorted(run.path.rglob("*"))
    page = write(run)
    assert sorted(run.path.rglob("*")) == sorted([*before, run.report])
    for words in (
        "step 2: reconstruction",
        "step 4: h1, target",
        "step 6: h2, predicted",
        "block 6 of 6",
        "loss, pixels",
    ):
        assert words in page
    assert run.report.stat().st_size < 2_000_000


@pytest.mark.usefixtures("undrawn")
def test_stages_and_their_cost_are_those_of_the_config(run: RunFolder) -> None:
    history = read_history(run, tiny.config(run.path, steps=6, plan=replace(tiny.LOCK, latent_fraction=0.5)), {})
    assert [(span.begin, span.end, span.frozen, span.targets) for span in history.spans] == [
        (0, 2, 0, "pixels"),
        (2, 4, 1, "h1"),
        (4, 6, 2, "h2"),
    ]
    assert history.planned
    page = write(run)
    for span in history.spans:
        assert span.stage is not None
        assert f"<td>{history.config.cost(span.stage).total / 1e9:,.2f}</td>" in page


def test_plan_from_code_is_told_from_the_configs(tmp_path: Path) -> None:
    folder = bare(tmp_path / "run", [{"step": 1, "loss": 0.5, "losses": {"h3": 0.5}, "frozen": 3, "targets": "h3"}])
    assert "the plan was given in code" in write(folder)


@pytest.mark.usefixtures("undrawn")
def test_names_from_outside_cannot_become_markup(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    evil = '<script>alert(1)</script><img src="http:evil" onerror="x">'
    run.write_event(0, "skipped", f"{evil}.mp4: \udce9 it is {evil}")
    run.write_event(0, "warning", evil)
    text = json.loads(run.config.read_text())
    text["config"] |= {"recipe": evil, "data": evil}
    run.config.write_text(json.dumps(text))
    page = write(run)
    assert "<script" not in page
    assert "onerror=&#34;" in page
    assert page.count("&lt;script&gt;alert(1)") >= 4


def test_run_that_has_only_begun(tmp_path: Path) -> None:
    page = write(bare(tmp_path / "run"))
    for words in ("Nothing was logged", "No preview was saved", "no encoder in the run folder", "not reached"):
        assert words in page


def test_run_that_broke_off(tmp_path: Path) -> None:
    nan = float("nan")
    line = {"step": 1, "loss": nan, "losses": {"pixels": nan}, "frozen": 0, "targets": "pixels", "lr": 0.1}
    folder = bare(tmp_path / "run", [line])
    with folder.metrics.open("a") as metrics:
        metrics.write('{"step": 2, "lo')
    folder.write_event(0, "error", "the loss of step 2 is not finite")
    folder.events.write_bytes(folder.events.read_bytes() + b"\xff half a li")
    folder.previews.mkdir()
    (folder.previews / "step-00000001.safetensors").write_bytes(b"nothing of the kind")
    folder.encoder.mkdir()
    page = write(folder)
    assert "It stopped on an error: the loss of step 2 is not finite." in page
    assert "Not readable: step-00000001.safetensors (Error while deserializing" in page
    assert "encoder cannot be used" in page
    assert "loss fell" not in page


@pytest.mark.usefixtures("undrawn")
def test_features_that_are_not_numbers(run: RunFolder) -> None:
    encoder = load(run.path)
    with torch.no_grad():
        encoder.vit.embed.weight.fill_(float("nan"))
    encoder.save_pretrained(run.encoder)
    assert "block 6 of 6" in write(run)


def test_summary_says_what_the_numbers_say(tmp_path: Path) -> None:
    losses = [0.5, 0.25, 0.75]
    lines = [
        {"step": i + 1, "loss": loss, "losses": {}, "frozen": 0, "targets": "pixels"} for i, loss in enumerate(losses)
    ]

    def told(name: str, count: int) -> str:
        folder = bare(tmp_path / name, lines[:count])
        return " ".join(summary(read_history(folder, tiny.config(folder.path), {})))

    assert "fell from 0.5 to 0.25" in told("a", 2)
    assert "rose from 0.5 to 0.75" in told("b", 3)
    assert "fell" not in told("c", 1)
    assert "No end is recorded" in told("d", 1)


@pytest.mark.usefixtures("undrawn")
def test_data_that_are_gone_are_said_to_be(run: RunFolder) -> None:
    assert "(somewhere/gone) cannot be read from here" in write(run)


def write_shades(folder: Path, count: int) -> Path:
    """Videos of one grey each, so that neighbours in grey are neighbours in number; number 1 is none."""
    folder.mkdir()
    for number in range(count):
        with av.open(str(folder / f"<{number}>.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.height = stream.width = 48
            stream.pix_fmt = "yuv420p"
            for _ in range(9):
                grey = np.full((48, 48, 3), 20 + 40 * number, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
            container.mux(stream.encode())
    (folder / "<1>.mp4").write_bytes(b"no video")
    return folder


def of_data(run: RunFolder, data: Path) -> RunFolder:
    """The run as if trained on other data."""
    text = json.loads(run.config.read_text())
    text["config"] |= {"data": str(data)}
    run.config.write_text(json.dumps(text))
    return run


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("videos", "words"), [(3, "are 2 videos: too few"), (6, "5 of 6 videos were compared")])
def test_neighbours(run: RunFolder, tmp_path: Path, videos: int, words: str) -> None:
    page = write(of_data(run, write_shades(tmp_path / "shades", videos)))
    assert words in page
    if videos > 3:
        assert page.count('<div class="query">') == 5
        last = page.split('<div class="query">')[5]
        assert re.findall(r"Middle frame of &lt;(\d)&gt;\.mp4", last)[:2] == ["5", "4"]


@pytest.mark.usefixtures("undrawn")
def test_neighbours_look_into_no_more_files_than_they_compare(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_shades(tmp_path / "shades", 1)
    for number in range(10):
        shutil.copy(folder / "<0>.mp4", folder / f"{number}.mp4")
    looked_into = []

    def build(listing: Listing, workers: int, only: list[int]) -> index.Index:
        looked_into.extend(listing.paths[position] for position in only)
        return index.build_index(listing, workers, only=only)

    monkeypatch.setattr(neighbours, "VIDEOS", 4)
    monkeypatch.setattr(neighbours, "build_index", build)
    assert "3 of 12 videos were compared" in write(of_data(run, folder))
    assert len(looked_into) == 4


def test_names_with_braces_are_shown_as_they_are(tmp_path: Path) -> None:
    sheet = views.Sheet(2, tiny.config(tmp_path))
    sheet.photos("input {0}", "Clip {n}, {x!r} %s", torch.zeros(2, 8, 3, 24, 24, dtype=torch.uint8))
    assert "Clip 2, {x!r} %s" in sheet.html()


def test_thinned_previews_keep_first_and_last(tmp_path: Path, trained: Path) -> None:
    source = next((trained / "previews").iterdir())
    for step in range(1, 21):
        shutil.copy(source, tmp_path / f"step-{step:08d}.safetensors")
    found = views.read_previews(tmp_path, tiny.config(tmp_path))
    assert len(found.by_step) == views.PREVIEWS
    assert next(iter(found.by_step)) == 1
    assert list(found.by_step)[-1] == 20
    assert found.left_out == 20 - views.PREVIEWS


def test_of_several_targets_the_deepest_is_shown_and_at_the_end_all(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(2, tiny.TOKENS, 5, generator=generator)
    preview = {"video": tiny.video(2), "context": torch.tensor([[0, 1], [2, 3]])}
    for name in ("h2", "h10"):
        preview |= {f"target/{name}": latent, f"predicted/{name}": latent + 0.1}
    previews = views.Previews(by_step={3: preview, 6: dict(preview)}, left_out=0, broken=())
    page = "".join(views.prediction_section(previews, tiny.config(tmp_path)))
    shown = re.findall(r"step (\d): (h\d+), target", page)
    assert shown == [("3", "h10"), ("6", "h2"), ("6", "h10")] * 2


def test_explained_variance() -> None:
    target = torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(0))
    mean = target.mean((0, 1)).expand_as(target)
    preview = {"target/h1": target, "predicted/h1": target}
    assert views.explained(preview, "h1") == 1
    assert views.explained(preview | {"predicted/h1": mean}, "h1") == pytest.approx(0, abs=1e-6)
    assert views.explained(preview | {"predicted/h1": 2 * mean - target}, "h1") == pytest.approx(-3, abs=1e-5)


def test_folder_without_a_config_is_an_error_for_people(tmp_path: Path) -> None:
    with pytest.raises(LayerlockError, match=r"config.json: missing"):
        write_report(RunFolder(tmp_path))


@pytest.mark.usefixtures("undrawn")
def test_a_preview_that_cannot_be_drawn_leaves_the_others(run: RunFolder) -> None:
    path = sorted(run.previews.iterdir())[1]
    with safe_open(path, framework="pt") as file:
        tensors, facts = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    save_file(tensors | {"target/h1": torch.zeros(3)}, path, facts)
    page = write(run)
    assert re.search(r"Step 4: h1 could not be drawn \(.+\)", page)
    for words in ("step 2: reconstruction", "step 6: h2, predicted"):
        assert words in page


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("module", ["charts.chart_section", "tables.stages", "views.feature_section", "views.Encoder"])
def test_a_section_that_cannot_be_made_says_so_and_the_others_are(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise KeyError("a target of <its> own")

    name = f"layerlock.report.{module}"
    monkeypatch.setattr(f"{name}.from_pretrained" if module.endswith("Encoder") else name, fails)
    for _ in range(2):
        page = write(run)
        assert "a target of &lt;its&gt; own" in page
        assert "step 6: h2, predicted" in page
    events = run.events.read_text()
    assert events.count("could not be made (KeyError: 'a target of <its> own')") == (not module.endswith("Encoder"))


def test_normalised_pixels_are_shown_as_the_clip_and_centred_ones_in_its_units(
    tmp_path: Path, noise: tiny.Noise
) -> None:
    plans = {"normalised": Progressive(patches="normalized", masked=True), "centred": Progressive()}
    for name, plan in plans.items():
        model = replace(tiny.MODEL, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
        masking = TubeMasking(keep=0.34) if plan.masked else tiny.MASKING
        config = tiny.config(tmp_path / name, steps=2, plan=plan, model=model, masking=masking)
        loop.train(config, quiet=True)
        preview = views.read_previews(tmp_path / name / "previews", config).by_step[2]
        patches = patchify(preview["video"], model.patch).float() / 255
        if plan.masked:
            patches = gather_tokens(patches, preview["positions/pixels"])
        torch.testing.assert_close(preview["target/pixels"], patches, atol=1e-5, rtol=0)
