"""Datasets of any size whose samples were not generated: a few pictures under many keys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from factory_core import dataset
from factory_core.dataset import Member
from factory_core.storage import atomic_file

DISTINCT = 40  # pictures
CLASSES = ("background", "cell", "rare")


def write_dataset(
    folder: Path,
    n: int,
    size: tuple[int, int] = (32, 32),
    classes: Sequence[str] = CLASSES,
    per_shard: int = 1000,
    candidates: bool = False,
) -> Path:
    """A finished dataset of `n` candidates, of which the most uncertain tenth is dropped."""
    rng = np.random.default_rng(0)
    palette = dataset.default_palette(len(classes))
    pictures = [_sample(rng, size, len(classes)) for _ in range(DISTINCT)]
    encoded = [dataset.encode_sample("0", *picture, palette, {}) for picture in pictures]
    uncertainty = rng.gamma(4, 0.05, n).astype(np.float32)
    kept = np.ones(n, bool)
    kept[np.argsort(uncertainty)[n - n // 10 :]] = False
    counts = np.array(
        [np.bincount(mask.ravel(), minlength=len(classes)) for _, mask in pictures], np.int64
    )
    shard_of: list[str | None] = [None] * n
    shards = []
    numbers = np.flatnonzero(kept)
    for start in range(0, len(numbers), per_shard):
        part = numbers[start : start + per_shard].tolist()
        path = folder / "shards" / f"made-{len(shards):06d}.tar"
        _write_tar(path, part, encoded)
        shards.append(dataset.FileInfo.of(path, len(part)))
        for i in part:
            shard_of[i] = path.name
    keys = [dataset.sample_key(i) for i in range(n)]
    rows = pd.DataFrame(
        {
            "key": keys,
            "shard": shard_of,
            "uncertainty": uncertainty,
            "kept": kept,
            "reason": [None if keep else "uncertain" for keep in kept],
            "class_pixels": [counts[i % DISTINCT] for i in range(n)],
        }
    )
    rows.to_parquet(folder / "samples.parquet")
    if candidates:
        _write_tar(folder / "candidates" / "000000.tar", list(range(n)), encoded)
        rows[["key"]].to_parquet(folder / "candidates" / "000000.parquet")
    dataset.Manifest(
        name="made",
        recipe_digest="0" * 64,
        recipe={"generator": {"kind": "ddpm"}},
        weights={"generator.weights": "1" * 64},
        source={"kind": "generator"},
        classes=list(classes),
        palette=palette,
        image_size=size,
        image_format="png",
        shards=shards,
        samples=dataset.FileInfo.of(folder / "samples.parquet", n),
        totals=dataset.Totals(
            candidates=n,
            kept=int(kept.sum()),
            dropped=n // 10,
            bytes=sum(shard.bytes for shard in shards),
            class_pixels=counts.sum(axis=0).tolist(),
        ),
        uncertainty_threshold=float(uncertainty[kept].max()),
    ).write(folder)
    return folder


def _sample(
    rng: np.random.Generator, size: tuple[int, int], classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """A bright disk on a noisy ground; every fourth one also holds the other classes."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    middle, radius = rng.uniform(0.3, 0.7, 2) * size, rng.uniform(0.15, 0.3) * min(size)
    disk = np.hypot(y - middle[0], x - middle[1]) < radius
    mask = disk.astype(np.uint8)
    if rng.random() < 0.25:
        mask[: height // 6] = np.arange(width) * classes // width
    colours = rng.uniform(40, 220, (256, 3))
    image = colours[mask] + rng.normal(0, 12, (height, width, 3))
    return image.clip(0, 255).astype(np.uint8).transpose(2, 0, 1), mask


def _write_tar(path: Path, numbers: Sequence[int], encoded: Sequence[list[Member]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        writer = dataset.TarWriter(file)
        for i in numbers:
            key = dataset.sample_key(i)
            members = encoded[i % DISTINCT]
            writer.add((f"{key}.{name.split('.', 1)[1]}", data) for name, data in members)
        writer.close()
