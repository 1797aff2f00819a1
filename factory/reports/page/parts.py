"""The parts that sections are made of: numbers, tables, figures, galleries."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from factory.reports.page.writing import fill

NARROW_SPACE = "\u202f"


@dataclass(frozen=True)
class Fact:
    """A number that matters, and what it is."""

    value: str
    name: str


@dataclass(frozen=True)
class Tile:
    """A sample in a gallery: data URIs of its picture and its mask, and what is known about it.

    `classes` are the ids that occur in the mask; `order` is what galleries are sorted by, usually
    the uncertainty in nats; `details` is shown with the enlarged picture.
    """

    name: str
    picture: str
    mask: str
    caption: str
    order: float = 0.0
    classes: Sequence[int] = ()
    details: str = ""


def whole(number: int) -> str:
    """`50 000`, with narrow spaces."""
    return f"{number:,}".replace(",", NARROW_SPACE)


def percent(share: float | None, digits: int = 1) -> str:
    """`12.3 %`; a dash for None or nan."""
    return "–" if share is None or share != share else f"{100 * share:.{digits}f} %"


def score(value: float | None) -> str:
    """`0.843`; a dash for None or nan."""
    return "–" if value is None or value != value else f"{value:.3f}"


def facts(items: Sequence[Fact]) -> Markup:
    """Large numbers side by side."""
    return fill("facts.html", items=items)


def paragraph(text: str) -> Markup:
    """A paragraph; words in backquotes are set as code."""
    return Markup("<p>{}</p>").format(_with_code(text))


def note(text: str, warning: bool = False) -> Markup:
    """A remark set apart; words in backquotes are set as code."""
    kind = "note warning" if warning else "note"
    return Markup('<p class="{}">{}</p>').format(kind, _with_code(text))


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str | Markup]],
    caption: str = "",
    words: bool = False,
) -> Markup:
    """A table: the first cell of a row is its name, the others are numbers, or `words`."""
    return fill("table.html", header=header, rows=rows, caption=caption, words=words)


def details(summary: str, text: str) -> Markup:
    """Preformatted text that is folded away."""
    template = Markup("<details><summary>{}</summary><pre>{}</pre></details>")
    return template.format(summary, text)


def figure(chart: Markup, title: str, caption: str = "") -> Markup:
    """A chart with its title, and one sentence below it."""
    return fill("figure.html", chart=chart, title=title, caption=caption)


def columns(*parts: Markup) -> Markup:
    """Parts side by side where there is room."""
    return Markup('<div class="columns">{}</div>').format(Markup("").join(parts))


def legend(classes: Sequence[str], palette: Sequence[Sequence[int]]) -> Markup:
    """The colours of the classes."""
    items = [(name, colour_of(rgb)) for name, rgb in zip(classes, palette, strict=True)]
    return fill("legend.html", items=items)


def colour_of(rgb: Sequence[int]) -> str:
    """`#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def strip(title: str, tiles: Sequence[Tile], remark: str = "") -> Markup:
    """A row of samples under a small heading."""
    return fill("strip.html", title=title, tiles=tiles, remark=remark)


def gallery(tiles: Sequence[Tile], classes: Sequence[str], order: str) -> Markup:
    """Samples to filter by class and to sort by `order`, with a slider for their masks."""
    return fill("gallery.html", tiles=tiles, classes=list(enumerate(classes)), order=order)


def pairs(rows: Sequence[tuple[Tile, Tile]], left: str, right: str) -> Markup:
    """Pairs of pictures, side by side under the headings `left` and `right`."""
    return fill("pairs.html", rows=rows, left=left, right=right)


def _with_code(text: str) -> Markup:
    """Escaped text, in which `words` are code."""
    parts = re.split(r"`([^`]*)`", text)
    made = [
        Markup("<code>{}</code>").format(part) if i % 2 else Markup("{}").format(part)
        for i, part in enumerate(parts)
    ]
    return Markup("").join(made)
