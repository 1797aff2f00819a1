"""The documentation as a site, and its links: those of the site, and those of the files."""

from __future__ import annotations

import ast
import functools
import html.parser
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.documents import FENCE, ROOT, documents

# Tags and attributes that a browser follows by itself when it shows a page.
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
FILES = [
    *documents(),
    *(
        ROOT / name
        for name in ("CONTRIBUTING.md", "benchmarks/README.md", "factory/demo/README.md")
    ),
]
LINK = re.compile(r"\]\(([^()\s]+)\)")
PACKAGES = ("factory", "factory_core", "generators", "labelers", "train_seg")


class Links(html.parser.HTMLParser):
    """The ids of a page, what it links to, and what it loads."""

    def __init__(self, page: str):
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value}
        self.ids |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag in LOADED and LOADED[tag] in values and values.get("rel") != "canonical":
            self.loaded.append(values[LOADED[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a warning is an error."""
    out = tmp_path_factory.mktemp("site")
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stdout + result.stderr) == (0, "")
    return out


@pytest.mark.slow
def test_no_link_of_the_site_is_broken(site: Path) -> None:
    pages = {path: Links(path.read_text("utf-8")) for path in site.rglob("*.html")}
    assert len(pages) > len(documents()) - 1  # without the repository's README
    broken = []
    for path, page in pages.items():
        if path.name == "404.html":  # its links are those of a server
            continue
        for link in (*page.links, *page.loaded):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            anchor = unquote(parts.fragment)
            if not target.is_file() or (anchor and anchor not in pages[target].ids):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert not broken, "\n".join(broken)


@pytest.mark.slow
def test_the_site_loads_nothing_from_other_hosts(site: Path) -> None:
    for path in site.rglob("*.html"):
        hosts = [link for link in Links(path.read_text("utf-8")).loaded if urlsplit(link).netloc]
        assert not hosts, path
    for path in site.rglob("*.css"):
        assert not re.findall(r"url\(\s*[\"']?(?:https?:)?//", path.read_text("utf-8")), path


@pytest.mark.slow
def test_the_site_describes_every_command_and_class(site: Path) -> None:
    commands = Links((site / "commands.html").read_text("utf-8")).ids
    assert {"generate", "train-generator", "train-deeplab", "predict", "compare"} <= commands
    text = (site / "commands.html").read_text("utf-8")
    assert "{" not in re.sub(r"<(script|style|code).*?</\1>", "", text, flags=re.DOTALL)
    api = (site / "api.html").read_text("utf-8")
    assert all(name in api for name in ("open_dataset", "Generator", "Labeler", "Segmenter"))
    method = (site / "method.html").read_text("utf-8")
    assert "<math" in method
    assert "arithmatex" not in method


@functools.cache
def anchors(path: Path) -> set[str]:
    """The anchors that a repository browser gives the headings of a Markdown file."""
    text = FENCE.sub("", path.read_text("utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_link_of_a_file_is_broken(path: Path) -> None:
    for link in LINK.findall(FENCE.sub("", path.read_text("utf-8"))):
        parts = urlsplit(link)
        if parts.scheme:
            continue
        target = (path.parent / parts.path).resolve() if parts.path else path
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        assert not parts.fragment or parts.fragment in anchors(target), link


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_belongs_to_an_item_is_indented_by_four(path: Path) -> None:
    """Repository browsers accept two spaces; the site would end the list there."""
    text = path.read_text("utf-8")
    assert not re.findall(r"^ {1,3}```", text, re.MULTILINE)
    assert not re.findall(r"\n\n {1,3}\S.*", FENCE.sub("", text))


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8").split("\nnav:\n")[1]
    listed = set(re.findall(r"[- ]([\w/-]+\.md)$", navigation, re.MULTILINE))
    written = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert written <= listed


# --- troubleshooting -------------------------------------------------------------------------


@functools.cache
def texts_of_the_code() -> list[str]:
    """Every string of the packages; what a message fills in is a `…`."""
    found = []
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = (v.value if isinstance(v, ast.Constant) else "…" for v in node.values)
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


def messages() -> list[str]:
    """The messages of the program that the page explains: the code in its headings."""
    text = (ROOT / "docs/troubleshooting.md").read_text("utf-8")
    heads = re.findall(r"^### (.*`.*)$", text, re.MULTILINE)
    quoted = [message for head in heads for message in re.findall(r"`([^`]+)`", head)]
    others = ("factory: command not found", "factory", "ImportError", "CUDA out of memory")
    return [message.removeprefix("note: ") for message in quoted if message not in others]


def test_there_are_messages_to_look_for() -> None:
    assert len(messages()) > 25


@pytest.mark.parametrize("message", messages())
def test_a_message_of_the_page_is_one_of_the_code(message: str) -> None:
    pieces = [piece.strip(" :()") for piece in message.split("…")]
    assert any(all(piece in text for piece in pieces) for text in texts_of_the_code())
