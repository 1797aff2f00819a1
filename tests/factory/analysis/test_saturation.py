"""Table 6: prefixes of one synthetic set, the most uncertain dropped inside each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from factory.analysis.saturation import prefix_of_data
from factory_core.dataset.sample_set import SampleSet
from tests.factory_core.dataset.conftest import write_dataset

SMALL = {
    "segmenter.architecture": "UNetGN",
    "segmenter.width": 8,
    "segmenter.max_steps": 2,
    "segmenter.validate_every": 2,
    "segmenter.batch_size": 2,
}


@pytest.mark.slow
def test_samples_are_labelled_once_for_all_sizes_and_splits(analyse, tmp_path: Path) -> None:
    result = analyse("saturation", sizes="[4,10]", drop_fraction=0.2, **SMALL)
    assert result.code == 0, result.err
    out = tmp_path / "out"
    found = json.loads((out / "saturation.json").read_text())
    assert [row["synthetic images"] for row in found["rows"]] == [4, 10]
    assert [row["after dropping"] for row in found["rows"]] == [4, 8]  # floor(0.2 n)
    assert "mIoU saturates" in found["sentence"]
    chunk = out / "features" / "labelled" / "000000.safetensors"
    written = chunk.stat().st_mtime_ns
    more = analyse("saturation", sizes="[4,6,10]", drop_fraction=0.2, **SMALL)
    assert more.code == 0, more.err
    assert chunk.stat().st_mtime_ns == written
    assert not list((out / "features" / "segmenters").iterdir())


def test_sizes_that_cannot_be_compared(analyse) -> None:
    result = analyse("saturation", sizes="[4]")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "found sizes [4], expected two or more" in result.err


def test_a_dataset_of_other_images_is_refused(analyse, tmp_path: Path) -> None:
    write_dataset(tmp_path / "data")
    result = analyse("saturation", "--data", tmp_path / "data")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "the generator makes 16x16: give a dataset of that size" in result.err


def test_what_a_dataset_dropped_is_the_most_uncertain_of_a_prefix(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data")
    data = SampleSet.open(tmp_path / "data")
    index = np.array([int(key) for key in data.keys])
    size = int(index[-1]) + 1
    missing = size - len(data)
    assert missing > 0
    images, masks = prefix_of_data(data, size, missing / size)
    assert len(images) == len(masks) == len(data)  # the dataset has dropped enough
    images, _ = prefix_of_data(data, size, (missing + 1) / size)
    worst = int(np.argmax(data.uncertainty))
    rest = [s.image for i, s in enumerate(data) if i != worst]
    assert np.array_equal(images.numpy(), np.stack(rest))
    images, _ = prefix_of_data(data, int(index[2]), 0.0)
    assert len(images) == 2
