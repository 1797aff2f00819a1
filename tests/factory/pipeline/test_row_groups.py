"""samples.parquet in several row groups: small groups, and more candidates than one holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from factory.pipeline import commit
from factory.pipeline.shard_writer import rows_schema
from factory.pipeline.verify import verify
from factory.reports.preview import write_preview
from factory_core.dataset import (
    SAMPLES_NAME,
    FileInfo,
    Manifest,
    TarWriter,
    Totals,
    encode_sample,
    read_samples,
    sample_key,
)
from factory_core.storage import atomic_file, open_store
from tests.stand_ins import Tiny

N = 70_000  # candidates, in files of 30 000 rows
KEPT = range(0, N, 100)  # multiples of 100 are the least uncertain
SAMPLES_PER_SHARD = 250
PALETTE = [[0, 0, 0], [255, 0, 0]]
SIZE = (4, 4)


@pytest.mark.parametrize("rows", [1, 8, 10, 25])
def test_the_size_of_a_row_group_does_not_change_the_rows(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    whole, split = tmp_path / "whole", tmp_path / "split"
    tiny.make(whole)
    monkeypatch.setattr(commit, "ROW_GROUP_SAMPLES", rows)
    tiny.make(split)
    files = [pq.ParquetFile(folder / SAMPLES_NAME) for folder in (whole, split)]
    assert [file.num_row_groups for file in files] == [1, -(-25 // rows)]
    assert files[0].read().equals(files[1].read())
    assert verify(split) == []
    assert (split / "preview.png").read_bytes() == (whole / "preview.png").read_bytes()


def row(index: int) -> dict:
    """The row of a candidate with `index % 17` pixels of the second class."""
    return {
        "key": sample_key(index),
        "index": index,
        "seed": 3 * index,
        "uncertainty": float(np.float32(0.1 if index % 100 == 0 else 1)),
        "class_pixels": [16 - index % 17, index % 17],
    }


def candidate_rows(folder: Path) -> Iterator[Path]:
    """The row files that workers would write."""
    for start in range(0, N, 30_000):
        table = pa.Table.from_pylist(
            [row(i) for i in range(start, min(start + 30_000, N))], rows_schema(from_files=False)
        )
        path = folder / f"{start:06d}.parquet"
        pq.write_table(table, path)
        yield path


def write_shard(path: Path, indices: range) -> FileInfo:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        tar = TarWriter(file)
        for index in indices:
            image = np.full((3, *SIZE), index % 256, np.uint8)
            mask = (np.arange(16) < index % 17).astype(np.uint8).reshape(SIZE)
            meta = {name: value for name, value in row(index).items() if name != "key"}
            tar.add(encode_sample(sample_key(index), image, mask, PALETTE, meta))
        tar.close()
    return FileInfo.of(path, len(indices))


def test_more_candidates_than_a_group_holds(tmp_path: Path) -> None:
    assert N > commit.ROW_GROUP_SAMPLES
    out = tmp_path / "out"
    starts = range(0, len(KEPT), SAMPLES_PER_SHARD)
    shards = [
        write_shard(out / f"shards/big-{number:06d}.tar", KEPT[start : start + SAMPLES_PER_SHARD])
        for number, start in enumerate(starts)
    ]
    rows = list(candidate_rows(tmp_path))
    selection = commit.select_rows(rows, 0.99)
    assert np.flatnonzero(selection.kept).tolist() == list(KEPT)
    names = [shard.name for shard in shards]
    samples, pixels = commit.write_samples(
        open_store(out), rows, selection, names, SAMPLES_PER_SHARD
    )

    file = pq.ParquetFile(out / SAMPLES_NAME)
    groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert groups == [65_536, N - 65_536]
    table = file.read()
    assert table["index"].to_pylist() == list(range(N))
    assert table["reason"].to_pylist()[65_536:65_538] == ["uncertain", "uncertain"]
    placed = table.filter(table["kept"])["shard"].to_pylist()
    assert placed == [names[rank // SAMPLES_PER_SHARD] for rank in range(len(KEPT))]
    seconds = sum(index % 17 for index in KEPT)
    assert pixels.tolist() == [16 * len(KEPT) - seconds, seconds]

    Manifest(
        name="big",
        recipe_digest="0" * 64,
        recipe={"dataset": {"drop_fraction": 0.99}},
        weights={},
        source={},
        classes=["ground", "cell"],
        palette=PALETTE,
        image_size=SIZE,
        image_format="png",
        shards=shards,
        samples=samples,
        totals=Totals(
            candidates=N,
            kept=len(KEPT),
            dropped=N - len(KEPT),
            bytes=sum(shard.bytes for shard in shards),
            class_pixels=pixels.tolist(),
        ),
        uncertainty_threshold=selection.threshold,
    ).write(out)
    write_preview(out)
    assert verify(out) == []
    assert [int(sample.key) for sample in read_samples(out)] == list(KEPT)
