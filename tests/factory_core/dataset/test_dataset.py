"""The on-disk format: reopened by our reader, by tarfile and by webdataset."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset as wds
from PIL import Image

from factory_core.dataset import (
    SHARDS_DIR,
    FileInfo,
    Manifest,
    TarWriter,
    Totals,
    decode_sample,
    default_palette,
    encode_sample,
    level_at_quantile,
    open_dataset,
    read_samples,
    read_tar,
    sample_key,
    uncertainty_levels,
)
from factory_core.storage import atomic_file, sweep_temporaries, write_bytes

PALETTE = default_palette(3)


LN_3 = np.log(3, dtype=np.float32)


def arrays(index: int) -> tuple[np.ndarray, np.ndarray]:
    """An image and a mask with an ignored pixel."""
    rng = np.random.default_rng(index)
    mask = rng.integers(0, 3, (8, 12), np.uint8)
    mask[0, 0] = 255
    return rng.integers(0, 256, (3, 8, 12), np.uint8), mask


def write_shard(path: Path, count: int, image_format: Any = "png") -> FileInfo:
    with atomic_file(path) as file:
        tar = TarWriter(file)
        for index in range(count):
            meta = {"index": index}
            tar.add(encode_sample(sample_key(index), *arrays(index), PALETTE, meta, image_format))
        tar.close()
    return FileInfo.of(path, count)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished dataset of three samples."""
    (tmp_path / SHARDS_DIR).mkdir()
    shard = write_shard(tmp_path / SHARDS_DIR / "x-000000.tar", 3)
    write_bytes(tmp_path / "samples.parquet", b"rows")
    Manifest(
        name="x",
        recipe_digest="d",
        recipe={},
        weights={},
        source={"kind": "generator"},
        classes=["a", "b", "c"],
        palette=PALETTE,
        image_size=(8, 12),
        image_format="png",
        shards=[shard],
        samples=FileInfo.of(tmp_path / "samples.parquet", 3),
        totals=Totals(candidates=3, kept=3, dropped=0, bytes=shard.bytes, class_pixels=[1, 1, 1]),
        uncertainty_threshold=0.5,
    ).write(tmp_path)
    return tmp_path


def test_keys_sort_as_indices_and_have_no_dots() -> None:
    assert sample_key(42) == "000000042"
    keys = [sample_key(i) for i in (0, 9, 10, 999_999_999)]
    assert keys == sorted(keys)


def test_palette_has_distinct_colours_and_black_first() -> None:
    colours = default_palette(34)
    assert colours[0] == [0, 0, 0]
    assert len({tuple(c) for c in colours}) == 34
    assert all(0 <= value <= 255 for colour in colours for value in colour)


def test_a_sample_comes_back_exactly() -> None:
    image, mask = arrays(1)
    members = encode_sample("000000001", image, mask, PALETTE, {"seed": 5})
    assert [name for name, _ in members] == [f"000000001.{e}" for e in ("json", "png", "seg.png")]
    sample = decode_sample("000000001", members, 3)
    np.testing.assert_array_equal(sample.image, image)
    np.testing.assert_array_equal(sample.mask, mask)
    assert sample.meta == {"seed": 5}


@pytest.mark.parametrize("extension", ["png", "seg.png", "unc.png", "prob.png", "json"])
@pytest.mark.parametrize("change", [lambda b: b"zzzz" + b[4:], lambda b: b[: len(b) // 2]])
def test_a_damaged_member_is_named(change: Callable[[bytes], bytes], extension: str) -> None:
    image, mask = arrays(1)
    maps = {"levels": mask, "probabilities": np.stack([mask * 0, mask * 0 + 255, mask * 0])}
    members = dict(encode_sample("000000001", image, mask, PALETTE, {}, **maps))
    name = f"000000001.{extension}"
    members[name] = change(members[name])
    with pytest.raises(ValueError, match=rf"^{name} is damaged: rerun the command"):
        decode_sample("000000001", members.items(), 3)


def test_a_missing_member_is_named() -> None:
    members = dict(encode_sample("000000001", *arrays(1), PALETTE, {}))
    del members["000000001.png"]
    with pytest.raises(ValueError, match=r"^sample 000000001 has no 000000001.jpg: rerun the"):
        decode_sample("000000001", members.items(), 3)


def test_jpg_keeps_the_mask_exact() -> None:
    image = np.full((3, 8, 8), 90, np.uint8)
    mask = np.eye(8, dtype=np.uint8)
    sample = decode_sample("0", encode_sample("0", image, mask, PALETTE, {}, "jpg"), 3)
    np.testing.assert_array_equal(sample.mask, mask)
    assert np.abs(sample.image.astype(int) - image).max() <= 2


def test_uncertainty_levels_span_zero_to_ln_k() -> None:
    nats = np.array([[-1e-7, 0, 0.5 / 255, 0.51 / 255, 0.5, 1, 2]], np.float32) * LN_3
    assert uncertainty_levels(nats, 3).tolist() == [[0, 0, 0, 1, 128, 255, 255]]
    assert uncertainty_levels(np.zeros((1, 2), np.float32), 1).tolist() == [[0, 0]]


def test_an_uncertainty_map_comes_back_in_nats() -> None:
    image, mask = arrays(1)
    nats = np.random.default_rng(1).uniform(0, LN_3, mask.shape).astype(np.float32)
    levels = uncertainty_levels(nats, 3)
    members = encode_sample("000000001", image, mask, PALETTE, {}, "jpg", levels)
    extensions = [name.split(".", 1)[1] for name, _ in members]
    assert extensions == ["jpg", "json", "seg.png", "unc.png"]
    assert Image.open(io.BytesIO(members[3][1])).mode == "L"
    sample = decode_sample("000000001", members, 3)
    assert sample.uncertainty is not None
    assert sample.uncertainty.dtype == np.float32
    np.testing.assert_allclose(sample.uncertainty, nats, atol=0.501 * LN_3 / 255)
    np.testing.assert_array_equal(uncertainty_levels(sample.uncertainty, 3), levels)
    np.testing.assert_array_equal(sample.mask, mask)
    assert decode_sample("0", encode_sample("0", image, mask, PALETTE, {}), 3).uncertainty is None


def test_the_level_of_a_quantile_is_exact() -> None:
    histogram = [0] * 256
    histogram[3], histogram[10], histogram[200] = 7, 90, 3
    # 0.07 * 100 is a little more than 7 in binary.
    expected = {0.01: 3, 0.07: 3, 0.08: 10, 0.97: 10, 0.971: 200, 0.999: 200}
    assert {q: level_at_quantile(histogram, q) for q in expected} == expected


def test_the_mask_file_is_one_channel_with_a_palette() -> None:
    members = dict(encode_sample("0", *arrays(0), PALETTE, {}))
    picture = Image.open(io.BytesIO(members["0.seg.png"]))
    assert picture.mode == "P"
    colours = picture.getpalette()
    assert colours is not None
    assert colours[3:6] == PALETTE[1]


def test_a_tar_is_byte_reproducible_and_plain(tmp_path: Path) -> None:
    first, second = (write_shard(tmp_path / name, 3) for name in ("a.tar", "b.tar"))
    assert first.sha256 == second.sha256
    with tarfile.open(tmp_path / "a.tar") as tar:
        infos = tar.getmembers()
    assert {(i.mtime, i.mode, i.uid, i.gid, i.uname) for i in infos} == {(0, 0o644, 0, 0, "root")}
    assert not any(i.pax_headers for i in infos)
    assert [key for key, _ in read_tar(tmp_path / "a.tar")] == [sample_key(i) for i in range(3)]


def test_samples_are_read_back_by_us_and_by_webdataset(folder: Path) -> None:
    ours = list(read_samples(folder))
    theirs = list(
        wds.WebDataset(
            [str(folder / "shards" / shard.name) for shard in open_dataset(folder).manifest.shards],
            shardshuffle=False,
        )
    )
    assert (
        [s.key for s in ours] == [s["__key__"] for s in theirs] == [sample_key(i) for i in range(3)]
    )
    for index, (sample, raw) in enumerate(zip(ours, theirs, strict=True)):
        np.testing.assert_array_equal(sample.image, arrays(index)[0])
        np.testing.assert_array_equal(
            np.asarray(Image.open(io.BytesIO(raw["seg.png"]))), sample.mask
        )
        assert json.loads(raw["json"]) == sample.meta == {"index": index}


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def write_half() -> None:
        with atomic_file(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_temporaries_of_killed_writers_are_swept(tmp_path: Path) -> None:
    (tmp_path / ".tmp-000000.tar-abc").write_bytes(b"half")
    (tmp_path / "000000.tar").write_bytes(b"whole")
    sweep_temporaries(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["000000.tar"]


def test_opening_a_folder_without_a_finished_dataset(folder: Path, tmp_path_factory: Any) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        open_dataset(folder / "nowhere")
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(FileNotFoundError, match=r"holds no dataset.json: expected a folder"):
        open_dataset(empty)
    (empty / "candidates").mkdir()
    with pytest.raises(FileNotFoundError, match="rerun the command"):
        open_dataset(empty)


def test_a_damaged_dataset_is_named(folder: Path) -> None:
    shard = folder / SHARDS_DIR / "x-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-512])
    with pytest.raises(ValueError, match="it is damaged"):
        open_dataset(folder)
    shard.unlink()
    with pytest.raises(FileNotFoundError, match="is missing"):
        open_dataset(folder)


def test_damaged_rows_are_named(folder: Path) -> None:
    (folder / "samples.parquet").write_bytes(b"ro")
    with pytest.raises(
        ValueError, match=r"samples\.parquet has 2 bytes, .* lists 4: it is damaged"
    ):
        open_dataset(folder)
    (folder / "samples.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"samples\.parquet is missing"):
        open_dataset(folder)


def test_a_tar_of_the_right_size_but_damaged_is_named(folder: Path) -> None:
    shard = folder / SHARDS_DIR / "x-000000.tar"
    intact = shard.read_bytes()
    shard.write_bytes(bytes([7]) * len(intact))
    with pytest.raises(ValueError, match=r"x-000000\.tar is damaged"):
        list(read_samples(folder))
    with tarfile.open(fileobj=io.BytesIO(intact)) as tar:
        offset = tar.getmembers()[3].offset  # the second sample's first header
    shard.write_bytes(intact[:offset] + bytes([7]) * 512 + intact[offset + 512 :])
    with pytest.raises(ValueError, match=r"x-000000\.tar has 1 samples, expected 3"):
        list(read_samples(folder))
    shard.write_bytes(intact[: offset + 600])
    with pytest.raises(ValueError, match=r"x-000000\.tar is damaged"):
        list(read_tar(shard))


def test_a_dataset_older_than_uncertainty_maps_opens(folder: Path) -> None:
    file = folder / "dataset.json"
    content = json.loads(file.read_text())
    assert content["uncertainty_histogram"] is None
    for key in ("uncertainty_histogram", "precision"):
        del content[key]
    file.write_text(json.dumps(content))
    assert open_dataset(folder).manifest.uncertainty_histogram is None
    assert [s.uncertainty for s in read_samples(folder)] == [None] * 3
    file.write_text(json.dumps({**content, "uncertainty_histogram": [1, 2]}))
    with pytest.raises(ValueError, match="'uncertainty_histogram': List should have at least 256"):
        open_dataset(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "damaged, not JSON"),
        ("[]", "damaged, it has no format version"),
        ('{"format_version": 2}', "format version 2, expected 1"),
        ('{"format_version": 1}', "'name': Field required"),
    ],
)
def test_a_manifest_that_cannot_be_read(folder: Path, content: str, message: str) -> None:
    (folder / "dataset.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        open_dataset(folder)
