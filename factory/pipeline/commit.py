"""The end of a job: from candidate shards to the finished dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from factory.pipeline.select import Selection, select
from factory.pipeline.worker import ShardStats
from factory.recipe.recipe import ResolvedRecipe
from factory_core.dataset import (
    CANDIDATES_DIR,
    MARKER_SUFFIX,
    SAMPLES_NAME,
    SHARDS_DIR,
    FileInfo,
    Manifest,
    Member,
    TarWriter,
    Totals,
    read_tar,
    recovery,
)
from factory_core.storage import atomic_file, local_copies, make_folder, remove_folder

ROW_GROUP_SAMPLES = 2**16  # of samples.parquet: so many rows are in memory at once


def commit(
    resolved: ResolvedRecipe, source: dict[str, Any], out: Path, stats: Sequence[ShardStats]
) -> Manifest:
    """Select, write the final shards and samples.parquet, then dataset.json, in the folder `out`.

    `stats` are those of all candidate shards, in order; `source` says where the images came from.
    Rows and samples stream: a few numbers a candidate and one row group are in memory. What an
    interrupted commit left is written anew. Raises ValueError for uncertainties that are not finite
    or a candidate shard that was damaged meanwhile, OSError if the disk is full.
    """
    recipe = resolved.recipe
    candidates = out / CANDIDATES_DIR
    rows = [s.rows for s in stats]
    selection = select_rows(_intact(candidates, rows), recipe.dataset.drop_fraction)
    samples_per_shard = recipe.dataset.samples_per_shard
    kept_samples = (
        members for key, members in read_candidates(candidates, stats) if selection.kept[int(key)]
    )
    shards = _write_shards(out / SHARDS_DIR, recipe.name, kept_samples, samples_per_shard)
    describe = partial(_manifest, resolved, source, stats, selection, shards)
    samples, pixels = write_samples(
        out / SAMPLES_NAME,
        _intact(candidates, rows),
        selection,
        [shard.name for shard in shards],
        samples_per_shard,
        lambda pixels: recovery.footer(describe(pixels)),
    )
    manifest = describe(pixels).model_copy(update={"samples": samples})
    manifest.write(out)
    return manifest


def _manifest(
    resolved: ResolvedRecipe,
    source: dict[str, Any],
    stats: Sequence[ShardStats],
    selection: Selection,
    shards: list[FileInfo],
    pixels: np.ndarray,
) -> Manifest:
    """All of dataset.json but what samples.parquet is like: its footer holds the rest."""
    recipe = resolved.recipe
    kept = int(selection.kept.sum())
    totals = Totals(
        candidates=len(selection.kept),
        kept=kept,
        dropped=len(selection.kept) - kept,
        bytes=sum(shard.bytes for shard in shards),
        class_pixels=pixels.tolist(),
    )
    return Manifest(
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
        samples=FileInfo(name=SAMPLES_NAME, samples=0, bytes=0, sha256=""),
        totals=totals,
        uncertainty_threshold=selection.threshold,
        uncertainty_histogram=_histogram(stats),
        precision=stats[0].precision,
    )


def _histogram(stats: Sequence[ShardStats]) -> list[int] | None:
    """Pixels of all candidates at each level of the uncertainty maps; None without maps."""
    counts = [s.uncertainty_histogram for s in stats if s.uncertainty_histogram is not None]
    return np.sum(counts, axis=0).tolist() if counts else None


def read_candidates(
    candidates: Path, stats: Iterable[ShardStats]
) -> Iterator[tuple[str, list[Member]]]:
    """Samples (key, members) of these shards, in key order, as the workers encoded them.

    Raises ValueError, before any sample of it, for a shard that was damaged since it was finished.
    """
    for tar in _intact(candidates, [shard.tar for shard in stats]):
        yield from read_tar(tar)


def _intact(candidates: Path, infos: Sequence[FileInfo]) -> Iterator[Path]:
    """These files, or copies of them here, after a check of size and sha256.

    What is read next is still in memory. A damaged one loses its marker: in a bucket, a resumed job
    believes what is marked and has the right size.
    """
    copies = local_copies([candidates / info.name for info in infos])
    for info, path in zip(infos, copies, strict=True):
        if not info.matches(path):
            stem = info.name.partition(".")[0]
            (candidates / f"{stem}{MARKER_SUFFIX}").unlink(missing_ok=True)
            raise ValueError(
                f"{candidates / info.name} was damaged after it was finished: run the same command"
                " again, which makes it anew"
            )
        yield path


def _write_shards(
    folder: Path, name: str, samples: Iterator[list[Member]], samples_per_shard: int
) -> list[FileInfo]:
    """Pack the samples into shards numbered without gaps."""
    remove_folder(folder)  # what an interrupted commit left
    make_folder(folder)
    infos: list[FileInfo] = []
    first = next(samples, None)
    while first is not None:
        path = folder / f"{name}-{len(infos):06d}.tar"
        infos.append(pack(path, chain([first], islice(samples, samples_per_shard - 1))))
        first = next(samples, None)
    return infos


def pack(path: Path, samples: Iterable[list[Member]], expected: FileInfo | None = None) -> FileInfo:
    """Write samples to a tar, one at a time: a shard of large images need not fit in memory.

    Raises ValueError, and leaves `path` as it was, if the outcome is not what was `expected`.
    """
    count = 0
    with atomic_file(path) as file:
        tar = TarWriter(file)
        for members in samples:
            tar.add(members)
            count += 1
        tar.close()
        made = FileInfo.written(file, path, count)
        if expected not in (None, made):
            raise ValueError(
                f"{path} is damaged and comes out with other bytes here, as on other hardware or"
                " library versions: repair it where it was made, or give another --out"
            )
    return made


# --- samples.parquet -------------------------------------------------------------------------


def select_rows(rows: Iterable[Path], drop_fraction: float) -> Selection:
    """`select` among the candidates of these files, which hold consecutive indices from 0."""
    columns = [_read(path, ["uncertainty"])["uncertainty"].to_numpy() for path in rows]
    uncertainty = np.concatenate(columns)
    return select(np.arange(len(uncertainty)), uncertainty, drop_fraction)


def write_samples(
    path: Path,
    rows: Iterable[Path],
    selection: Selection,
    shards: Sequence[str],
    samples_per_shard: int,
    footer: Callable[[np.ndarray], dict[bytes, bytes]] = lambda pixels: {},
) -> tuple[FileInfo, np.ndarray]:
    """Write samples.parquet: the candidates' `rows` with final shard, `kept` and the reason.

    `shards` are the names of the final shards. `footer` gives the metadata to put into the file
    from the pixels of the kept samples, int64 `[classes]`. Returns the file, and those pixels.
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
                # The CRCs are what `recover_manifest` trusts when dataset.json is lost.
                writer = stack.enter_context(
                    pq.ParquetWriter(file, table.schema, write_page_checksum=True)
                )
            writer.write_table(table, row_group_size=ROW_GROUP_SAMPLES)
            counts = group["class_pixels"].combine_chunks().flatten().to_numpy()
            pixels += counts.reshape(len(group), -1)[kept].sum(axis=0)
            start, ranked = here.stop, ranked + int(kept.sum())
        assert writer is not None  # there is a candidate at least
        writer.add_key_value_metadata(footer(np.asarray(pixels)))
    return FileInfo.written(file, path, start), np.asarray(pixels)


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
