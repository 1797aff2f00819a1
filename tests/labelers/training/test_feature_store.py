"""Features on disk: what is read equals what was appended, even after an interruption."""

from __future__ import annotations

import errno

import pytest
import torch

from generators.base import FeatureMaps
from labelers.ensemble.classifiers import channel_last, group_by_size
from labelers.training.feature_store import FeatureStore, store_bytes


def filled(folder, features: FeatureMaps, dtype="float32") -> FeatureStore:
    store = FeatureStore(folder, features.spec, features.batch_size, dtype)
    for i in range(store.written, features.batch_size):
        store.append(features.select(slice(i, i + 1)))
    return store


def test_tables_on_disk_equal_those_in_memory(random_features: FeatureMaps, tmp_path):
    store = filled(tmp_path / "new" / "store", random_features)
    expected = channel_last(random_features, group_by_size(random_features.spec))
    tables = store.tables()
    assert list(tables) == list(expected)
    assert all(torch.equal(tables[native], expected[native]) for native in expected)
    size = sum(f.stat().st_size for f in (tmp_path / "new" / "store").glob("*.features"))
    assert size == store_bytes(random_features.spec, 2, "float32")


def test_maps_of_one_image(random_features: FeatureMaps, tmp_path):
    store = filled(tmp_path, random_features, "float16")
    found = store.features(1)
    assert found.spec == random_features.spec
    for name, tensor in found.items():
        assert torch.equal(tensor, random_features[name][1:].half())


def test_resumes_where_it_was_interrupted(random_features: FeatureMaps, tmp_path):
    store = FeatureStore(tmp_path, random_features.spec, 2, "float32")
    store.append(random_features.select(slice(0, 1)))
    with (tmp_path / "4x6.features").open("ab") as file:
        file.write(b"half an image")  # the process died in the second append
    again = FeatureStore(tmp_path, random_features.spec, 2, "float32")
    assert again.written == 1
    again.append(random_features.select(slice(1, 2)))
    expected = channel_last(random_features, group_by_size(random_features.spec))
    assert all(torch.equal(table, expected[native]) for native, table in again.tables().items())


@pytest.mark.parametrize("damage", ["dtype", "spec", "source", "short file", "damaged index"])
def test_starts_over_if_nothing_can_be_reused(random_features: FeatureMaps, tmp_path, damage):
    filled(tmp_path, random_features)
    spec, dtype, source = random_features.spec, "float32", ""
    if damage == "dtype":
        dtype = "float16"
    elif damage == "spec":
        spec = spec[:2]
    elif damage == "source":  # different images or a different generator
        source = "other"
    elif damage == "short file":
        (tmp_path / "8x12.features").write_bytes(b"")
    else:
        (tmp_path / "features.index").write_text("{")
    assert FeatureStore(tmp_path, spec, 2, dtype, source).written == 0


def test_values_beyond_half_precision_are_refused(random_features: FeatureMaps, tmp_path):
    large = FeatureMaps({**random_features, "b": random_features["b"] * 1e6})
    with pytest.raises(ValueError, match=r"8x12 reach .* --set labeler.feature_dtype=float32"):
        filled(tmp_path, large, "float16")
    assert filled(tmp_path, large, "float32").written == 2


def test_a_full_disk_is_an_error_without_damage(random_features, tmp_path, monkeypatch):
    store = FeatureStore(tmp_path, random_features.spec, 2, "float32")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            store.append(random_features.select(slice(0, 1)))
    assert filled(tmp_path, random_features).features(0)["d"].equal(random_features["d"][:1])


def test_delete_leaves_other_files(random_features: FeatureMaps, tmp_path):
    store = filled(tmp_path / "a", random_features)
    store.delete()
    assert not (tmp_path / "a").exists()
    store = filled(tmp_path / "b", random_features)
    (tmp_path / "b" / "notes.txt").write_text("mine")
    store.delete()
    assert [f.name for f in (tmp_path / "b").iterdir()] == ["notes.txt"]
