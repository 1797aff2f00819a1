"""The samples as other libraries see them: ids stay ids everywhere."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset as wds

from factory_core.annotated.annotations import read_annotations
from factory_core.dataset.conversions import described_files
from factory_core.dataset.sample_set import SampleSet


@pytest.fixture
def data(tmp_path: Path, write_dataset: Callable) -> SampleSet:
    return SampleSet.open(write_dataset(tmp_path / "a#b"))


def test_webdataset_decodes_ids_as_ids(data: SampleSet, sample_of: Callable) -> None:
    found = data.to_webdataset()
    assert isinstance(found, wds.WebDataset)
    for sample, ours in zip(found, data, strict=True):
        image, mask = sample_of(sample["json"]["index"])
        assert sample["__key__"] == ours.key
        np.testing.assert_array_equal(sample["png"], image.transpose(1, 2, 0))
        np.testing.assert_array_equal(sample["seg.png"], mask)


def test_webdataset_of_a_filtered_set_in_a_bucket(write_dataset: Callable) -> None:
    data = SampleSet.open(write_dataset(f"memory://{uuid.uuid4().hex}/out", "jpg"))
    part = data[data.has("left")][1:]
    found = list(part.to_webdataset())
    assert [sample["__key__"] for sample in found] == part.keys
    assert found[0]["jpg"].shape == (8, 8, 3)


def test_webdataset_in_loader_processes(data: SampleSet) -> None:
    loader = wds.WebLoader(data.to_webdataset(), batch_size=None, num_workers=2)
    assert sorted(sample["__key__"] for sample in loader) == data.keys


def test_torch(data: SampleSet, sample_of: Callable) -> None:
    loader = torch.utils.data.DataLoader(data.to_torch(), batch_size=4, num_workers=1)
    images, masks = (torch.cat(parts) for parts in zip(*loader, strict=True))
    assert (images.dtype, images.shape) == (torch.uint8, (9, 3, 8, 8))
    np.testing.assert_array_equal(masks[3], sample_of(4)[1])
    double = data.to_torch(lambda image, mask: (image / 255, mask.long()))
    assert double[0][1].dtype == torch.int64


def test_hugging_face(
    data: SampleSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample_of: Callable
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    found = data[data.has("right")].to_hf()
    assert found["key"][:] == ["000000001", "000000005", "000000007", "000000009"]
    row = found[1]
    image, mask = sample_of(5)
    np.testing.assert_array_equal(np.asarray(row["image"]), image.transpose(1, 2, 0))
    np.testing.assert_array_equal(np.asarray(row["mask"]), mask)
    assert row["uncertainty"] == pytest.approx(0.5)
    assert row["class_pixels"][2] == (mask == 2).sum()


def test_an_annotated_folder(data: SampleSet, tmp_path: Path, sample_of: Callable) -> None:
    out = tmp_path / "out"
    data[:3].to_folder(out)
    found = read_annotations(out, (8, 8), None)
    assert found.classes == data.classes
    assert found.stems == data.keys[:3]
    np.testing.assert_array_equal(found.masks[2], sample_of(2)[1])
    with pytest.raises(FileExistsError, match="holds images: give the name of a new folder"):
        data.to_folder(out)


def test_fiftyone_gets_what_is_on_disk(data: SampleSet, tmp_path: Path) -> None:
    part = data[1:3]
    part.to_folder(tmp_path / "out")
    first, second = described_files(part, tmp_path / "out")
    assert Path(first["image"]).read_bytes()[:4] == b"\x89PNG"
    assert Path(second["mask"]).is_file()
    assert (first["classes"], second["classes"]) == (["ground", "right"], ["ground", "left"])
    assert second["uncertainty"] == pytest.approx(0.2)


def test_fiftyone_missing(data: SampleSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    with pytest.raises(ImportError, match=r"pip install 'dataset-factory\[fiftyone\]'"):
        data.to_fiftyone(tmp_path / "out")
    assert not (tmp_path / "out").exists()
