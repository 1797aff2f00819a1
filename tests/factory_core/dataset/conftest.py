"""A finished dataset as the pipeline writes it, without models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from factory_core.dataset import (
    FileInfo,
    ImageFormat,
    Manifest,
    TarWriter,
    Totals,
    default_palette,
    encode_sample,
    sample_key,
)
from factory_core.storage import Store, open_store

CLASSES = ["ground", "left", "right"]
DROPPED = 3  # the index that is not in the shards


def sample_of(index: int) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 `[3, 8, 8]` and mask uint8 `[8, 8]`: class 1 if even, else 2, on the left."""
    image = np.random.default_rng(index).integers(0, 256, (3, 8, 8), np.uint8)
    mask = np.zeros((8, 8), np.uint8)
    mask[:, : index % 7 + 1] = 1 + index % 2
    mask[0, 7] = 255
    return image, mask


def write_dataset(folder: str | Path | Store, image_format: ImageFormat = "png") -> Store:
    """Ten candidates, one dropped, in shards of four; sample i has uncertainty i / 10."""
    store, palette = open_store(folder), default_palette(3)
    (store / "shards").make()
    kept, rows, infos = [i for i in range(10) if i != DROPPED], [], []
    for number, start in enumerate(range(0, len(kept), 4)):
        name, here = f"tiny-{number:06d}.tar", kept[start : start + 4]
        with (store / "shards").new_file(name) as file:
            tar = TarWriter(file)
            for index in here:
                image, mask = sample_of(index)
                about = {"index": index, "uncertainty": index / 10}
                tar.add(encode_sample(sample_key(index), image, mask, palette, about, image_format))
            tar.close()
        infos.append(FileInfo.written(file, name, len(here)))
        rows += [(index, name) for index in here]
    rows.append((DROPPED, None))
    counts = [np.bincount(sample_of(i)[1].ravel(), minlength=256)[:3].tolist() for i, _ in rows]
    table = pa.table(
        {
            "key": [sample_key(i) for i, _ in rows],
            "index": [i for i, _ in rows],
            "uncertainty": pa.array([i / 10 for i, _ in rows], pa.float32()),
            "class_pixels": counts,
            "shard": [name for _, name in rows],
            "kept": [name is not None for _, name in rows],
            "reason": [None if name else "uncertain" for _, name in rows],
        }
    )
    with store.new_file("samples.parquet") as file:
        pq.write_table(table, file)
    Manifest(
        name="tiny",
        recipe_digest="0" * 64,
        recipe={},
        weights={},
        source={"kind": "generator"},
        classes=CLASSES,
        palette=palette,
        image_size=(8, 8),
        image_format=image_format,
        shards=infos,
        samples=FileInfo.written(file, "samples.parquet", 10),
        totals=Totals(candidates=10, kept=9, dropped=1, bytes=0, class_pixels=[]),
        uncertainty_threshold=0.9,
    ).write(store)
    return store


@pytest.fixture(name="write_dataset")
def _write_dataset() -> Callable[..., Store]:
    return write_dataset


@pytest.fixture(name="sample_of")
def _sample_of() -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    return sample_of
