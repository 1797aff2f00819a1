"""The labelling page in a real browser: nothing drawn is lost, and everyone can use it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe

from factory.demo.render import render, render_folder
from tests.browser import page
from tests.factory.annotation.page.drawing import WAIT_MS, Hand, Server, mask

pytestmark = pytest.mark.slow

NO_SERVER = ("ERR_CONNECTION_REFUSED", "ERR_EMPTY_RESPONSE", "ERR_CONNECTION_RESET")
SEVERE = ("serious", "critical")


def demo(place: Path, count: int, drawn: bool = False) -> Path:
    """Demo images, whose masks are exact or not there."""
    render_folder(place, range(count), 64)
    for file in [] if drawn else (place / "masks").iterdir():
        file.unlink()
    return place


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(demo(tmp_path / "annotated", 2)) as running:
        yield running


def test_draw_undo_propose_accept_correct_kill_restart_reload(tmp_path: Path) -> None:
    folder = demo(tmp_path / "annotated", 2)
    helped = "--generator", "package:factory.demo/generator"
    with Server(folder, *helped) as server, page(expected=NO_SERVER) as shown:
        hand = Hand(shown, server.url)
        hand.press("1")
        hand.stroke((4, 4), (30, 6))
        hand.press("2")
        hand.stroke((20, 40), (24, 44))
        hand.stroke((50, 50), (60, 60))
        hand.press("Control+z")
        hand.saved()
        assert mask(folder, "000000")[55, 55] == 255
        hand.press("Control+Shift+z")
        hand.saved()
        assert mask(folder, "000000")[55, 55] == 1

        shown.wait_for_selector("#view[data-proposal]", timeout=WAIT_MS)
        before = mask(folder, "000000")
        hand.press("g")  # a region around a stroke of the class, accepted with Enter
        shown.mouse.click(*hand.at(22.5, 42.5))
        shown.locator("#message", has_text="region").wait_for(timeout=WAIT_MS)
        hand.press("Enter")
        hand.saved()
        region = mask(folder, "000000")
        assert (region == 1).sum() > (before == 1).sum()
        y, x = np.argwhere(region == 255)[100]
        hand.press("a")  # the part of a proposal under a click
        shown.mouse.click(*hand.at(x + 0.5, y + 0.5))
        hand.saved()
        assert mask(folder, "000000")[y, x] != 255

        shown.click("#accept-all")
        hand.saved()
        accepted = mask(folder, "000000")
        assert not (accepted == 255).any()
        shown.get_by_text("1 of 2 drawn").wait_for(timeout=WAIT_MS)

        hand.press("b", "4")
        hand.stroke((32, 32), (33, 33))
        hand.saved()
        corrected = mask(folder, "000000")
        assert corrected[32, 32] == 3
        assert (corrected != accepted).sum() < 200

        server.kill()
        hand.press("5")
        hand.stroke((10, 55), (12, 55))  # nobody there to save it
        shown.wait_for_selector("#saved[data-state=offline]", timeout=WAIT_MS)
        server.start()
        hand.saved()  # by itself
        assert mask(folder, "000000")[55, 11] == 4

        server.kill()
        hand.stroke((40, 55), (42, 55))
        shown.wait_for_selector("#saved[data-state=offline]", timeout=WAIT_MS)
        shown.goto("about:blank")  # closed before the server is back
        server.start()
        hand.open(server.url)
        hand.saved()
        final = mask(folder, "000000")
        assert final[55, 41] == 4
        rest = np.ones_like(final, bool)
        rest[48:62, :] = False  # where the last strokes are
        np.testing.assert_array_equal(final[rest], corrected[rest])


def test_two_tabs(server: Server) -> None:
    conflict = ("409",)
    with page(expected=conflict) as one:
        other = one.context.new_page()
        first, second = Hand(one, server.url), Hand(other, server.url)
        first.stroke((10, 10), (20, 10))
        first.saved()
        other.get_by_text("changed in another tab and was read again").wait_for(timeout=WAIT_MS)
        # A tab that does not hear of changes draws on an old version.
        other.route("**/api/state*", lambda route: None)
        other.reload()
        other.wait_for_selector("#view[data-name]", timeout=WAIT_MS)
        second.saved()
        first.stroke((10, 30), (20, 30))
        first.saved()
        second.stroke((10, 50), (20, 50))
        other.get_by_text("with your last stroke on top").wait_for(timeout=WAIT_MS)
        second.saved()
    drawn = mask(server.folder, "000000")
    assert [drawn[y, 15] for y in (10, 30, 50)] == [1, 1, 1]


def test_keyboard_alone(server: Server) -> None:
    with page() as shown:
        hand = Hand(shown, server.url)
        shown.locator("#view").focus()
        hand.press("3", "[", "[", "[", "[")  # one pixel
        hand.press(" ", *["ArrowRight"] * 3, " ")  # from the middle, 32, 32
        hand.press("4", "p", "ArrowDown", "ArrowDown")
        for keys in ([], ["Shift+ArrowDown"], ["Shift+ArrowLeft"], ["Shift+ArrowUp"]):
            hand.press(*keys, " ")
        hand.press("Enter")
        hand.press("1", "f", "Shift+ArrowUp", " ")
        hand.saved()
        hand.press("PageDown")
        shown.wait_for_selector("#view[data-name='000001']", timeout=WAIT_MS)
    drawn = mask(server.folder, "000000")
    assert drawn[32, 32:35].tolist() == [2, 2, 2]
    assert (drawn[36:43, 27:34] == 3).all()
    assert set(np.unique(drawn)) == {0, 2, 3}


def test_touch_draws_with_one_finger_and_moves_with_two(server: Server) -> None:
    with page(has_touch=True) as shown:
        hand = Hand(shown, server.url)
        client = shown.context.new_cdp_session(shown)

        def touch(kind: str, *points: tuple[float, float]) -> None:
            places = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]
            client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

        touch("touchStart", hand.at(10, 10))
        touch("touchMove", hand.at(20, 10))
        touch("touchEnd")
        hand.saved()
        before = shown.locator("#picture").bounding_box()["width"]
        a, b = hand.at(30, 40), hand.at(34, 40)
        touch("touchStart", a)
        touch("touchStart", a, b)
        touch("touchMove", (a[0] - 60, a[1]), (b[0] + 60, b[1]))
        touch("touchEnd")
        assert shown.locator("#picture").bounding_box()["width"] > 1.5 * before
        hand.saved()
    drawn = mask(server.folder, "000000")
    assert drawn[10, 15] == 1
    assert (drawn[30:] == 255).all()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible(server: Server, scheme: str) -> None:
    with page(color_scheme=scheme) as shown:
        hand = Hand(shown, server.url)
        hand.stroke((10, 10), (20, 10))
        hand.saved()
        found = severe(shown)
        hand.press("?")
        shown.locator("#help").wait_for()
        found += severe(shown)
    assert not found, json.dumps(found, indent=1)


def severe(shown: Any) -> list[tuple[str, str]]:
    """Serious and critical violations: rule and element."""
    violations = Axe().run(shown).response["violations"]
    return [
        (v["id"], node["html"]) for v in violations if v["impact"] in SEVERE for node in v["nodes"]
    ]


def test_masks_drawn_through_the_page_train_like_exact_ones(
    tmp_path: Path, factory: Callable
) -> None:
    exact = demo(tmp_path / "exact", 10, drawn=True)
    drawn = demo(tmp_path / "drawn", 10)
    names = [f"{i:06d}" for i in range(10)]
    with Server(drawn) as server, page() as shown:
        hand = Hand(shown)
        for name in names:
            hand.open(server.url, name)
            hand.copy(mask(exact, name))
    wrong = np.mean([(mask(drawn, name) != mask(exact, name)).mean() for name in names])
    assert 0 < wrong < 0.03
    scores = {}
    for folder in (exact, drawn):
        out = tmp_path / f"labeler-{folder.name}"
        common = ["--generator", "package:factory.demo/generator", "--device", "cpu"]
        done = factory("train-labeler", "--labeled", folder, "--out", out, "--fast", *common)
        assert done.code == 0, done.err
        scores[folder.name] = held_out_miou(out)
    print(f"wrong pixels {wrong:.4f}, held-out mIoU {scores}")
    assert abs(scores["drawn"] - scores["exact"]) < 0.02


def held_out_miou(labeler: Path, count: int = 24) -> float:
    """mIoU of a labeler on smears that it has not seen, pixels of all of them together."""
    import torch

    from factory.annotation.samples import load_generator
    from factory.recipe import recipe_of_labeler
    from labelers.labeler import Labeler

    config = recipe_of_labeler(str(labeler)).generator
    generator, _ = load_generator("generator", config, "cpu")
    loaded = Labeler.load(labeler, torch.device("cpu"))
    inside, either = np.zeros(5), np.zeros(5)
    for start in range(1000, 1000 + count, 8):
        smears = [render(i, 64) for i in range(start, start + 8)]
        images = torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image, _ in smears])
        found = loaded.predict(images, generator.encode(images, range(8)), (64, 64)).mask.numpy()
        wanted = np.stack([ids for _, ids in smears])
        for c in range(5):
            inside[c] += ((found == c) & (wanted == c)).sum()
            either[c] += ((found == c) | (wanted == c)).sum()
    return float((inside / either).mean())
