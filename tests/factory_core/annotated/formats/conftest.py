"""Pictures and small export folders, as the programs write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from factory.demo.render import PALETTE, render_folder
from factory_core.annotated.formats.importing import import_annotations
from factory_core.annotated.formats.regions import Source, Tally
from factory_core.dataset import encode_mask


class Back(NamedTuple):
    """An imported folder, read."""

    ids: dict[str, np.ndarray]
    classes: list[str]
    overlapped: int
    tally: Tally
    folder: Path


@pytest.fixture(scope="session")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 smears of the demo; three have pixels to ignore, and one a hole of one pixel."""
    folder = tmp_path_factory.mktemp("demo") / "annotated"
    render_folder(folder, range(24))
    for number, path in enumerate(sorted((folder / "masks").iterdir())[:3]):
        ids = np.array(Image.open(path))
        ids[3:9, 5 + number : 8] = 255
        ids[40:47, 40:47] = 4
        ids[43, 43] = 1
        path.write_bytes(encode_mask(ids, PALETTE))
    return folder


@pytest.fixture
def picture() -> Callable[..., Path]:
    """`picture(path, height, width, ...)` writes a picture of noise, with options of Pillow."""

    def write(path: Path, height: int = 6, width: int = 8, seed: int = 0, **how: object) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(path, **how)
        return path

    return write


@pytest.fixture
def back(tmp_path: Path) -> Callable[..., Back]:
    """`back(format, source, ...)` imports a folder and reads what was written."""

    def read(name: str, source: Path, out: str = "back", classes=None, **how) -> Back:
        found = import_annotations(name, Source(source, **how), tmp_path / out, classes)
        masks = (tmp_path / out / "masks").iterdir()
        ids = {path.stem: np.array(Image.open(path)) for path in masks}
        assert len(ids) == found.pictures
        return Back(ids, found.classes, found.overlapped, found.tally, tmp_path / out)

    return read
