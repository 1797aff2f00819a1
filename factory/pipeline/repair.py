"""Repairing a finished dataset: which candidates to regenerate, and which shards to repack.

A final shard is repacked from just the candidate shards that its samples come from, and must
match dataset.json. samples.parquet also describes the dropped candidates, which are in no shard: if
it is damaged, all candidates are regenerated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow.parquet as pq

from factory.pipeline.commit import pack, read_candidates
from factory.pipeline.job import Job
from factory.pipeline.shard import Shard, ShardStats
from factory_core.dataset import SAMPLES_NAME, SHARDS_DIR, FileInfo, Manifest, Member


@dataclass(frozen=True)
class Repair:
    """Damaged final shards with the indices of their samples, and the candidates they need.

    `is_complete` means that the whole dataset must be committed again from all candidates.
    """

    shards: list[tuple[FileInfo, frozenset[int]]]
    candidates: list[Shard]
    is_complete: bool = False


def plan_repair(job: Job, manifest: Manifest) -> Repair | None:
    """The repair that the dataset in `job.out` needs; None if all sizes and sha256 match."""
    if not manifest.samples.is_intact(job.out):
        return Repair([], job.shards, is_complete=True)
    folder = job.out / SHARDS_DIR
    damaged = [info for info in manifest.shards if not info.is_intact(folder)]
    if not damaged:
        return None
    names = [info.name for info in damaged]
    with job.out.local_copy(SAMPLES_NAME) as samples:
        rows = pq.read_table(samples, columns=["index", "shard"], filters=[("shard", "in", names)])
    indices: dict[str, list[int]] = {name: [] for name in names}
    for index, name in zip(rows["index"].to_pylist(), rows["shard"].to_pylist(), strict=True):
        indices[name].append(index)
    size = job.recipe.recipe.dataset.shard_size
    numbers = sorted({index // size for found in indices.values() for index in found})
    every = job.shards
    return Repair(
        [(info, frozenset(indices[info.name])) for info in damaged],
        [every[number] for number in numbers],
    )


def rewrite(job: Job, repair: Repair, stats: Sequence[ShardStats]) -> None:
    """Repack the damaged shards; `stats` are those of `repair.candidates`, in order.

    Raises ValueError, and leaves the shard unchanged, if the bytes differ from those listed.
    """
    folder = job.out / SHARDS_DIR
    folder.make()
    for info, indices in repair.shards:
        pack(folder, info.name, _samples(job, stats, indices), expected=info)


def _samples(
    job: Job, stats: Sequence[ShardStats], indices: frozenset[int]
) -> Iterator[list[Member]]:
    """Members of the samples `indices`, from the candidate shards that hold any of them."""
    first, last = min(indices), max(indices)
    for shard in stats:
        if shard.stop > first and shard.start <= last:
            for key, members in read_candidates(job.candidates, [shard]):
                if int(key) in indices:
                    yield members
