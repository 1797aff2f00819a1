"""The end of a job: from candidate shards to the finished dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from factory.pipeline.select import Selection, select
from factory.pipeline.shard import ShardStats
from factory.recipe import ResolvedRecipe
from factory.recipe.schema import SelectionPolicy
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
from factory_core.dataset.rows import class_pixels_of
from factory_core.storage import Store

ROW_GROUP_SAMPLES = 2**16  # rows of samples.parquet that are in memory at once


def commit(
    resolved: ResolvedRecipe,
    source: Mapping[str, str],
    out: Store,
    stats: Sequence[ShardStats],
    repaired: Manifest | None = None,
) -> Manifest:
    """Select, write the final shards and samples.parquet, then dataset.json, in the folder `out`.

    `stats` are those of all candidate shards, in order; `source` says where the images came from.
    Rows and samples stream: only a few numbers per candidate and one row group are in memory.
    Files of an interrupted commit are overwritten. In a repair, the final shards must be those of
    `repaired`. Raises ValueError for uncertainties that are not finite or a candidate shard that
    was damaged since, OSError if the disk is full.
    """
    recipe = resolved.recipe
    candidates = out / CANDIDATES_DIR
    rows = [s.rows for s in stats]
    selection = select_rows(
        _intact(candidates, rows), recipe.dataset.drop_fraction, recipe.selection.policy
    )
    samples_per_shard = recipe.dataset.samples_per_shard
    kept_samples = (
        members for key, members in read_candidates(candidates, stats) if selection.kept[int(key)]
    )
    folder, expected = out / SHARDS_DIR, None if repaired is None else repaired.shards
    shards = _write_shards(folder, recipe.name, kept_samples, samples_per_shard, expected)
    describe = partial(_manifest, resolved, source, stats, selection, shards)
    samples, pixels = write_samples(
        out,
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
    source: Mapping[str, str],
    stats: Sequence[ShardStats],
    selection: Selection,
    shards: list[FileInfo],
    pixels: np.ndarray,
) -> Manifest:
    """All of dataset.json except the entry for samples.parquet, whose footer holds all the rest."""
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
        recipe=recipe.to_json(),
        weights=resolved.weights_sha256,
        source=dict(source),
        classes=list(resolved.classes),
        palette=[list(colour) for colour in resolved.palette],
        image_size=stats[0].image_size,
        image_format=recipe.dataset.image_format,
        shards=shards,
        samples=FileInfo(name=SAMPLES_NAME, samples=0, bytes=0, sha256=""),
        totals=totals,
        uncertainty_threshold=selection.threshold,
        uncertainty_histogram=_histogram(stats),
        probabilities=recipe.dataset.probabilities,
        precision=stats[0].precision,
        devices=sorted({s.device for s in stats} - {"", "cpu"}),
        threads=sorted({s.threads for s in stats if s.device == "cpu"} - {0}),
    )


def _histogram(stats: Sequence[ShardStats]) -> list[int] | None:
    """Pixels of all candidates at each level of the uncertainty maps; None without maps."""
    counts = [s.uncertainty_histogram for s in stats if s.uncertainty_histogram is not None]
    return np.sum(counts, axis=0).tolist() if counts else None


def read_candidates(
    candidates: Store, stats: Iterable[ShardStats]
) -> Iterator[tuple[str, list[Member]]]:
    """Samples (key, members) of these shards, in key order, as the workers encoded them.

    Raises ValueError for a shard damaged since it was finished, before yielding any of its samples.
    """
    for tar in _intact(candidates, [shard.tar for shard in stats]):
        yield from read_tar(tar)


def _intact(candidates: Store, infos: Sequence[FileInfo]) -> Iterator[Path]:
    """Local paths of these files (copies, from a bucket), each checked for size and sha256.

    Each is yielded right after its check, while it is still cached. A damaged file loses its
    marker: in a bucket, a resumed job trusts any file that has a marker and the right size.
    """
    copies = candidates.local_copies([info.name for info in infos])
    for info, path in zip(infos, copies, strict=True):
        if not info.matches(path):
            stem = info.name.partition(".")[0]
            candidates.delete(f"{stem}{MARKER_SUFFIX}")
            raise ValueError(
                f"{candidates / info.name} was damaged after it was finished: rerun the command,"
                " which regenerates it"
            )
        yield path


def _write_shards(
    folder: Store,
    name: str,
    samples: Iterator[list[Member]],
    samples_per_shard: int,
    expected: Sequence[FileInfo] | None,
) -> list[FileInfo]:
    """Pack the samples into shards numbered without gaps; ValueError if not those `expected`."""
    if expected is None:
        folder.remove()  # left by an interrupted commit
    folder.make()
    infos: list[FileInfo] = []
    first = next(samples, None)
    while first is not None:
        here = chain([first], islice(samples, samples_per_shard - 1))
        number = len(infos)
        wanted = None if expected is None else expected[number]
        infos.append(pack(folder, f"{name}-{number:06d}.tar", here, wanted))
        first = next(samples, None)
    return infos


def pack(
    folder: Store,
    name: str,
    samples: Iterable[list[Member]],
    expected: FileInfo | None = None,
) -> FileInfo:
    """Write samples to a tar, one at a time: a shard of large images need not fit in memory.

    Raises ValueError, and leaves an existing file unchanged, if the result is not `expected`.
    """
    count = 0
    with folder.new_file(name) as file:
        tar = TarWriter(file)
        for members in samples:
            tar.add(members)
            count += 1
        tar.close()
        made = FileInfo.written(file, name, count)
        if expected not in (None, made):
            raise ValueError(
                f"the dataset is damaged, and regenerating {folder / name} gives different bytes"
                " here, as on other hardware or library versions: repair it where it was made, or"
                " give another --out"
            )
    return made


# --- samples.parquet -------------------------------------------------------------------------


def select_rows(
    rows: Iterable[Path], drop_fraction: float, policy: SelectionPolicy = "uncertain"
) -> Selection:
    """`select` among the candidates of these files, which hold consecutive indices from 0."""
    columns = ["uncertainty", *(["class_pixels"] if policy == "per_class" else [])]
    table = pa.concat_tables([_read(path, columns) for path in rows])
    uncertainty = table["uncertainty"].to_numpy()
    pixels = class_pixels_of(table) if policy == "per_class" else None
    return select(np.arange(len(uncertainty)), uncertainty, drop_fraction, policy, pixels)


def write_samples(
    out: Store,
    rows: Iterable[Path],
    selection: Selection,
    shards: Sequence[str],
    samples_per_shard: int,
    footer: Callable[[np.ndarray], dict[bytes, bytes]] = lambda pixels: {},
) -> tuple[FileInfo, np.ndarray]:
    """Write samples.parquet: the candidates' `rows` with final shard, `kept` and the reason.

    `shards` are the names of the final shards. `footer` turns the pixels per class of the kept
    samples, int64 `[classes]`, into the metadata of the file. Returns the file and these pixels.
    """
    names = pa.array(shards, pa.string())
    pixels: np.ndarray | int = 0
    start = ranked = 0  # rows so far, and how many of them are kept
    with out.new_file(SAMPLES_NAME) as file, ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        for group in _row_groups(rows):
            here = slice(start, start + len(group))
            kept = selection.kept[here]
            rank = ranked + np.cumsum(kept) - 1  # of each kept sample among all kept
            shard = pa.array(rank // samples_per_shard, mask=~kept)
            table = (
                group.append_column("shard", names.take(shard))
                .append_column("kept", pa.array(kept))
                .append_column("reason", pa.array(selection.reasons(here), pa.string()))
            )
            if writer is None:
                # `recover_manifest` trusts these CRCs when dataset.json is lost.
                writer = stack.enter_context(
                    pq.ParquetWriter(file, table.schema, write_page_checksum=True)
                )
            writer.write_table(table, row_group_size=ROW_GROUP_SAMPLES)
            pixels += class_pixels_of(group)[kept].sum(axis=0)
            start, ranked = here.stop, ranked + int(kept.sum())
        assert writer is not None  # there is at least one candidate
        writer.add_key_value_metadata(footer(np.asarray(pixels)))
    return FileInfo.written(file, SAMPLES_NAME, start), np.asarray(pixels)


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
    """A small parquet file; `pq.read_table` would inspect it first, at several times the cost."""
    with pq.ParquetFile(path) as file:
        return file.read(columns)
