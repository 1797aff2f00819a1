"""Tiny datasets of coloured squares, which a network learns in a few steps."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from factory_core.dataset import (
    FileInfo,
    Manifest,
    TarWriter,
    Totals,
    default_palette,
    encode_sample,
    sample_key,
)
from factory_core.storage import atomic_file
from train_seg.config import SegmenterConfig
from train_seg.data.training_data import LabeledImages

CLASSES = ["ground", "red", "blue"]


@pytest.fixture(autouse=True)
def _quick_loaders(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loader processes are forked from one that has imported everything; slow tests spawn them."""
    multiprocessing.set_forkserver_preload(["train_seg.training.train"])
    if request.node.get_closest_marker("slow") is None:
        quick = {"spawn": "forkserver"}
        monkeypatch.setattr(
            torch.multiprocessing,
            "get_context",
            lambda method=None: multiprocessing.get_context(quick.get(method, method)),
        )


def make_pair(index: int, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 `[3, H, W]` with a red and a blue square, and its mask."""
    rng = np.random.default_rng(index)
    image = rng.integers(60, 90, (3, size, size)).astype(np.uint8)
    mask = np.zeros((size, size), np.uint8)
    side = size // 2
    for label, channel in ((1, 0), (2, 2)):
        top, left = rng.integers(0, size - side, 2)
        image[:, top : top + side, left : left + side] = 20
        image[channel, top : top + side, left : left + side] = 230
        mask[top : top + side, left : left + side] = label
    return image, mask


def make_labeled(count: int = 8, size: int = 32, first: int = 1000) -> LabeledImages:
    """Annotated images in memory."""
    images, masks = zip(*(make_pair(first + i, size) for i in range(count)), strict=True)
    return LabeledImages(
        torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(masks)), CLASSES
    )


def write_dataset(
    folder: Path,
    shards: tuple[int, ...] = (5, 4, 3),
    classes: list[str] = CLASSES,
    size: int = 32,
    change: Callable[[int, np.ndarray], np.ndarray] = lambda _, mask: mask,
    declared: int | None = None,
    levels: Callable[[np.ndarray], np.ndarray] | None = None,
    histogram: list[int] | None = None,
    probabilities: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Path:
    """A finished dataset folder; `change` may damage masks, `declared` the number of samples.

    `levels` maps a mask to its uncertainty map, `probabilities` to its class probabilities in
    levels; `histogram` goes into the manifest.
    """
    (folder / "shards").mkdir(parents=True)
    palette = default_palette(len(classes))
    infos, index = [], 0
    for number, count in enumerate(shards):
        path = folder / "shards" / f"squares-{number:06d}.tar"
        with atomic_file(path) as file:
            tar = TarWriter(file)
            for _ in range(count):
                image, mask = make_pair(index, size)
                mask = change(index, mask)
                maps = (make and make(mask) for make in (levels, probabilities))
                about = {"index": index}
                tar.add(encode_sample(sample_key(index), image, mask, palette, about, "png", *maps))
                index += 1
            tar.close()
        infos.append(FileInfo.of(path, declared or count))
    samples = folder / "samples.parquet"
    samples.write_bytes(b"")
    Manifest(
        name="squares",
        recipe_digest="0" * 64,
        recipe={},
        weights={},
        source={},
        classes=classes,
        palette=palette,
        image_size=(size, size),
        image_format="png",
        shards=infos,
        samples=FileInfo.of(samples, index),
        totals=Totals(candidates=index, kept=index, dropped=0, bytes=0, class_pixels=[]),
        uncertainty_threshold=0.0,
        uncertainty_histogram=histogram,
        probabilities=probabilities is not None,
    ).write(folder)
    return folder


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Twelve samples of 32x32 pixels in three shards."""
    return write_dataset(tmp_path / "data")


@pytest.fixture
def config() -> SegmenterConfig:
    """A small, cheap network and a few steps."""
    return SegmenterConfig(
        encoder="resnet18", encoder_depth=3, batch_size=4, max_steps=6, validate_every=3
    )


@pytest.fixture(name="make_labeled")
def _make_labeled() -> Callable[..., LabeledImages]:
    return make_labeled


@pytest.fixture(name="write_dataset")
def _write_dataset() -> Callable[..., Path]:
    return write_dataset


@pytest.fixture
def by_colour() -> Callable[[torch.Tensor], torch.Tensor]:
    """A perfect segmenter of the squares: it distinguishes them by their channel."""

    def predict(images: torch.Tensor) -> torch.Tensor:
        masks = torch.zeros(images.shape[0], *images.shape[2:], dtype=torch.uint8)
        masks[images[:, 0] > 200] = 1
        masks[images[:, 2] > 200] = 2
        return masks

    return predict
