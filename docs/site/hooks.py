"""What `mkdocs build` does beyond Markdown: pages from the code, links, equations.

The documents in `docs/` are also read in a repository browser. There, links may leave `docs/`; here
they lead to the page of the same file, or become plain text if it has none.
"""

from __future__ import annotations

import importlib.util
import posixpath
import re
from pathlib import Path
from types import ModuleType
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
# Pages of the site that are files elsewhere in the repository.
ELSEWHERE = {
    "benchmarks.md": "benchmarks/README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "embedded-domain.md": "factory/demo/README.md",
}
COMMANDS = "commands.md"
PAGE_OF = {source: page for page, source in ELSEWHERE.items()}
FENCED = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[([^\[\]]+)\]\(([^()\s]+)\)|(!\[[^\[\]]*\])\(([^()\s]+)\)")
EQUATION = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
ENTITIES = {"&lt;": "<", "&gt;": ">", "&amp;": "&"}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are not in `docs/`."""
    for page, source in ELSEWHERE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text("utf-8")))
    files.append(File.generated(config, COMMANDS, content=_beside("commands").reference()))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: Any) -> str:
    """Point links at pages of the site; those to other files of the repository lose the link."""
    here = page.file.src_uri
    source = ELSEWHERE.get(here, f"docs/{here}")

    def pointed(match: re.Match[str]) -> str:
        text, link, image, picture = match.groups()
        target = link or picture
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        path, _, anchor = target.partition("#")
        file = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        inside = PAGE_OF.get(file, file.removeprefix("docs/"))
        if inside not in files.src_uris and (ROOT / file).exists() and not picture:
            return text
        found = posixpath.relpath(inside, posixpath.dirname(here) or ".")
        return f"{image or f'[{text}]'}({found}{'#' if anchor else ''}{anchor})"

    parts = FENCED.split(markdown)  # every other part is code
    return "".join(part if i % 2 else LINK.sub(pointed, part) for i, part in enumerate(parts))


def on_page_content(html: str, **_: Any) -> str:
    """Equations as MathML, which browsers draw without a script."""

    def drawn(match: re.Match[str]) -> str:
        tex = re.sub("&(lt|gt|amp);", lambda entity: ENTITIES[entity[0]], match[3])
        return convert(tex.strip(), display="block" if match[2] == "[" else "inline")

    return EQUATION.sub(drawn, html)


def _beside(name: str) -> ModuleType:
    """The module of this name in this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
