"""Driving the labelling page in a browser: its server as a process, strokes, and whole masks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

STARTING_SEC = 180
WAIT_MS = 180_000
STRAIGHT_PX = 0.75  # how far a drawn outline may be from the exact one


class Server:
    """`factory annotate FOLDER` as a process, at one port through all its lives."""

    def __init__(self, folder: Path, *options: str):
        self.folder, self.options = folder, options
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        command = [sys.executable, "-m", "factory", "annotate", str(self.folder), "--no-browser"]
        self.process = subprocess.Popen([*command, "--port", str(self.port), *self.options])
        deadline = time.monotonic() + STARTING_SEC
        while True:
            try:
                urllib.request.urlopen(f"{self.url}api/project", timeout=5).close()
                return
            except OSError:
                assert self.process.poll() is None, "the server ended"
                assert time.monotonic() < deadline, "the server did not start"
                time.sleep(0.1)

    def kill(self) -> None:
        """No chance to tidy up."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Hand:
    """Somebody at the page `page`, in coordinates of the picture."""

    def __init__(self, page: Any, url: str = ""):
        self.page = page
        if url:
            self.open(url)

    def open(self, url: str, name: str = "000000") -> None:
        self.page.goto(f"{url}#{name}")
        self.page.wait_for_selector(f"#view[data-name='{name}']", timeout=WAIT_MS)
        self.saved()

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the picture is on the screen."""
        box = self.page.locator("#picture").bounding_box()
        width, height = self.page.evaluate("[picture.width, picture.height]")
        return box["x"] + x * box["width"] / width, box["y"] + y * box["height"] / height

    def stroke(self, *points: tuple[float, float]) -> None:
        self.page.mouse.move(*self.at(*points[0]))
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*self.at(*point))
        self.page.mouse.up()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def saved(self) -> None:
        self.page.wait_for_selector("#saved[data-state=saved]", timeout=WAIT_MS)

    def polygon(self, points: np.ndarray) -> None:
        """Corners `[N, 2]` (x, y), closed with Enter."""
        (left, top), (right, bottom) = self.at(0, 0), self.at(1, 1)
        for x, y in points:
            self.page.mouse.click(left + x * (right - left), top + y * (bottom - top))
        self.press("Enter")

    def copy(self, exact: np.ndarray) -> None:
        """Draw a mask uint8 `[H, W]`: the most frequent class as a fill, then a polygon a part."""
        base = int(np.bincount(exact.ravel()).argmax())
        self.press(str(base + 1), "f")
        self.page.mouse.click(*self.at(0.5, 0.5))
        self.press("p")
        for class_id, corners in parts(exact, base):
            self.press(str(class_id + 1))
            self.polygon(corners)
        self.saved()


def mask(folder: Path, name: str) -> np.ndarray:
    """What is on disk, uint8 `[H, W]`."""
    with Image.open(folder / "masks" / f"{name}.png") as file:
        return np.array(file)


def parts(exact: np.ndarray, base: int) -> list[tuple[int, np.ndarray]]:
    """Class and outline of every connected part that is not `base`, large ones first.

    Parts are filled: what lies in their holes comes later, being smaller.
    """
    found = []
    for class_id in np.unique(exact):
        labels, count = ndimage.label(exact == class_id)
        for number in range(1, count + 1):
            part = ndimage.binary_fill_holes(labels == number)
            if class_id != base or not part[0].any():
                found.append((int(part.sum()), int(class_id), part))
    found.sort(key=lambda one: -one[0])
    return [(class_id, simplified(outline(part))) for _, class_id, part in found]


def simplified(corners: np.ndarray) -> np.ndarray:
    """Fewer corners, none further than STRAIGHT_PX from the outline (Ramer, Douglas, Peucker)."""
    far = int(((corners - corners[0]) ** 2).sum(1).argmax())
    halves = corners[: far + 1], np.concatenate([corners[far:], corners[:1]])
    return np.concatenate([_straightened(half)[:-1] for half in halves])


def _straightened(line: np.ndarray) -> np.ndarray:
    along = (line[-1] - line[0]) / max(float(np.hypot(*(line[-1] - line[0]))), 1e-9)
    away = line - line[0]
    distance = np.abs(away[:, 0] * along[1] - away[:, 1] * along[0])
    if len(line) < 3 or distance.max() <= STRAIGHT_PX:
        return line[[0, -1]]
    at = int(distance.argmax())
    return np.concatenate([_straightened(line[: at + 1])[:-1], _straightened(line[at:])])


def outline(part: np.ndarray) -> np.ndarray:
    """The corners `[N, 2]` (x, y) of the outer edge of a part, bool `[H, W]`, edges of pixels."""
    padded = np.pad(part, 1)
    y, x = (int(v) for v in np.argwhere(padded)[0])
    start = place = (x, y)  # the upper left corner of its first pixel, walking right
    step, corners = (1, 0), []
    while True:
        # Ahead, left and right of the edge that is walked; the part is on the right.
        ahead = {(dx, dy): _pixels(padded, place, (dx, dy)) for dx, dy in _turns(step)}
        turned = next(d for d in _turns(step) if ahead[d] == (False, True))
        if turned != step or not corners:
            corners.append(place)
        step = turned
        place = (place[0] + step[0], place[1] + step[1])
        if place == start:
            break
    return np.array(corners, float) - 1


def _turns(step: tuple[int, int]) -> list[tuple[int, int]]:
    """Right, straight, left: parts that touch at a corner stay apart."""
    dx, dy = step
    return [(-dy, dx), (dx, dy), (dy, -dx)]


def _pixels(part: np.ndarray, place: tuple[int, int], step: tuple[int, int]) -> tuple[bool, bool]:
    """The pixels on the left and on the right of the edge from `place` in direction `step`."""
    x, y = place
    left, right = {
        (1, 0): ((y - 1, x), (y, x)),
        (-1, 0): ((y, x - 1), (y - 1, x - 1)),
        (0, 1): ((y, x), (y, x - 1)),
        (0, -1): ((y - 1, x - 1), (y - 1, x)),
    }[step]
    return bool(part[left]), bool(part[right])
