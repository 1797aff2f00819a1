"""The compared loaders do the same work."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from benchmarks.loader import check_same_pixels, ours, plain, write_both

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("both")
    write_both(path, 12)
    return path


def test_both_deliver_the_same_pixels_in_equal_batches(folder: Path) -> None:
    check_same_pixels(folder)
    for stream in (plain(folder, 4, 0), ours(folder, 4, 0)):
        for images, masks in itertools.islice(stream, 4):
            assert images.shape == (4, 3, 256, 256)
            assert masks.shape == (4, 256, 256)
            assert images.is_contiguous()


def test_different_pixels_are_noticed(folder: Path) -> None:
    masks = sorted((folder / "loose/masks").iterdir())
    content = masks[0].read_bytes()
    masks[0].write_bytes(masks[1].read_bytes())
    with pytest.raises(SystemExit, match="different pixels"):
        check_same_pixels(folder)
    masks[0].write_bytes(content)
