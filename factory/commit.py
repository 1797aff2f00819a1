"""The end of a job: from candidate shards to the finished dataset."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from factory.dataset import (
    CANDIDATES_DIR,
    SAMPLES_NAME,
    SHARDS_DIR,
    FileInfo,
    Manifest,
    Member,
    TarWriter,
    Totals,
    atomic_file,
    read_tar,
)
from factory.recipe import ResolvedRecipe
from factory.selection import Selection, select
from factory.worker import ShardStats

ROW_GROUP_SAMPLES = 2**16  # of samples.parquet: so many rows are in memory at once


def commit(
    resolved: ResolvedRecipe, source: dict[str, Any], out: Path, stats: Sequence[ShardStats]
) -> Manifest:
    """Select, write the final shards and samples.parquet, then dataset.json, in the folder `out`.

    `stats` are those of all candidate shards, in order; `source` says where the images came from.
    Rows and samples stream: a few numbers a candidate and one row group are in memory. What an
    interrupted commit left is written anew. Raises ValueError for uncertainties that are
    not finite, OSError if the disk is full.
    """
    recipe = resolved.recipe
    candidates = out / CANDIDATES_DIR
    rows = [candidates / s.rows.name for s in stats]
    selection = select_rows(rows, recipe.dataset.drop_fraction)
    samples_per_shard = recipe.dataset.samples_per_shard
    kept_samples = _kept_samples((candidates / s.tar.name for s in stats), selection.kept)
    shards = _write_shards(out / SHARDS_DIR, recipe.name, kept_samples, samples_per_shard)
    samples, pixels = write_samples(
        out / SAMPLES_NAME, rows, selection, [shard.name for shard in shards], samples_per_shard
    )
    kept = int(selection.kept.sum())
    totals = Totals(
        candidates=len(selection.kept),
        kept=kept,
        dropped=len(selection.kept) - kept,
        bytes=sum(shard.bytes for shard in shards),
        class_pixels=pixels.tolist(),
    )
    manifest = Manifest(
        name=recipe.name,
        recipe_digest=resolved.digest,
        recipe=recipe.model_dump(mode="json"),
        weights=resolved.weights_sha256,
        source=source,
        classes=list(resolved.classes),
        palette=[list(colour) for colour in resolved.palette],
        image_size=stats[0].image_size,
        image_format=recipe.dataset.image_format,
        shards=shards,
        samples=samples,
        totals=totals,
        uncertainty_threshold=selection.threshold,
        uncertainty_histogram=_histogram(stats),
        precision=stats[0].precision,
    )
    manifest.write(out)
    return manifest


def _histogram(stats: Sequence[ShardStats]) -> list[int] | None:
    """Pixels of all candidates at each level of the uncertainty maps; None without maps."""
    counts = [s.uncertainty_histogram for s in stats if s.uncertainty_histogram is not None]
    return np.sum(counts, axis=0).tolist() if counts else None


def _kept_samples(tars: Iterable[Path], kept: np.ndarray) -> Iterator[list[Member]]:
    """Members of the samples to keep, in key order, as the workers encoded them."""
    for tar in tars:
        for key, members in read_tar(tar):
            if kept[int(key)]:
                yield members


def _write_shards(
    folder: Path, name: str, samples: Iterator[list[Member]], samples_per_shard: int
) -> list[FileInfo]:
    """Pack the samples into shards numbered without gaps."""
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted commit left
    folder.mkdir()
    infos: list[FileInfo] = []
    first = next(samples, None)
    while first is not None:
        path = folder / f"{name}-{len(infos):06d}.tar"
        infos.append(pack(path, chain([first], islice(samples, samples_per_shard - 1))))
        first = next(samples, None)
    return infos


def pack(path: Path, samples: Iterable[list[Member]]) -> FileInfo:
    """Write samples to a tar, one at a time: a shard of large images need not fit in memory."""
    count = 0
    with atomic_file(path) as file:
        tar = TarWriter(file)
        for members in samples:
            tar.add(members)
            count += 1
        tar.close()
    return FileInfo.of(path, count)


# --- samples.parquet -------------------------------------------------------------------------


def select_rows(rows: Sequence[Path], drop_fraction: float) -> Selection:
    """`select` among the candidates of these files, which hold consecutive indices from 0."""
    columns = [_read(path, ["uncertainty"])["uncertainty"].to_numpy() for path in rows]
    uncertainty = np.concatenate(columns)
    return select(np.arange(len(uncertainty)), uncertainty, drop_fraction)


def write_samples(
    path: Path,
    rows: Sequence[Path],
    selection: Selection,
    shards: Sequence[str],
    samples_per_shard: int,
) -> tuple[FileInfo, np.ndarray]:
    """Write samples.parquet: the candidates' `rows` with final shard, `kept` and the reason.

    `shards` are the names of the final shards. Returns the file, and the pixels of the kept samples
    as int64 `[classes]`.
    """
    names = pa.array(shards, pa.string())
    pixels: np.ndarray | int = 0
    start = ranked = 0  # rows, and kept ones among them, so far
    with atomic_file(path) as file, ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        for group in _row_groups(rows):
            here = slice(start, start + len(group))
            kept = selection.kept[here]
            rank = ranked + np.cumsum(kept) - 1  # of a kept sample among the kept
            shard = pa.array(rank // samples_per_shard, mask=~kept)
            table = (
                group.append_column("shard", names.take(shard))
                .append_column("kept", pa.array(kept))
                .append_column("reason", pa.array(selection.reasons(here), pa.string()))
            )
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(file, table.schema))
            writer.write_table(table, row_group_size=ROW_GROUP_SAMPLES)
            counts = group["class_pixels"].combine_chunks().flatten().to_numpy()
            pixels += counts.reshape(len(group), -1)[kept].sum(axis=0)
            start, ranked = here.stop, ranked + int(kept.sum())
    return FileInfo.of(path, start), np.asarray(pixels)


def _row_groups(paths: Iterable[Path]) -> Iterator[pa.Table]:
    """Rows of all files in tables of exactly ROW_GROUP_SAMPLES, and one with the rest."""
    pending: list[pa.Table] = []
    count = 0
    for path in paths:
        table = _read(path)
        while count + len(table) >= ROW_GROUP_SAMPLES:
            head = ROW_GROUP_SAMPLES - count
            yield pa.concat_tables([*pending, table.slice(0, head)])
            pending, count, table = [], 0, table.slice(head)
        if len(table):
            pending.append(table)
            count += len(table)
    if pending:
        yield pa.concat_tables(pending)


def _read(path: Path, columns: list[str] | None = None) -> pa.Table:
    """A small parquet file; `pq.read_table` takes several times as long to find out what it is."""
    with pq.ParquetFile(path) as file:
        return file.read(columns)
