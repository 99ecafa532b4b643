"""HTML in small pieces, escaped by default, and the style of the page."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from layerlock.errors import LayerlockError
from layerlock.files import write_whole


def text(value: object) -> str:
    """Any value as text that cannot become markup; bytes of a file name that are no text become a sign for that."""
    clean = str(value).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return html.escape("".join(sign if sign.isprintable() else " " for sign in clean))


def paragraph(*sentences: str) -> str:
    """A paragraph of plain sentences."""
    return f"<p>{text(' '.join(sentences))}</p>"


def note(sentence: str) -> str:
    """A paragraph in the background."""
    return f'<p class="note">{text(sentence)}</p>'


def section(name: str, title: str, *parts: str) -> str:
    """A section of the page, with an anchor."""
    return f'<section id="{text(name)}">\n<h2>{text(title)}</h2>\n' + "\n".join(parts) + "\n</section>"


def table(
    head: Sequence[str], rows: Iterable[Sequence[object]], *, words: Sequence[int] = (), long: Sequence[int] = ()
) -> str:
    """A table of figures; the columns numbered in `words` are set flush left, those in `long` broken into lines too."""

    def cells(tag: str, values: Sequence[object]) -> str:
        kinds = ("long" if column in long else "words" if column in words else "" for column in range(len(values)))
        sides = (f' class="{kind}"' if kind else "" for kind in kinds)
        return "".join(f"<{tag}{side}>{text(value)}</{tag}>" for side, value in zip(sides, values, strict=True))

    body = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="scroll"><table>\n<tr>{cells("th", head)}</tr>\n{body}\n</table></div>'


def image(uri: str, alt: str, kind: str = "") -> str:
    """A picture that is part of the page; `kind` is its class."""
    return f'<img class="{text(kind)}" src="{uri}" alt="{text(alt)}">'


def row(label: str, uri: str, alt: str, kind: str = "strip") -> str:
    """A strip of frames with its label above."""
    return f'<div class="label">{text(label)}</div>{image(uri, alt, kind)}'


def card(*parts: str, caption: str = "") -> str:
    """Things that belong together, side by side with other cards where the window is wide."""
    below = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    return f"<figure>{''.join(parts)}{below}</figure>"


def cards(parts: Iterable[str], kind: str) -> str:
    """Cards in as many columns as fit."""
    return f'<div class="cards {text(kind)}">\n' + "\n".join(parts) + "\n</div>"


def document(title: str, body: str) -> str:
    """The whole page. Its policy forbids the browser to fetch anything."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def write_page(path: Path, title: str, body: str) -> Path:
    """Writes a whole page, or leaves the one that was there; returns its path. LayerlockError where it cannot be."""
    page = document(title, body)
    try:
        write_whole(path, lambda part: part.write_text(page, encoding="utf-8"))
    except OSError as error:
        raise LayerlockError(f"{path}: cannot be written ({error.strerror})") from None
    return path


POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

STYLE = """
:root { --ink: #23282d; --soft: #6b7580; --line: #e3e1dc; --accent: #1f5f7a; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 2.5rem 1.25rem 4rem; background: #fdfcfa; color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { margin: 0 0 .25rem; font-size: 1.9rem; font-weight: 650; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { margin: 3rem 0 .5rem; padding-top: 1.2rem; border-top: 1px solid var(--line); font-size: 1.25rem;
  font-weight: 650; }
h3 { margin: 1.6rem 0 .4rem; font-size: 1rem; font-weight: 650; }
p, ul { max-width: 44rem; margin: .5rem 0 .9rem; overflow-wrap: anywhere; }
nav { margin: 1rem 0 0; font-size: .9rem; } nav a { margin-right: 1rem; color: var(--accent); text-decoration: none; }
nav a:hover { text-decoration: underline; }
.note { color: var(--soft); font-size: .92rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; max-width: 44rem;
  margin: 1.2rem 0; font-size: .95rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: .8rem 0 1.2rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: 500; vertical-align: bottom; }
th, td { padding: .3rem .9rem .3rem 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th.words, td.words { text-align: left; }
th.long, td.long { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 16rem; }
.cards { display: grid; gap: 1.6rem 2rem; margin: 1.2rem 0; }
.charts { grid-template-columns: repeat(auto-fill, minmax(min(100%, 25rem), 1fr)); }
.clips { grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); }
.queries { grid-template-columns: 1fr; gap: .6rem; }
figure { margin: 0; min-width: 0; } figcaption { color: var(--soft); font-size: .85rem; margin-top: .3rem; }
img { display: block; width: 100%; height: auto; }
.strip, .tokens { border-radius: 3px; box-shadow: 0 0 0 1px var(--line); } .tokens { image-rendering: pixelated; }
.label { color: var(--soft); font-size: .82rem; margin: .55rem 0 .15rem; }
.query { display: grid; grid-template-columns: repeat(6, minmax(0, 1fr)); gap: .5rem; padding-bottom: .6rem;
  border-bottom: 1px solid var(--line); }
.query figure:first-child img { outline: 2px solid var(--accent); outline-offset: 1px; }
.query figcaption { font-size: .74rem; line-height: 1.3; overflow-wrap: anywhere; }
@media (max-width: 640px) { body { padding: 1.2rem .9rem 3rem; } h1 { font-size: 1.5rem; }
  .query { grid-template-columns: repeat(3, minmax(0, 1fr)); } }
"""
