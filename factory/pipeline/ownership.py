"""Which job a folder belongs to, and which of its shards are finished."""

from __future__ import annotations

import json
from collections.abc import Sequence

from factory.pipeline.job import Job, JobIdentity
from factory.pipeline.shard import Shard, ShardStats
from factory_core.dataset import (
    CANDIDATES_DIR,
    JOB_NAME,
    MANIFEST_NAME,
    SAMPLES_NAME,
    DamagedManifest,
    Manifest,
    markers,
    read_manifest,
)
from factory_core.dataset.recovery import recover_manifest
from factory_core.output_folder import contents, refuse_file
from factory_core.storage import Store


def inspect(job: Job) -> Manifest | None:
    """The manifest in `job.out` if the job is finished, else None; writes nothing.

    Of the files that identify the folder's job, one must be intact: dataset.json, the footer of
    samples.parquet, job.json, or the markers of finished shards.

    Raises:
        ValueError: the folder belongs to another job (says what differs), or an unknown one.
        OSError: `job.out` is a file, or a folder with other files.
    """
    refuse_file(job.out)
    manifest, is_damaged = None, False
    try:
        manifest = read_manifest(job.out)
    except FileNotFoundError:
        manifest = recover_manifest(job.out)
    except DamagedManifest:
        manifest, is_damaged = recover_manifest(job.out), True
    if manifest is not None:
        _refuse_another(job, _finished_identity(job.out, manifest))
        return manifest
    begun = read_begun(job.candidates)
    if begun is not None and (is_damaged or markers(job.candidates)):
        _refuse_another(job, begun)
    elif begun is None and not _has_own_shards(job):
        if is_damaged:
            raise ValueError(
                f"{job.out / MANIFEST_NAME} and {SAMPLES_NAME} are both damaged, and nothing else"
                " says what they were made from: give another --out, or delete the folder"
            )
        _refuse_foreign(job.out)
    return None


def begin(job: Job) -> None:
    """Create the folder and write job.json (after `inspect`)."""
    job.candidates.make()
    if not markers(job.candidates) or read_begun(job.candidates) is None:
        job.candidates.write_json(JOB_NAME, job.identity.to_json())


def read_begun(candidates: Store) -> JobIdentity | None:
    """The identity in job.json; None if there is none, or it is damaged."""
    try:
        return JobIdentity.parse(json.loads(candidates.read(JOB_NAME)))
    except (FileNotFoundError, ValueError):
        return None


def _has_own_shards(job: Job) -> bool:
    """Whether the readable markers are this job's; False if there are none.

    Raises ValueError if any of them is another job's.
    """
    contents = job.candidates.read_many(markers(job.candidates)).values()
    found = {stats.job for content in contents if (stats := ShardStats.parse(content))}
    if found - {job.identity.sha256}:
        raise ValueError(
            f"{job.candidates / JOB_NAME} is damaged, and the shards beside it were not made by"
            " this command: give another --out, or the original settings"
        )
    return bool(found)


def _finished_identity(out: Store, manifest: Manifest) -> JobIdentity:
    try:
        return JobIdentity.of_finished(manifest)
    except ValueError as error:
        raise ValueError(f"{out / MANIFEST_NAME} is damaged, {error}: give another --out") from None


def _refuse_another(job: Job, found: JobIdentity) -> None:
    """Raise ValueError, naming what differs, unless `job.out` holds the same job."""
    difference = job.identity.difference(found)
    if difference is not None:
        raise ValueError(f"{job.out} {difference}")


def _refuse_foreign(out: Store) -> None:
    """Raise FileExistsError if `out`, in which nothing was finished, holds anything."""
    foreign = [name for name in contents(out) if name != CANDIDATES_DIR]
    # Candidates are deleted when a job finishes: never delete another program's files.
    inside = contents(out / CANDIDATES_DIR)
    if JOB_NAME not in inside:
        foreign += [f"{CANDIDATES_DIR}/{name}" for name in inside]
    if foreign:
        raise FileExistsError(
            f"--out {out} holds no dataset but {foreign[0]}: give a new or empty folder"
        )


# --- finished shards ---------------------------------------------------------------------------


def finished_shards(folder: Store, shards: Sequence[Shard], job: str) -> dict[int, ShardStats]:
    """Stats by number of those `shards` in `folder` that are intact and were made for `job`.

    The rest must be made; `job` is a `JobIdentity.sha256`. On a disk, size and sha256 are
    checked. A bucket holds complete objects only and checks them itself, so the sizes in one
    listing suffice here, and `commit` checks the sha256 of what it reads.
    """
    entries = {entry.name: entry for entry in folder.entries()}
    marked = {shard.marker: shard for shard in shards if shard.marker in entries}
    found = folder.read_many([entries[name] for name in marked])
    finished = {}
    for name, content in found.items():
        stats = ShardStats.parse(content)
        if stats is None or not stats.is_of(marked[name], job):
            continue
        files = (stats.tar, stats.rows)
        if not all(f.name in entries and entries[f.name].size == f.bytes for f in files):
            continue
        if folder.is_remote or all(f.is_intact(folder) for f in files):
            finished[stats.number] = stats
    return finished
