"""Browsing a dataset: samples by position and key, filters, damage."""

from __future__ import annotations

import pickle
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from factory_core.dataset.sample_set import SampleSet

KEPT = [0, 1, 2, 4, 5, 6, 7, 8, 9]


@pytest.fixture(params=["disk", "bucket"])
def data(request: pytest.FixtureRequest, tmp_path: Path, write_dataset: Callable) -> SampleSet:
    bucket = f"memory://{uuid.uuid4().hex}/out"
    return SampleSet.open(write_dataset(tmp_path / "a#b" if request.param == "disk" else bucket))


def indices(samples: SampleSet) -> list[int]:
    return [sample.meta["index"] for sample in samples]


def test_every_kept_sample_in_order(data: SampleSet, sample_of: Callable) -> None:
    assert len(data) == 9
    assert data.keys == [f"{i:09d}" for i in KEPT]
    for sample, index in zip(data, KEPT, strict=True):
        image, mask = sample_of(index)
        np.testing.assert_array_equal(sample.image, image)
        np.testing.assert_array_equal(sample.mask, mask)


def test_a_sample_by_position_and_key(data: SampleSet, sample_of: Callable) -> None:
    for place, index in enumerate(KEPT):
        for sample in (data[place], data[place - 9], data[f"{index:09d}"], data[np.int64(place)]):
            assert sample.key == f"{index:09d}"
            np.testing.assert_array_equal(sample.image, sample_of(index)[0])
    for place in (9, -10):
        with pytest.raises(IndexError, match="among 9 samples"):
            data[place]
    with pytest.raises(KeyError, match="000000003"):
        data["000000003"]  # it was dropped


def test_filters_give_the_same_kind_of_object(data: SampleSet) -> None:
    certain = data[data.uncertainty < 0.55]
    assert isinstance(certain, SampleSet)
    assert indices(certain) == [0, 1, 2, 4, 5]
    assert indices(certain[certain.has("left")]) == [0, 2, 4]
    assert indices(data[(data.uncertainty < 0.55) & data.has("left")]) == [0, 2, 4]
    assert indices(data[data.has("right", min_pixels=30)]) == [5]
    assert indices(data[2:5]) == [2, 4, 5]
    assert indices(data[[8, 0, -8]]) == [0, 1, 9]  # a set keeps its order
    assert certain.shards == ["tiny-000000.tar", "tiny-000001.tar"]
    assert certain[4].key == certain["000000005"].key == "000000005"
    nothing = data[data.uncertainty < 0]
    assert (len(nothing), indices(nothing), nothing.class_pixels.shape) == (0, [], (0, 3))
    with pytest.raises(ValueError, match="unknown class 'top': expected one of ground, left"):
        data.has("top")
    with pytest.raises(IndexError, match=r"mask of shape \(9,\), expected \(5,\)"):
        certain[data.uncertainty < 1]


def test_rows(data: SampleSet) -> None:
    frame = data.to_pandas()
    assert list(frame.index) == data.keys
    assert set(frame) >= {"shard", "uncertainty", "pixels of ground", "pixels of right"}
    assert frame.loc["000000005", "pixels of right"] == (data["000000005"].mask == 2).sum()
    np.testing.assert_array_equal(frame["pixels of left"], data.class_pixels[:, 1])


def test_it_can_be_pickled(data: SampleSet) -> None:
    data[3]  # fills the cache of offsets
    part = pickle.loads(pickle.dumps(data[1:4]))
    assert indices(part) == [1, 2, 4]
    assert part[0].key == "000000001"


def test_it_says_what_it_is(data: SampleSet) -> None:
    assert repr(data).startswith("<9 samples of ")
    assert "<2 of 9 samples of" in repr(data[:2])
    assert repr(data).endswith("ground, left, right>")


def test_damage(tmp_path: Path, write_dataset: Callable) -> None:
    write_dataset(tmp_path)
    data = SampleSet.open(tmp_path)
    shard = tmp_path / "shards" / "tiny-000001.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:3000])
    with pytest.raises(ValueError, match=r"tiny-000001.tar .*damaged"):
        list(data)
    with pytest.raises(ValueError, match=r"tiny-000001.tar .*damaged"):
        data["000000007"]
    shard.write_bytes((tmp_path / "shards" / "tiny-000000.tar").read_bytes())
    with pytest.raises(ValueError, match="lacks sample 000000005"):
        data["000000005"]
    with pytest.raises(ValueError, match="lacks sample 000000005"):
        list(data)
    rows = tmp_path / "samples.parquet"
    rows.write_bytes(b"x" * rows.stat().st_size)
    with pytest.raises(ValueError, match=r"samples.parquet is damaged .*rerun the command"):
        SampleSet.open(tmp_path)
