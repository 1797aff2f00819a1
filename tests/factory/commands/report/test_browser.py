"""Both kinds of report in a browser: themes, widths, keyboard, and what is painted."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from factory.demo.render import CLASSES, render_folder
from tests import browser
from tests.made_up import write_dataset

WIDE, PHONE = (1280, 900), (390, 844)
HOSTILE = ("ground", "<b>cell</b>", '"><img src=x onerror="document.title=1">')


@pytest.fixture(scope="module")
def reports(
    factory: Callable, tiny_segmenter: Callable, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Files by kind."""
    home = tmp_path_factory.mktemp("reports")
    write_dataset(home / "data", 120, classes=HOSTILE)
    tiny_segmenter(CLASSES).save(home / "model")
    (home / "model" / "curves.csv").write_text("step,loss\n10,1.5\n20,0.9\n")
    render_folder(home / "test", range(4), size=32)
    made = {"data": (), "model": ("--labeled", home / "test")}
    for name, given in made.items():
        result = factory("report", home / name, *given)
        assert result.code == 0, result.err
    return {name: home / name / "report.html" for name in made}


@contextmanager
def opened(file: Path, size: tuple[int, int] = WIDE, theme: str = "light") -> Iterator[Any]:
    """The page from disk; fails for a message in the console and for any request."""
    with browser.page(*size, color_scheme=theme) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        yield page
        assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]


@pytest.mark.slow
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["data", "model"])
def test_screenshots(
    kind: str, theme: str, size: tuple[int, int], reports: dict[str, Path]
) -> None:
    with opened(reports[kind], size, theme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        picture = np.asarray(Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB"))
        assert page.title() != "1"
        grounds = {"light": (200, 256), "dark": (0, 60)}[theme]
        common = np.bincount(picture.mean(axis=2).astype(int).ravel()).argmax()
        assert grounds[0] <= common < grounds[1]
        # Every picture, chart and sample, is there and is not one flat colour.
        for element in page.locator("main svg[role=img], .stack:visible").all()[:40]:
            box = element.bounding_box()
            left, top = int(box["x"]), int(box["y"])
            part = picture[top : top + int(box["height"]), left : left + int(box["width"])]
            assert part.std() > 3


@pytest.mark.slow
def test_gallery_by_mouse_and_keyboard(reports: dict[str, Path]) -> None:
    with opened(reports["data"]) as page:
        tiles, gallery = page.locator(".gallery .tile:visible"), page.locator(".gallery")
        assert tiles.count() == 48
        gallery.get_by_role("button", name="Show more").click()
        assert tiles.count() == 96

        gallery.get_by_label("With class").select_option("2")
        wanted = tiles.evaluate_all("all => all.every(t => t.dataset.classes.includes(' 2 '))")
        assert wanted
        assert 0 < tiles.count() < 48
        gallery.get_by_label("With class").select_option("")
        gallery.get_by_label("Order").select_option("down")
        orders = tiles.evaluate_all("all => all.map(t => Number(t.dataset.order))")
        assert orders == sorted(orders, reverse=True)

        mask = tiles.first.locator(".mask")
        gallery.get_by_label("Mask").fill("100")
        assert mask.evaluate("m => getComputedStyle(m).opacity") == "1"
        gallery.get_by_label("Mask").fill("0")
        assert mask.evaluate("m => getComputedStyle(m).opacity") == "0"

        tiles.first.focus()
        page.keyboard.press("Enter")
        name = page.locator("dialog .name")
        first = name.text_content()
        assert first.startswith("sample ")
        page.keyboard.press("ArrowRight")
        assert name.text_content() != first
        page.keyboard.press("ArrowLeft")
        assert name.text_content() == first
        page.keyboard.press("Escape")
        assert not page.locator("dialog").is_visible()


@pytest.mark.slow
def test_the_theme_can_be_chosen(reports: dict[str, Path]) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    with opened(reports["model"], theme="dark") as page:
        dark, button = page.evaluate(ground), page.locator("#theme")
        button.click()
        assert button.text_content() == "Theme: light"
        light = page.evaluate(ground)
        assert light != dark
        button.click()
        assert page.evaluate(ground) == dark
        page.emulate_media(media="print")
        assert page.evaluate(ground) == "rgb(255, 255, 255)"
        assert not page.locator("nav").is_visible()
