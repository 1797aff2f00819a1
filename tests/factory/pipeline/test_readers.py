"""What other libraries read from a finished dataset, without our code."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

from factory_core.dataset import Sample, read_samples
from tests.stand_ins import Tiny


@pytest.fixture
def shards(tiny: Tiny, tmp_path: Path) -> list[str]:
    """Paths of the shards of 23 kept samples."""
    manifest = tiny.make(tmp_path / "data")
    return [str(tmp_path / "data/shards" / shard.name) for shard in manifest.shards]


@pytest.fixture
def expected(shards: list[str]) -> list[Sample]:
    return list(read_samples(Path(shards[0]).parents[1]))


def test_hugging_face_datasets(
    shards: list[str], expected: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    cache = str(tmp_path / "cache")  # also if the library was already imported
    found = datasets.load_dataset(
        "webdataset", data_files={"train": shards}, split="train", cache_dir=cache
    )
    assert len(found) == len(expected) == 23
    assert set(found.column_names) >= {"__key__", "png", "seg.png", "json"}
    assert list(found["__key__"]) == [sample.key for sample in expected]
    for row, sample in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(row["png"]).transpose(2, 0, 1), sample.image)
        assert row["seg.png"].mode == "P"
        np.testing.assert_array_equal(np.asarray(row["seg.png"]), sample.mask)
        assert row["json"]["index"] == sample.meta["index"]


def test_webdataset(shards: list[str], expected: list[Sample]) -> None:
    import webdataset as wds

    found = list(wds.WebDataset(shards, shardshuffle=False).decode("rgb8"))
    assert [row["__key__"] for row in found] == [sample.key for sample in expected]
    for row, sample in zip(found, expected, strict=True):
        np.testing.assert_array_equal(row["png"].transpose(2, 0, 1), sample.image)
        assert row["json"] == sample.meta


def test_tarfile(shards: list[str], expected: list[Sample]) -> None:
    names = []
    for shard in shards:
        with tarfile.open(shard) as tar:
            names += tar.getnames()
    suffixes = (".json", ".png", ".seg.png")
    assert names == [f"{sample.key}{suffix}" for sample in expected for suffix in suffixes]
