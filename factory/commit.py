"""The end of a job: from candidate shards to the finished dataset."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
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


def commit(
    resolved: ResolvedRecipe, source: dict[str, Any], out: Path, stats: Sequence[ShardStats]
) -> Manifest:
    """Select, write the final shards and samples.parquet, then dataset.json, in the folder `out`.

    `stats` are those of all candidate shards, in order; `source` says where the images came from.
    What an interrupted commit left is written anew. Raises ValueError for uncertainties that are
    not finite, OSError if the disk is full.
    """
    recipe = resolved.recipe
    candidates = out / CANDIDATES_DIR
    rows = pa.concat_tables([pq.read_table(candidates / s.rows.name) for s in stats])
    uncertainty = rows["uncertainty"].to_numpy()
    selection = select(rows["index"].to_numpy(), uncertainty, recipe.dataset.drop_fraction)
    samples_per_shard = recipe.dataset.samples_per_shard
    kept_samples = _kept_samples((candidates / s.tar.name for s in stats), selection.kept)
    shards = _write_shards(out / SHARDS_DIR, recipe.name, kept_samples, samples_per_shard)
    samples = _write_samples(out / SAMPLES_NAME, rows, selection, shards, samples_per_shard)
    kept = int(selection.kept.sum())
    pixels = np.asarray(rows["class_pixels"].to_pylist())[selection.kept].sum(axis=0)
    totals = Totals(
        candidates=len(rows),
        kept=kept,
        dropped=len(rows) - kept,
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
    # A sample at a time: a shard of large images need not fit in memory.
    first = next(samples, None)
    while first is not None:
        path = folder / f"{name}-{len(infos):06d}.tar"
        with atomic_file(path) as file:
            tar = TarWriter(file)
            count = 0
            for members in chain([first], islice(samples, samples_per_shard - 1)):
                tar.add(members)
                count += 1
            tar.close()
        infos.append(FileInfo.of(path, count))
        first = next(samples, None)
    return infos


def _write_samples(
    path: Path,
    rows: pa.Table,
    selection: Selection,
    shards: Sequence[FileInfo],
    samples_per_shard: int,
) -> FileInfo:
    """samples.parquet: the candidates' rows with the final shard, `kept` and the reason."""
    order = np.cumsum(selection.kept) - 1  # rank of a kept sample among the kept
    names = [
        shards[rank // samples_per_shard].name if kept else None
        for rank, kept in zip(order.tolist(), selection.kept.tolist(), strict=True)
    ]
    table = (
        rows.append_column("shard", pa.array(names, pa.string()))
        .append_column("kept", pa.array(selection.kept))
        .append_column("reason", pa.array(selection.reasons, pa.string()))
    )
    with atomic_file(path) as file:
        pq.write_table(table, file)
    return FileInfo.of(path, len(table))
