"""factory.reports.preview: which samples are shown, which files are read, and what is drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from factory.reports import preview
from factory_core import dataset
from factory_core.storage import atomic_file

CLASSES = ["background", "cell", "Äpfel"]
PALETTE = [[0, 0, 0], [255, 0, 0], [0, 0, 255]]
SHARD_SIZE = 4


def write_tar(path: Path, indices: list[int], size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        writer = dataset.TarWriter(file)
        for i in indices:
            image = np.full((3, *size), i % 25 * 10, np.uint8)
            mask = np.zeros(size, np.uint8)
            mask[2:5, 2:6] = 1
            key = dataset.sample_key(i)
            writer.add(dataset.encode_sample(key, image, mask, PALETTE, {"index": i}))
        writer.close()


def make_dataset(
    folder: Path, n: int, size: tuple[int, int] = (8, 8), candidates: bool = False
) -> Path:
    """`n` candidates whose uncertainty is their index / 100; the last tenth is dropped."""
    kept = n - n // 10
    groups = [list(range(i, min(i + SHARD_SIZE, kept))) for i in range(0, kept, SHARD_SIZE)]
    shards = []
    for number, group in enumerate(groups):
        path = folder / "shards" / f"x-{number:06d}.tar"
        write_tar(path, group, size)
        shards.append(dataset.FileInfo.of(path, len(group)))
    rows = pd.DataFrame(
        {
            "key": [dataset.sample_key(i) for i in range(n)],
            "shard": [shards[i // SHARD_SIZE].name if i < kept else None for i in range(n)],
            "uncertainty": np.arange(n, dtype=np.float32) / 100,
            "kept": np.arange(n) < kept,
        }
    )
    rows.to_parquet(folder / "samples.parquet")
    if candidates:
        write_tar(folder / "candidates" / "000000.tar", list(range(n)), size)
        rows[["key"]].to_parquet(folder / "candidates" / "000000.parquet")
    dataset.Manifest(
        name="x",
        recipe_digest="0",
        recipe={},
        weights={},
        source={},
        classes=CLASSES,
        palette=PALETTE,
        image_size=size,
        image_format="png",
        shards=shards,
        samples=dataset.FileInfo.of(folder / "samples.parquet", n),
        totals=dataset.Totals(
            candidates=n, kept=kept, dropped=n - kept, bytes=1, class_pixels=[52, 12, 0]
        ),
        uncertainty_threshold=(kept - 1) / 100,
    ).write(folder)
    return folder


def shown(folder: Path) -> dict[str, list[int]]:
    """Indices of the samples in each section."""
    sections = preview._sections(dataset.open_dataset(folder))
    return {s.heading: [sample.meta["index"] for sample, _ in s.samples] for s in sections}


def test_sections_order_samples_by_uncertainty(tmp_path: Path):
    assert shown(make_dataset(tmp_path, 40)) == {
        "Typical": [4, 8, 12, 16, 19, 23, 27, 31],
        "Most certain": [0, 1, 2, 3],
        "Least certain": [32, 33, 34, 35],
    }


def test_dropped_samples_are_shown_while_their_candidates_exist(tmp_path: Path):
    assert shown(make_dataset(tmp_path, 40, candidates=True))["Dropped"] == [36, 37, 38, 39]


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_small_datasets_show_each_sample_once(tmp_path: Path, n: int):
    sections = shown(make_dataset(tmp_path, n))
    assert sorted(i for part in sections.values() for i in part) == list(range(n))
    preview.write_preview(tmp_path)
    assert (tmp_path / "preview.png").is_file()


def test_only_shards_with_shown_samples_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make_dataset(tmp_path, 400)
    read: list[Path] = []
    read_tar = dataset.read_open_tar
    monkeypatch.setattr(
        dataset,
        "read_open_tar",
        lambda file, name, keys: read.append(name) or read_tar(file, name, keys),
    )
    preview.write_preview(tmp_path)
    assert len(read) == len(set(read)) <= 2 + 8  # of 90: both ends, and one per typical sample


def test_picture_is_written_and_reproducible(tmp_path: Path):
    make_dataset(tmp_path, 30)
    preview.write_preview(tmp_path)
    path = tmp_path / "preview.png"
    first = path.read_bytes()
    preview.write_preview(tmp_path)
    assert path.read_bytes() == first
    picture = np.asarray(Image.open(path).convert("RGB"))
    assert (picture[0] == 255).all()
    assert (picture == PALETTE[1]).all(axis=-1).any()
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize("size", [(8, 24), (300, 200)])
def test_other_image_sizes(tmp_path: Path, size: tuple[int, int]):
    preview.write_preview(make_dataset(tmp_path, 12, size))
    path = tmp_path / "preview.png"
    assert Image.open(path).width >= preview.MIN_WIDTH


def test_an_uncertainty_map_is_a_third_tile_in_grey(tmp_path: Path):
    data = dataset.open_dataset(make_dataset(tmp_path, 1))
    (sample,) = dataset.read_samples(tmp_path)
    assert len(preview._tiles(sample, data.manifest, (8, 8))) == 2
    histogram = [0] * 256
    histogram[0], histogram[50], histogram[200] = 900, 95, 5  # 50 is the 0.99 quantile
    manifest = data.manifest.model_copy(update={"uncertainty_histogram": histogram})
    levels = np.repeat(np.array([0, 25, 50, 200], np.float32), 16).reshape(8, 8)
    nats = levels / 255 * np.float32(np.log(len(CLASSES)))
    tiles = preview._tiles(replace(sample, uncertainty=nats), manifest, (8, 8))
    assert tiles[2][::2, 0].tolist() == [0, 127, 255, 255]


def test_a_folder_without_a_dataset_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"dataset\.json"):
        preview.write_preview(tmp_path)
    assert not (tmp_path / "preview.png").exists()


def test_overlay_blends_draws_contours_and_leaves_background_and_ignore():
    image = np.full((6, 6, 3), 100, np.uint8)
    mask = np.zeros((6, 6), np.uint8)
    mask[1:6, 1:6] = 1
    mask[5, 5] = 255
    result = dataset.overlay(image, mask, PALETTE, alpha=0.5)
    assert result.dtype == np.uint8
    assert result[0, 0].tolist() == [100, 100, 100]  # background
    assert result[5, 5].tolist() == [100, 100, 100]  # ignored
    assert result[1, 3].tolist() == [255, 0, 0]  # contour
    assert result[3, 3].tolist() == [178, 50, 50]  # inside
