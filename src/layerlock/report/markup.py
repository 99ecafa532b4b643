"""The pieces of a page and the page itself: templates of jinja2, which escapes whatever is not a piece already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from layerlock.errors import LayerlockError
from layerlock.files import write_whole


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of the page, with an anchor."""

    name: str
    title: str
    parts: Sequence[Markup]


def title(words: str) -> Markup:
    """The heading of the page."""
    return _piece("title", words)


def heading(words: str) -> Markup:
    """A heading within a section."""
    return _piece("heading", words)


def paragraph(*sentences: str) -> Markup:
    """A paragraph of plain sentences."""
    return _piece("paragraph", " ".join(sentences))


def note(sentence: str) -> Markup:
    """A paragraph in the background."""
    return _piece("note", sentence)


def links(sections: Iterable[tuple[str, str]]) -> Markup:
    """Links to sections by (name, title)."""
    return _piece("links", list(sections))


def facts(rows: Mapping[str, object]) -> Markup:
    """Names and values."""
    return _piece("facts", rows)


def table(
    head: Sequence[str], rows: Iterable[Sequence[object]], *, words: Sequence[int] = (), long: Sequence[int] = ()
) -> Markup:
    """A table of figures; the columns numbered in `words` are set flush left, those in `long` broken into lines too."""
    return _piece("table", head, list(rows), words, long)


def image(uri: str, alt: str, kind: str = "") -> Markup:
    """A picture that is part of the page; `kind` is its class."""
    return _piece("image", uri, alt, kind)


def row(label: str, uri: str, alt: str, kind: str = "strip") -> Markup:
    """A strip of frames with its label above."""
    return _piece("row", label, uri, alt, kind)


def card(*parts: Markup, caption: str | Sequence[str] = ()) -> Markup:
    """Things that belong together, side by side with other cards where the window is wide; a caption of some lines."""
    lines = [caption] if isinstance(caption, str) else list(caption)
    return _piece("card", parts, [line for line in lines if line])


def cards(parts: Iterable[Markup], kind: str) -> Markup:
    """Cards in as many columns as fit."""
    return _piece("cards", list(parts), kind)


def query(parts: Iterable[Markup]) -> Markup:
    """A clip and what is near it, in one line."""
    return _piece("query", list(parts))


def write_page(
    path: Path,
    title: str,
    head: Sequence[Markup],
    sections: Sequence[Section],
    *,
    template: str = "page.html",
    **more: object,
) -> Path:
    """Writes a whole page, or leaves the one that was there; returns its path. LayerlockError where it cannot be.

    `template` is `page.html` or one that extends it, and `more` what that one needs. The page's policy forbids the
    browser to fetch anything.
    """
    page = _templates().get_template(template).render(title=title, head=head, sections=sections, **more)
    try:
        write_whole(path, lambda part: part.write_text(page, encoding="utf-8"))
    except OSError as error:
        raise LayerlockError(f"{path}: cannot be written ({error.strerror})") from None
    return path


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("layerlock.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=printable,
    )


@cache
def _pieces() -> Any:
    return _templates().get_template("pieces.html").module


def _piece(name: str, *values: object) -> Markup:
    return Markup(getattr(_pieces(), name)(*values))


def printable(value: object) -> object:
    """Text without control characters; bytes of a file name that are no text become a sign for that."""
    if isinstance(value, Markup):
        return value
    clean = str(value).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(sign if sign.isprintable() else " " for sign in clean)
