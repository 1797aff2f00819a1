"""From the sections of a report to its HTML."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


@dataclass(frozen=True)
class Section:
    """A heading, one sentence below it, and HTML."""

    title: str
    lead: str
    body: Sequence[Markup]

    @property
    def anchor(self) -> str:
        """The `id` of the heading: its words in lower case."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Page:
    """A report: `kind` is what it is about, `summary` says in one sentence what that is."""

    title: str
    kind: str
    summary: str
    opening: Sequence[Markup]
    sections: Sequence[Section]


def render(page: Page) -> bytes:
    """The HTML file, UTF-8. Equal pages give equal bytes."""
    style, script = _asset("style.css"), _asset("page.js")
    text = (
        _environment()
        .get_template("page.html")
        .render(
            page=page, style=Markup(style), script=Markup(script), policy=_policy(style, script)
        )
    )
    return text.encode()


def fill(template: str, **values: Any) -> Markup:
    """A template of this folder, filled; values are escaped unless they are `Markup`."""
    return Markup(_environment().get_template(template).render(**values).strip())


def _policy(style: str, script: str) -> str:
    """Nothing is loaded, and only this style and this script apply, whatever the data hold."""
    return (
        f"default-src 'none'; img-src data:; style-src {_source(style)}; "
        f"script-src {_source(script)}; base-uri 'none'; form-action 'none'"
    )


def _source(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader(__package__, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
