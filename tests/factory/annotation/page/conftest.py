"""A folder of pictures to draw on, and the page's server as a client of it sees it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from factory.annotation.page.app import Page, build
from factory.annotation.page.changes import Changes
from factory.annotation.page.folder import Folder

CLASSES = ["background", "cell", "nucleus"]
HERE = "http://127.0.0.1:8321"
OF_PAGE = {"Origin": HERE}


def save_pictures(place: Path, count: int = 3, size: tuple[int, int] = (12, 8)) -> Path:
    """`count` grey pictures of `size` (W, H) in `place`."""
    place.mkdir(parents=True)
    for i in range(count):
        Image.new("RGB", size, (40 * i, 90, 120)).save(place / f"p{i}.png")
    return place


@pytest.fixture
def annotated(tmp_path: Path) -> Path:
    save_pictures(tmp_path / "annotated" / "images")
    return tmp_path / "annotated"


@pytest.fixture
def serve(annotated: Path) -> Callable[..., TestClient]:
    """`serve()`: a client of a new server on the folder, as after a restart."""

    def start(token: str | None = None, folder: Path = annotated, **options: object) -> TestClient:
        page = Page(Folder(folder, CLASSES), Changes(), None, "no proposals")
        return TestClient(build(page, token), base_url=HERE, **options)  # type: ignore[arg-type]

    return start


def draw(
    client: TestClient,
    name: str,
    value: int,
    box: tuple[int, int, int, int] = (0, 0, 4, 2),
    base: str | None = None,
    **headers: str,
) -> object:
    """Draw a box of one class on revision `base`, by default the current one."""
    if base is None:
        base = client.get(f"/api/images/{name}/mask").headers["X-Revision"]
    x, y, w, h = box
    body = np.full((h, w), value, np.uint8).tobytes()
    query = {"x": x, "y": y, "w": w, "h": h, "base": base}
    path = f"/api/images/{name}/mask"
    return client.put(path, params=query, content=body, headers=OF_PAGE | headers)
