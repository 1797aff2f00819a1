"""A real browser for the tests of pages: Chromium, run by Playwright.

A machine without it skips these tests. Where CI is set, as in `.ci/run`, it fails them instead: a
gate that skips says nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"),
    *("--disable-component-update", "--disable-sync"),
)
WIDTH_PX, HEIGHT_PX = 1280, 800


def chromium() -> Path:
    """The browser's program; skips the test without one, or fails it where CI is set."""
    for name in CHROMIUM:
        if found := shutil.which(name):
            return Path(found)
    missing = "found no Chromium: apt-get install chromium"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


@contextmanager
def browser() -> Iterator[Any]:
    """A headless `playwright.sync_api.Browser`."""
    program = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=list(QUIET))
        try:
            yield launched
        finally:
            launched.close()


@contextmanager
def page(
    width: int = WIDTH_PX, height: int = HEIGHT_PX, expected: tuple[str, ...] = (), **context: Any
) -> Iterator[Any]:
    """A `playwright.sync_api.Page` whose errors fail the test when it ends.

    Errors are exceptions and messages of level error in the console; those that hold one of the
    texts `expected` do not count. `context` are options of Playwright's `new_context`, such as
    `color_scheme="dark"`.
    """
    errors: list[str] = []
    with browser() as running:
        opened = running.new_context(viewport={"width": width, "height": height}, **context)
        shown = opened.new_page()
        shown.on("pageerror", lambda error: errors.append(str(error)))
        shown.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        try:
            yield shown
        except BaseException as error:
            error.add_note(f"errors of the page: {errors}")
            raise
    unexpected = [e for e in errors if not any(text in e for text in expected)]
    assert not unexpected, unexpected
