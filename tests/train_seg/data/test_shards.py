"""Reading shards: uncertain pixels, order and extent of reading, damaged shards, buckets."""

from __future__ import annotations

import io
import itertools
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from factory_core.dataset import open_dataset
from factory_core.storage import open_store
from train_seg.config import AugmentConfig, SegmenterConfig
from train_seg.data.augment import Augment
from train_seg.data.shards import ShardSource
from train_seg.data.training_data import TrainingData, open_training_data
from train_seg.training.train import train

RED, BLUE = 1, 2
LEVELS = np.array([0, 7, 9], np.uint8)  # of the uncertainty maps, by class


def level_of_class(mask: np.ndarray) -> np.ndarray:
    """An uncertainty map that follows the classes, so that it moves with the mask."""
    return LEVELS[mask]


def counts(pixels: dict[int, int]) -> list[int]:
    """The histogram with this many pixels per level."""
    return [pixels.get(level, 0) for level in range(256)]


@pytest.fixture
def maps(tmp_path: Path, write_dataset: Callable[..., Path]) -> Path:
    """Twelve samples in which only blue squares are above the 0.9 quantile, which is level 7."""
    histogram = counts({0: 80, 7: 10, 9: 10})
    return write_dataset(tmp_path / "maps", levels=level_of_class, histogram=histogram)


def open_data(*data: object, augment: AugmentConfig | None = None, **settings) -> TrainingData:
    augment = augment or AugmentConfig()
    return open_training_data(data, lambda size: Augment(augment, size), **settings)


def without(mask: torch.Tensor, classes: tuple[int, ...]) -> torch.Tensor:
    """The mask with some classes ignored."""
    return torch.where(torch.isin(mask, torch.tensor(classes)), 255, mask).to(torch.uint8)


@pytest.mark.parametrize(
    ("quantile", "classes"), [(0.95, ()), (0.9, (BLUE,)), (0.81, (BLUE,)), (0.8, (RED, BLUE))]
)
def test_pixels_above_the_quantile_are_ignored(
    maps: Path, quantile: float, classes: tuple[int, ...]
) -> None:
    plain, thinned = open_data(maps), open_data(maps, ignore_above=quantile)
    for before, after in zip(plain.source.epoch(0), thinned.source.epoch(0), strict=True):
        assert torch.equal(after[0], before[0])
        assert torch.equal(after[1], without(before[1], classes))


def test_ignored_pixels_are_augmented_with_the_mask(maps: Path) -> None:
    augment = AugmentConfig(
        horizontal_flip=True, vertical_flip=True, quarter_turns=True, scale=(0.3, 0.9)
    )
    settings = {"augment": augment, "size": (24, 24)}
    plain, thinned = open_data(maps, **settings), open_data(maps, ignore_above=0.9, **settings)
    pairs = list(zip(plain.source.epoch(1), thinned.source.epoch(1), strict=True))
    for before, after in pairs:
        assert torch.equal(after[0], before[0])
        assert torch.equal(after[1], without(before[1], (BLUE,)))
    assert any((after[1] == 255).any() for _, after in pairs)


def test_each_dataset_has_its_own_threshold(
    maps: Path, write_dataset: Callable[..., Path], make_labeled: Callable, tmp_path: Path
) -> None:
    surer = counts({0: 89, 7: 1, 9: 10})
    unsure = counts({0: 50, 7: 30, 9: 20})  # level 9 is common there
    other = write_dataset(tmp_path / "other", shards=(4,), levels=level_of_class, histogram=unsure)
    third = write_dataset(tmp_path / "third", shards=(3,), levels=level_of_class, histogram=surer)
    everything = (maps, other, third, make_labeled(2))
    plain, thinned = open_data(*everything), open_data(*everything, ignore_above=0.9)
    outcomes = {(): 0, (BLUE,): 0}
    for before, after in zip(plain.source.epoch(0), thinned.source.epoch(0), strict=True):
        (outcome,) = [c for c in outcomes if torch.equal(after[1], without(before[1], c))]
        outcomes[outcome] += 1
    # Annotated images count as certain.
    assert outcomes == {(): 4 + 2, (BLUE,): 12 + 3}


def test_a_dataset_without_maps_is_named(maps: Path, dataset: Path) -> None:
    message = r"data has no uncertainty maps, .*: regenerate it with --set dataset\.uncertainty"
    with pytest.raises(ValueError, match=message) as caught:
        open_data(maps, dataset, ignore_above=0.9)
    assert "\n" not in str(caught.value)


def test_annotated_images_have_no_maps(make_labeled: Callable) -> None:
    with pytest.raises(ValueError, match="found only annotated images: leave that setting out"):
        open_data(make_labeled(2), ignore_above=0.9)


def test_a_missing_map_is_reported(tmp_path: Path, write_dataset: Callable[..., Path]) -> None:
    folder = write_dataset(tmp_path / "bad", histogram=counts({0: 1}))
    message = r"sample \d{9}: found members json, png, seg\.png, expected also unc\.png"
    with pytest.raises(ValueError, match=message) as caught:
        list(open_data(folder, ignore_above=0.9).source.epoch(0))
    assert "\n" not in str(caught.value)


def test_ignoring_pixels_changes_the_training(
    maps: Path, config: SegmenterConfig, tmp_path: Path
) -> None:
    short = config.model_copy(update={"max_steps": 1})
    train([maps], tmp_path / "all", short, device="cpu")
    ignoring = short.model_copy(update={"ignore_above_quantile": 0.8})
    train([maps], tmp_path / "sure", ignoring, device="cpu")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("all", "sure")]
    assert weights[0] != weights[1]
    with pytest.raises(ValueError, match=r"ignore_above_quantile \(None, now 0\.8\)"):
        train([maps], tmp_path / "all", ignoring, device="cpu")


# --- reading ---------------------------------------------------------------------------------


def keys(source: ShardSource, places: range) -> list[str]:
    return [item.content.key for item in source.read(places)]


def open_source(folder: Path, **settings) -> ShardSource:
    augment = Augment(AugmentConfig(), (32, 32))
    return ShardSource(open_dataset(folder), (32, 32), augment, 0, **settings)


def test_samples_are_shuffled_within_windows(tmp_path: Path, write_dataset) -> None:
    folder = write_dataset(tmp_path / "long", shards=(40,))
    windows = np.array(keys(open_source(folder, shuffle_buffer=10), range(40)), int).reshape(4, 10)
    for number, window in enumerate(windows):
        assert sorted(window) == list(range(10 * number, 10 * number + 10))
        assert list(window) != sorted(window)
    assert len({tuple(window % 10) for window in windows}) == 4


def test_any_places_give_the_samples_of_the_whole_sequence(dataset: Path) -> None:
    source = open_source(dataset, shuffle_buffer=5)
    whole = keys(source, range(36))
    for places in (range(3, 36), range(1, 36, 3), range(35, 36)):
        assert keys(source, places) == [whole[place] for place in places]


def test_only_the_shards_of_a_window_are_read(dataset: Path) -> None:
    source = open_source(dataset, shuffle_buffer=1)
    whole = keys(source, range(12))
    (dataset / "shards/squares-000001.tar").unlink()
    readable = [place for place, key in enumerate(whole) if not 5 <= int(key) < 9]
    assert [item.content.key for item in source.read(readable)] == [whole[p] for p in readable]


def test_a_bucket_gives_the_same_batches_as_a_folder(dataset: Path) -> None:
    bucket = open_store("memory://segmenter-shards/data")
    for file in dataset.rglob("*"):
        if file.is_file():
            bucket.write(str(file.relative_to(dataset)), file.read_bytes())
    local, remote = (open_data(folder, shuffle_buffer=5) for folder in (dataset, str(bucket)))
    assert local.digest == remote.digest
    streams = (itertools.islice(d.source.batches(4), 7) for d in (local, remote))
    for here, there in zip(*streams, strict=True):
        assert torch.equal(here[0], there[0])
        assert torch.equal(here[1], there[1])


# --- damage ----------------------------------------------------------------------------------


def truncate(shard: Path) -> None:
    os.truncate(shard, shard.stat().st_size // 2)


def remove(shard: Path) -> None:
    shard.unlink()


def overwrite_header(shard: Path) -> None:
    with tarfile.open(shard) as tar:
        at = tar.getmembers()[3].offset
    with open(shard, "r+b") as file:
        file.seek(at)
        file.write(b"?" * 512)


def damage_picture(shard: Path) -> None:
    with tarfile.open(shard) as tar:
        member = next(m for m in tar.getmembers() if m.name == "000000006.png")
    with open(shard, "r+b") as file:
        file.seek(member.offset_data + member.size // 2)
        file.write(b"?" * 20)


def remove_mask(shard: Path) -> None:
    with tarfile.open(shard) as tar:
        members = [(m, tar.extractfile(m)) for m in tar.getmembers()]
        kept = [(m, f.read()) for m, f in members if f and m.name != "000000006.seg.png"]
    with tarfile.open(shard, "w", format=tarfile.USTAR_FORMAT) as tar:
        for member, data in kept:
            tar.addfile(member, io.BytesIO(data))


DAMAGES = [
    (truncate, r"sample \(\d of 4\): cannot be read \(.*\): copy the shard again", 1),
    (remove, r"sample \(\d of 4\): cannot be read \(.*No such file.*\): copy the shard again", 4),
    (overwrite_header, r"sample \(\d of 4\): cannot be read \(it ends after 1 samples, .* 4\)", 3),
    (damage_picture, r"sample 000000006: png cannot be decoded \(.*\)", 1),
    (remove_mask, r"sample 000000006: found members json, png, expected also seg\.png", 1),
]


@pytest.mark.parametrize(("damage", "message", "_"), DAMAGES)
def test_damage_is_reported_in_one_line(
    dataset: Path, damage: Callable, message: str, _: int
) -> None:
    data = open_data(dataset)
    damage(dataset / "shards/squares-000001.tar")
    with pytest.raises(ValueError, match=rf"squares-000001\.tar: {message}") as caught:
        list(data.source.epoch(0))
    assert "\n" not in str(caught.value)


def test_the_key_of_an_unreadable_sample_comes_from_the_table(dataset: Path) -> None:
    table = {
        "key": [f"{i:09d}" for i in (3, 1, 0, 2, 9, 8)],
        "shard": ["other.tar", *["squares-000001.tar"] * 4, None],
    }
    data, source = open_data(dataset), open_source(dataset)
    pyarrow.parquet.write_table(pyarrow.table(table), dataset / "samples.parquet")
    remove(dataset / "shards/squares-000001.tar")
    items = list(source.read(range(12)))
    named = sorted(item.damage.sample for item in items if item.damage is not None)
    expected = ["000000000 (1 of 4)", "000000001 (2 of 4)", "000000002 (3 of 4)"]
    assert named == [*expected, "000000009 (4 of 4)"]
    with pytest.raises(ValueError, match=r"squares-000001\.tar: sample 00000000\d \("):
        list(data.source.epoch(0))


@pytest.mark.parametrize("opened", ["before", "after"])
@pytest.mark.parametrize(("damage", "_", "lost"), DAMAGES)
@pytest.mark.parametrize("buffer", [2, 1000])
def test_damage_is_skipped_on_request(
    dataset: Path, damage: Callable, _: str, lost: int, opened: str, buffer: int
) -> None:
    settings = {"skip_damaged": True, "shuffle_buffer": buffer}
    whole = {image.numpy().tobytes() for image, _ in open_data(dataset).source.epoch(0)}
    data = open_data(dataset, **settings) if opened == "before" else None
    damage(dataset / "shards/squares-000001.tar")
    data = data or open_data(dataset, **settings)
    found = list(itertools.islice(data.source.batches(4), 6))
    assert sum(data.source.skipped.values()) == lost
    assert len(data.source.skipped) == 1
    seen = {image.numpy().tobytes() for images, _ in found for image in images}
    assert seen < whole
    assert len(seen) == 12 - lost
    for start in range(6):
        images, _ = next(open_data(dataset, **settings).source.batches(4, start))
        assert torch.equal(images, found[start][0])


def test_without_a_readable_shard_the_stream_ends(dataset: Path) -> None:
    data = open_data(dataset, skip_damaged=True, shuffle_buffer=2)
    for shard in (dataset / "shards").iterdir():
        shard.unlink()
    with pytest.raises(ValueError, match=r"\.tar: .* \(and no other sample can be read\)"):
        next(data.source.batches(4))


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (4, r"sample \(\d of 4\): cannot be read \(it ends after 3 samples, .* lists 4\)"),
        (2, r"sample \(\d of 2\): cannot be read \(it holds more than the 2 samples"),
    ],
)
def test_shards_must_match_the_manifest(
    tmp_path: Path, write_dataset: Callable[..., Path], declared: int, message: str
) -> None:
    folder = write_dataset(tmp_path / "other", shards=(3,), declared=declared)
    with pytest.raises(ValueError, match=message):
        list(open_data(folder).source.epoch(0))


def test_a_restored_shard_is_read_again(dataset: Path) -> None:
    shard = dataset / "shards/squares-000001.tar"
    content = shard.read_bytes()
    source = open_source(dataset)
    shard.unlink()
    row = source.read(range(24))
    first = [next(row) for _ in range(12)]
    assert sum(item.content is None for item in first) == 4
    shard.write_bytes(content)
    assert all(item.content is not None for item in source.read(range(24)))
