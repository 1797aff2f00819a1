"""Writing one shard: a tar of the samples, a parquet with a row for each, and the marker.

    NNNNNN.tar, NNNNNN.parquet, NNNNNN_stats.json

The marker is written last, with size and sha256 of the other two; without it, a shard is redone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from factory.pipeline.shard import Shard, ShardStats
from factory_core.dataset import (
    UNCERTAINTY_LEVELS,
    FileInfo,
    ImageFormat,
    Member,
    TarWriter,
    encode_sample,
)
from factory_core.storage import Store


@dataclass(frozen=True)
class Encoding:
    """How samples become files: colours of the mask for viewers, and the image's format."""

    palette: tuple[tuple[int, int, int], ...]
    image_format: ImageFormat = "png"
    uncertainty_maps: bool = False
    probabilities: bool = False


@dataclass(frozen=True)
class Candidates:
    """A labelled batch, in order: the members of N samples, and a row for each.

    `images` uint8 `[N, 3, H, W]`, `masks` uint8 `[N, H, W]`, `levels` of the uncertainty maps uint8
    `[N, H, W]` or None without maps, `probabilities` the `probability_levels` uint8
    `[N, K, H, W]` or None without them; rows follow `rows_schema`.
    """

    images: np.ndarray
    masks: np.ndarray
    levels: np.ndarray | None
    probabilities: np.ndarray | None
    rows: list[dict[str, Any]]

    def members(self, encoding: Encoding, pool: ThreadPoolExecutor) -> Iterator[list[Member]]:
        """The files of each sample, in order, encoded by the threads of `pool`."""

        def encode(i: int) -> list[Member]:
            row = self.rows[i]
            meta = {name: value for name, value in row.items() if name != "key"}
            return encode_sample(
                row["key"],
                self.images[i],
                self.masks[i],
                encoding.palette,
                meta,
                encoding.image_format,
                None if self.levels is None else self.levels[i],
                None if self.probabilities is None else self.probabilities[i],
            )

        yield from pool.map(encode, range(len(self.rows)))


class ShardWriter:
    """Writes a shard batch by batch; as a context manager, it leaves no trace unless closed.

    Encoding releases the GIL: a batch is encoded and written in the background while the next one
    is made. Two batches are in memory, and the next call raises the failure of either.
    """

    def __init__(self, folder: Store, shard: Shard, encoding: Encoding, threads: int = 1):
        """`threads` encode at the same time; they do not change the bytes."""
        self.threads = threads
        self.folder, self.shard, self.encoding = folder, shard, encoding
        self._started = time.perf_counter()
        self._rows: list[dict[str, Any]] = []
        self._histogram = np.zeros(UNCERTAINTY_LEVELS, np.int64)
        self._image_size = (0, 0)
        self._writing: Future[None] | None = None

    def __enter__(self) -> ShardWriter:
        with ExitStack() as stack:
            self._encoders = stack.enter_context(ThreadPoolExecutor(self.threads))
            self._background = stack.enter_context(ThreadPoolExecutor(1))
            new_tar = self.folder.new_file(self.shard.tar, sync_name=False)
            self._file = stack.enter_context(new_tar)
            self._tar = TarWriter(self._file)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)

    def write(self, batch: Candidates) -> None:
        """Append a batch; its samples follow the previous ones."""
        self._wait()
        self._writing = self._background.submit(self._append, batch)
        self._rows += batch.rows
        height, width = batch.masks.shape[1:]
        self._image_size = (height, width)
        if batch.levels is not None:
            self._histogram += np.bincount(batch.levels.ravel(), minlength=UNCERTAINTY_LEVELS)

    def close(self, precision: str, job: str, device: str) -> ShardStats:
        """Finish the tar, write the rows, then the marker.

        `precision`, `job` and `device` are noted in the marker, see `ShardStats`.
        """
        self._wait()
        self._tar.close()
        tar = FileInfo.written(self._file, self.shard.tar, len(self._rows))
        # Waiting for the disk is most of what a small shard costs: wait for both files at once.
        rows = self._background.submit(self._write_rows)
        self._open.close()
        stats = ShardStats(
            number=self.shard.number,
            start=self.shard.start,
            stop=self.shard.stop,
            image_size=self._image_size,
            uncertainty_sum=float(sum(row["uncertainty"] for row in self._rows)),
            elapsed_sec=round(time.perf_counter() - self._started, 3),
            tar=tar,
            rows=rows.result(),
            uncertainty_histogram=(
                self._histogram.tolist() if self.encoding.uncertainty_maps else None
            ),
            precision=precision,
            job=job,
            device=device,
            threads=self.threads,
        )
        self.folder.write_json(self.shard.marker, stats.to_json())
        return stats

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()

    def _append(self, batch: Candidates) -> None:
        for members in batch.members(self.encoding, self._encoders):
            self._tar.add(members)

    def _write_rows(self) -> FileInfo:
        name = self.shard.parquet
        schema = rows_schema(self.shard.files is not None)
        with self.folder.new_file(name, sync_name=False) as file:
            pq.write_table(pa.Table.from_pylist(self._rows, schema), file)
            return FileInfo.written(file, name, len(self._rows))


def rows_schema(from_files: bool) -> pa.Schema:
    """Columns of a candidate parquet; `source` is the photograph's file name."""
    fields = [
        ("key", pa.string()),
        ("index", pa.int64()),
        ("seed", pa.int64()),
        ("uncertainty", pa.float32()),
        ("class_pixels", pa.list_(pa.int64())),
    ]
    return pa.schema([*fields, ("source", pa.string())] if from_files else fields)
