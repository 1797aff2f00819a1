"""The pictures of the labelling page in docs/annotating.md: `python -m benchmarks.page_pictures`.

Serves demo images with the embedded generator, draws a few strokes in Chromium, waits for the
proposal and photographs the page. Takes a minute. Needs the `dev` packages and Chromium.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from factory.demo.render import render_folder
from factory_core.storage import write_bytes
from tests.browser import page
from tests.factory.annotation.page.drawing import WAIT_MS, Hand, Server

IMAGES = Path(__file__).parents[1] / "docs" / "images"
COUNT, SIZE, SHOWN = 8, 256, "000004"
# Class and points of each stroke, in pixels of the picture.
STROKES = (
    ("1", (200, 16), (240, 44)),
    ("1", (10, 160), (40, 196)),
    ("1", (190, 215), (205, 205)),
    ("2", (30, 75), (60, 100)),
    ("2", (85, 215), (112, 225)),
    ("3", (150, 55), (170, 65)),
    ("3", (106, 125), (118, 150)),
    ("4", (130, 125), (185, 100)),
    ("5", (160, 210), (158, 220)),
)
COLOURS = 256  # of a picture: keeps it under 200 kB


def photograph(shown: Any, name: str) -> None:
    """Save what the page shows as an index PNG."""
    picture = Image.open(io.BytesIO(shown.screenshot())).convert("RGB")
    picture = picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=1)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    write_bytes(IMAGES / name, buffer.getvalue())


def main() -> None:
    """Draw and photograph."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "smears"
        render_folder(folder, range(COUNT), SIZE)
        for file in list((folder / "masks").iterdir())[2:]:  # two are drawn already
            file.unlink()
        with Server(folder, "--generator", "package:factory.demo/generator") as server:
            with page() as shown:
                hand = Hand(shown)
                hand.open(server.url, SHOWN)
                for key, *points in STROKES:
                    hand.press(key)
                    hand.stroke(*points)
                hand.saved()
                for _ in range(3):  # the last stroke has been learnt from, too
                    shown.get_by_text("Learnt from what is drawn").wait_for(timeout=WAIT_MS)
                    shown.wait_for_timeout(1000)
                photograph(shown, "annotating.png")
            with page(color_scheme="dark") as shown:
                hand = Hand(shown)
                hand.open(server.url, SHOWN)
                hand.press("?")
                photograph(shown, "annotating-keys.png")


if __name__ == "__main__":
    main()
