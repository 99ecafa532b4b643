"""The page that compares encoders by depth: what is in it, and what it does in a browser."""

from __future__ import annotations

import html
import json
import math
import re
import shutil
import subprocess
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from layerlock.report.analysis import write_analysis

HOSTILE = "</script><img src=x onerror=alert(1)>\u2028&amp;"
CHROMIUM = shutil.which("chromium") or ("/usr/bin/chromium" if Path("/usr/bin/chromium").exists() else None)
NO_CHECKPOINT = {"run": None, "step": None}
QUIET = ("background-networking", "sync", "component-update", "quic")


def analysis(second: str = "runs/b") -> dict[str, Any]:
    """Two encoders of 4 and 8 blocks; `rank` is NaN at one depth, `probe` is missing with a reason at another."""
    encoders = [
        {"name": "runs/a", "depths": [0, 1, 2, 3, 4], "width": 128, "tokens": 64, "blocks": 4, **NO_CHECKPOINT},
        {"name": second, "depths": [0, 4, 8], "width": 256, "tokens": 64, "blocks": 8, **NO_CHECKPOINT},
    ]
    metrics = [
        {"name": "rank", "about": "What rank is.", "better": "higher", "percent": False},
        {"name": "probe", "about": "What probe is.", "better": None, "percent": True},
    ]
    values = [
        {
            "encoder": encoder["name"],
            "depth": depth,
            "metric": metric["name"],
            "value": (depth + 1) / 16,
            "low": depth / 16,
            "high": (depth + 2) / 16,
            "why": "",
        }
        for encoder in encoders
        for depth in encoder["depths"]  # type: ignore[attr-defined]
        for metric in metrics
    ]
    values[4]["value"] = math.nan  # runs/a, rank, depth 2
    values[3] |= {"value": None, "low": None, "high": None, "why": "the solver did not converge"}  # probe, depth 1
    maps = [
        {"name": "CKA", "about": "What CKA is.", "rows": "runs/a", "columns": "runs/a", "values": [[0.5] * 5] * 5},
        {
            "name": "CKA",
            "about": "What CKA is.",
            "rows": "runs/a",
            "columns": second,
            "values": [[0.1, None, math.inf], *[[0.2, 0.3, 1.0]] * 4],
        },
    ]
    return {
        "data": "clips <of> birds",
        "clips": 1000,
        "classes": 13,
        "encoders": encoders,
        "metrics": metrics,
        "values": values,
        "maps": maps,
    }


def written(folder: Path, found: dict[str, Any]) -> str:
    path = folder / "report.html"
    assert write_analysis(found, path) == path
    return path.read_text(encoding="utf-8")


class Tags(HTMLParser):
    """Start tags with attributes, the rows of the table of values, and the JSON, as a browser reads them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.json = ""
        self._in = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in = "json" if dict(attrs).get("type") == "application/json" else tag
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in == "json":
            self.json += data
        if self._in in ("td", "th"):
            self.rows[-1][-1] += data


def test_nothing_is_loaded(tmp_path: Path) -> None:
    page = written(tmp_path, analysis())
    tags = Tags(page).tags
    loaded = [value for _, attrs in tags for name, value in attrs.items() if name in ("src", "href", "action", "data")]
    assert {str(value)[:6] for value in loaded} == {"#mark-"}
    assert re.findall(r"https?://[^\"' ]*", page) == ["http://www.w3.org/2000/svg"]  # a namespace, not an address
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page


@pytest.mark.parametrize("name", [HOSTILE, "{{ 7 * 7 }}", "runs/\udcff", "]]>\x00<!--"])
def test_a_hostile_name_is_inert_text(tmp_path: Path, name: str) -> None:
    found = analysis(name)
    found["data"] = found["metrics"][0]["about"] = name
    plain, hostile = Tags(written(tmp_path, analysis())), Tags(written(tmp_path, found))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    assert not any(attribute.startswith("on") for _, attrs in hostile.tags for attribute in attrs)
    shown = json.loads(hostile.json)["encoders"][1]["name"]
    assert shown.startswith(name[:3])
    assert [row for row in hostile.rows if row[0] == shown]


def test_what_is_not_finite_is_null(tmp_path: Path) -> None:
    page = Tags(written(tmp_path, analysis()))

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    data = json.loads(page.json, parse_constant=refuse)
    assert data["metrics"][0]["cells"][0][2] == [None, None, None, "–"]
    assert data["maps"][1]["values"][0] == [0.1, None, None]


def test_heads_are_drawn_beside_their_mean(tmp_path: Path) -> None:
    found = analysis()
    found["values"][0]["heads"] = [0.01, 0.123456]
    cells = json.loads(Tags(written(tmp_path, found)).json)["metrics"][0]["cells"]
    assert cells[0][0][4:] == [[0.01, 0.1235]]
    assert all(len(cell) == 4 for cell in (*cells[0][1:], *cells[1]))


def test_the_table_is_complete(tmp_path: Path) -> None:
    found = analysis()
    page = written(tmp_path, found).split('<section id="values">')[1]
    rows = {tuple(row[:2]): row[2:] for row in Tags(page).rows}
    assert rows.pop(("encoder", "block")) == ["rank", "probe"]
    expected = {(one["name"], str(depth)) for one in found["encoders"] for depth in one["depths"]}
    assert set(rows) == expected
    assert rows["runs/a", "0"] == ["0.06250 [0.000, 0.1250]", "6.2 % [0.0, 12.5]"]
    assert rows["runs/a", "1"] == ["0.1250 [0.06250, 0.1875]", "–"]
    assert rows["runs/b", "8"] == ["0.5625 [0.5000, 0.6250]", "56.2 % [50.0, 62.5]"]


def test_reasons_and_definitions_are_told(tmp_path: Path) -> None:
    page = " ".join(re.sub("<[^>]*>", "", written(tmp_path, analysis())).split())
    assert "No value for runs/a (block 1): the solver did not converge" in page
    assert "No value for runs/a (block 2): not a finite number" in page
    for about in ("What rank is.", "What probe is.", "What CKA is."):
        assert about in page
    assert "1,000 clips of 13 classes from clips &lt;of&gt; birds" in page


def test_values_that_are_left_out_and_data_without_classes_or_maps(tmp_path: Path) -> None:
    found = analysis() | {"classes": None, "maps": []}
    found["values"] = [one for one in found["values"] if one["encoder"] == "runs/a"]
    page = " ".join(re.sub("<[^>]*>", "", written(tmp_path, found)).split())
    assert "No value for runs/b: not measured" in page
    assert "clips without classes" in page
    assert "Similarity of depths" not in page


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("values", {"encoder": "runs/c"}),
        ("values", {"depth": 5}),
        ("values", {"metric": "x"}),
        ("maps", {"columns": "runs/c"}),
        ("maps", {"values": [[1.0]]}),
    ],
)
def test_what_belongs_to_nothing_is_refused(tmp_path: Path, part: str, change: dict[str, Any]) -> None:
    found = analysis()
    found[part][0] |= change
    with pytest.raises(ValueError, match=r"no such|depths x depths"):
        write_analysis(found, tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def of_steps() -> dict[str, Any]:
    """Checkpoints of one run, the later one first, and an encoder beside them."""
    found = analysis()
    found["maps"] = []
    for number, step in enumerate((12, 4)):
        name = f"runs/<a>@{step}"
        found["encoders"].append(found["encoders"][0] | {"name": name, "run": "runs/<a>", "step": step})
        found["values"] += [
            one | {"encoder": name, "value": number} for one in found["values"][:10] if one["encoder"] == "runs/a"
        ]
    return found


def test_checkpoints_of_a_run_are_maps_of_depth_and_step(tmp_path: Path) -> None:
    page = written(tmp_path, of_steps())
    section = page.split('<section id="steps">')[1].split("</section>")[0]
    assert "<h3>runs/&lt;a&gt;</h3>" in section
    assert re.findall(r'data-metric="(\d)"', section) == ["0", "1"]
    assert json.loads(Tags(page).json)["runs"] == [{"name": "runs/<a>", "steps": [4, 12], "encoders": [3, 2]}]
    assert '<section id="steps">' not in written(tmp_path, analysis())


@dataclass(frozen=True)
class Seen:
    """The page after its script ran, and what the browser's console said."""

    dom: str
    console: list[str]

    def count(self, pattern: str) -> int:
        return len(re.findall(pattern, self.dom))

    def charts(self) -> list[str]:
        """The drawing of each metric; an empty one where the metric is not shown."""
        return [part.split("</div>")[0] for part in self.dom.split('<div class="plot live">')[1:]]


def browse(page: Path, choice: str = "") -> Seen:
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--dump-dom"]
    command += [f"--disable-{one}" for one in QUIET] + ["--enable-logging=stderr", "--virtual-time-budget=2000"]
    command += [f"--user-data-dir={page.parent / 'browser'}", "--window-size=390,800"]
    ran = subprocess.run([*command, f"{page.as_uri()}{choice}"], capture_output=True, timeout=120, check=True)
    said = [line for line in ran.stderr.decode().splitlines() if "CONSOLE" in line]
    return Seen(html.unescape(ran.stdout.decode()), said)


def acted(page: Path, script: str) -> Path:
    """A copy of the page with a script more, which stands for a person; its policy allows this one too."""
    text = re.sub(r"script-src '[^']*'", "script-src 'unsafe-inline'", page.read_text(encoding="utf-8"))
    copy = page.with_name("acted.html")
    copy.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    return copy


needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@needs_browser
def test_charts_are_drawn_in_a_browser(tmp_path: Path) -> None:
    written(tmp_path, analysis(HOSTILE))
    seen = browse(tmp_path / "report.html")
    assert seen.console == []
    rank, probe = seen.charts()
    for chart, lines in ((rank, 3), (probe, 3)):  # that of `runs/a` has a gap
        assert chart.count('class="line"') == lines
        assert chart.count("<use ") == 7
        assert "hue-0" in chart
        assert "hue-1" in chart
    assert seen.count('<rect [^>]*fill="rgb') == 25
    assert seen.count("<img") == seen.count(re.escape(HOSTILE[:12]))  # only where it is text


@needs_browser
def test_a_link_carries_the_choices(tmp_path: Path) -> None:
    written(tmp_path, analysis())
    chosen = "#encoder=runs%2Fb&metric=rank&axis=fraction&map=CKA&rows=runs%2Fb&columns=runs%2Fa"
    seen = browse(tmp_path / "report.html", chosen)
    assert seen.console == []
    rank, probe = seen.charts()
    assert "hue-0" not in rank
    assert "hue-1" in rank
    assert "fraction of the encoder's depth" in rank
    assert "<svg" not in probe
    assert seen.count('<tr data-encoder="0" hidden="">') == 5
    assert seen.count('<tr data-encoder="1">') == 3
    assert seen.count('<rect [^>]*fill="rgb') == 13  # turned over from the map of the other order, two are missing
    assert seen.count('<rect [^>]*class="empty"') == 2


@needs_browser
def test_choices_pointer_and_keyboard(tmp_path: Path) -> None:
    written(tmp_path, analysis())
    script = """
      document.querySelector('input[name=encoder]').click();
      document.querySelector('input[value=fraction]').click();
      setTimeout(() => {
        const [rank, probe] = document.querySelectorAll('.plot > svg'), map = document.querySelector('#map > svg');
        const corner = (one) => one.getBoundingClientRect();
        const at = (one, x, y) => ({clientX: corner(one).left + x, clientY: corner(one).top + y});
        rank.dispatchEvent(new PointerEvent('pointermove', at(rank, 200, 50)));
        probe.focus();
        probe.dispatchEvent(new KeyboardEvent('keydown', {key: 'End'}));
        map.dispatchEvent(new PointerEvent('pointerdown', {...at(map, 30, 5), pointerType: 'touch'}));
        for (const one of [rank, probe, map]) console.log(one.getAttribute('aria-valuetext'));
        console.log(decodeURIComponent(location.hash), document.querySelectorAll('.tip').length);
        console.log('width', document.documentElement.scrollWidth - document.documentElement.clientWidth);
      }, 100);
    """
    said = "\n".join(browse(acted(tmp_path / "report.html", script)).console)
    for expected in (
        '"0.50 of the depth; runs/b 4/8 0.3125 [0.2500, 0.3750]"',
        '"1.00 of the depth; runs/b 8/8 56.2 % [50.0, 62.5]"',
        '"runs/a block 4, runs/a block 0: 0.500"',
        "#axis=fraction&encoder=runs/b&map=CKA&rows=runs/a&columns=runs/a 2",
        '"width 0"',
    ):
        assert expected in said
    assert "Uncaught" not in said


@needs_browser
def test_maps_of_depth_and_step_are_drawn_and_read(tmp_path: Path) -> None:
    written(tmp_path, of_steps())
    seen = browse(tmp_path / "report.html")
    assert seen.console == []
    assert seen.count('<rect [^>]*fill="rgb') + seen.count('<rect [^>]*class="empty"') == 2 * 5 * 2
    script = """
      const map = document.querySelector('[data-run] > svg');
      map.focus();
      map.dispatchEvent(new KeyboardEvent('keydown', {key: 'End'}));
      console.log(map.getAttribute('aria-valuetext'));
    """
    assert '"block 0, step 12: 0.000 [0.000, 0.1250]"' in "\n".join(
        browse(acted(tmp_path / "report.html", script)).console
    )


@needs_browser
def test_the_policy_runs_no_other_script_and_the_page_is_complete_without(tmp_path: Path) -> None:
    page = written(tmp_path, analysis())
    (tmp_path / "changed.html").write_text(page.replace('"use strict";', '"use strict"; '), encoding="utf-8")
    seen = browse(tmp_path / "changed.html")
    assert "Content Security Policy" in "".join(seen.console)
    assert 'class="line" d="M1 6H25"' not in "".join(seen.charts())
    assert seen.count('<tr data-encoder="[01]">') == 8
