"""A report as one HTML file: it opens from disk, loads nothing, and runs only its own script.

Everything in a report goes through jinja2 with autoescape on, or `Markup.format`, which escapes its
arguments: names of classes and files are text that users wrote.
"""

from factory.reports.page.parts import (
    Fact,
    Tile,
    columns,
    details,
    facts,
    figure,
    gallery,
    legend,
    note,
    pairs,
    paragraph,
    strip,
    table,
)
from factory.reports.page.writing import Page, Section, render

__all__ = [
    "Fact",
    "Page",
    "Section",
    "Tile",
    "columns",
    "details",
    "facts",
    "figure",
    "gallery",
    "legend",
    "note",
    "pairs",
    "paragraph",
    "render",
    "strip",
    "table",
]
