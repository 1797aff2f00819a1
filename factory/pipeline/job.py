"""A job and its folder: what is to be made, what is there already, whose the folder is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory.pipeline.worker import LoadModels, Shard, ShardStats, WorkerSpec, load_models
from factory.recipe.recipe import ResolvedRecipe, canonical, diff
from factory_core.dataset import (
    CANDIDATES_DIR,
    JOB_NAME,
    MANIFEST_NAME,
    MAX_SAMPLES,
    SAMPLES_NAME,
    DamagedManifest,
    Manifest,
    canonical_json,
    file_sha256,
    markers,
    read_manifest,
    write_json,
)
from factory_core.dataset.recovery import recover_manifest
from factory_core.output_folder import contents, refuse_file
from factory_core.storage import is_remote, list_files, make_folder, read_many


@dataclass(frozen=True)
class Job:
    """What is made, where. `files` are the photographs of `factory label`, None for samples.

    Raises ValueError for `n` out of range.
    """

    recipe: ResolvedRecipe
    n: int
    out: Path
    files: tuple[str, ...] | None = None
    device: str = "auto"
    load: LoadModels = load_models

    def __post_init__(self) -> None:
        if not 1 <= self.n <= MAX_SAMPLES:
            raise ValueError(f"--n {self.n}: expected a number of samples from 1 to {MAX_SAMPLES}")

    @property
    def candidates(self) -> Path:
        """The folder of work in progress."""
        return self.out / CANDIDATES_DIR

    @property
    def shard_count(self) -> int:
        """Number of units of work."""
        return -(-self.n // self.recipe.recipe.dataset.shard_size)

    @property
    def shards(self) -> list[Shard]:
        """All units of work."""
        size = self.recipe.recipe.dataset.shard_size
        cuts = [(start, min(start + size, self.n)) for start in range(0, self.n, size)]
        return [
            Shard(number, start, stop, self.files and self.files[start:stop])
            for number, (start, stop) in enumerate(cuts)
        ]

    @property
    def spec(self) -> WorkerSpec:
        """What a worker must know."""
        return WorkerSpec(
            out=self.out.resolve(),
            generator=self.recipe.generator,
            labeler=self.recipe.labeler,
            palette=self.recipe.palette,
            image_format=self.recipe.recipe.dataset.image_format,
            uncertainty_maps=self.recipe.recipe.dataset.uncertainty_maps,
            device=self.device,
            load=self.load,
        )


# --- what is in the folder -------------------------------------------------------------------


def describe(job: Job) -> dict[str, Any]:
    """Content of job.json: all that two runs must agree in to share a folder."""
    source: dict[str, Any] = {"kind": "generator"}
    if job.files is not None:
        content = hashlib.sha256()
        for file in job.files:
            content.update(f"{Path(file).name} {file_sha256(Path(file))}\n".encode())
        source = {"kind": "images", "sha256": content.hexdigest()}
    recipe, digest = job.recipe.canonical, job.recipe.digest
    return {"digest": digest, "n": job.n, "source": source, "recipe": recipe}


def identity(description: dict[str, Any]) -> str:
    """sha256 of what two runs must agree in: every marker of a job has it."""
    told = {key: description[key] for key in ("digest", "n", "source")}
    return hashlib.sha256(canonical_json(told)).hexdigest()


def inspect(job: Job, description: dict[str, Any]) -> Manifest | None:
    """What `job.out` holds: the manifest if the job is finished, else None; writes nothing.

    Files that say whose the folder is may be damaged, as long as one of them is left: dataset.json,
    the footer of samples.parquet, job.json, or the markers of finished shards.

    Raises:
        ValueError: another job's folder (says what differs), or nobody can tell whose it is.
        OSError: a file, or a folder of other things.
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
        _refuse_another(job.out, description, _describe_finished(job.out, manifest))
        return manifest
    begun = _read_begun(job, description)
    if begun is not None and (is_damaged or markers(job.candidates)):
        _refuse_another(job.out, description, begun)
    elif begun is None and not _has_own_shards(job, description):
        if is_damaged:
            raise ValueError(
                f"{job.out / MANIFEST_NAME} and {SAMPLES_NAME} are both damaged, and nothing else"
                " says what they were made from: give another --out, or delete the folder"
            )
        _refuse_foreign(job.out)
    return None


def begin(job: Job, description: dict[str, Any]) -> None:
    """Make the folder and write job.json (after `inspect`)."""
    make_folder(job.candidates)
    if not markers(job.candidates) or _read_begun(job, description) is None:
        write_json(job.candidates / JOB_NAME, description)


def _read_begun(job: Job, description: dict[str, Any]) -> dict[str, Any] | None:
    """Content of job.json; None if it is not there or damaged."""
    try:
        begun = json.loads((job.candidates / JOB_NAME).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return begun if isinstance(begun, dict) and begun.keys() >= description.keys() else None


def _has_own_shards(job: Job, description: dict[str, Any]) -> bool:
    """Whether the markers that can be read are this job's; False if there are none.

    Raises ValueError if any is another job's.
    """
    contents = read_many(job.candidates, markers(job.candidates)).values()
    found = {stats.job for content in contents if (stats := _parse_marker(content))}
    if found - {identity(description)}:
        raise ValueError(
            f"{job.candidates / JOB_NAME} is damaged, and the shards beside it were not made by"
            " this command: give another --out, or what it was started with"
        )
    return bool(found)


def _describe_finished(out: Path, manifest: Manifest) -> dict[str, Any]:
    """What job.json said of a finished dataset."""
    try:
        recipe = canonical(manifest.recipe, manifest.weights)
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"{out / MANIFEST_NAME} is damaged, its recipe is incomplete: give another --out"
        ) from None
    return {
        "digest": manifest.recipe_digest,
        "n": manifest.totals.candidates,
        "source": manifest.source,
        "recipe": recipe,
    }


def _refuse_another(out: Path, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Raise ValueError, naming what differs, unless `out` holds the same job."""
    hint = "give another --out, or what it was started with"
    if ours["source"] != theirs["source"]:
        raise ValueError(f"{out} was made from other images: {hint}")
    if ours["digest"] != theirs["digest"]:
        fields = ", ".join(diff(theirs["recipe"], ours["recipe"]))
        if not fields:
            raise ValueError(
                f"{out} was made by another version of the program: give another --out, or use"
                " that version"
            )
        raise ValueError(f"{out} was started with another recipe ({fields} differ): {hint}")
    if ours["n"] != theirs["n"]:
        raise ValueError(f"{out} was started with --n {theirs['n']}, not {ours['n']}: {hint}")


def _refuse_foreign(out: Path) -> None:
    """Raise FileExistsError if `out`, in which nothing was finished, holds anything."""
    foreign = [name for name in contents(out) if name != CANDIDATES_DIR]
    # They are deleted when a job is finished: another program's must not be taken for ours.
    inside = contents(out / CANDIDATES_DIR)
    if JOB_NAME not in inside:
        foreign += [f"{CANDIDATES_DIR}/{name}" for name in inside]
    if foreign:
        raise FileExistsError(
            f"--out {out} holds no dataset but {foreign[0]}: give a new or empty folder"
        )


def finished_shards(candidates: Path, shards: Sequence[Shard], job: str) -> dict[int, ShardStats]:
    """Stats by number of those shards that are there and intact; the others must be made.

    Shards of another job than `job` (see `identity`) do not count: a worker that outlived its
    driver may have left one.

    On a disk that is size and sha256. A store shows whole objects only and checks them itself, so
    in a bucket one listing gives the sizes, and `commit` checks the sha256 of what it reads.
    """
    if not is_remote(candidates):
        found = (finished_shard(candidates, shard, job) for shard in shards)
        return {stats.number: stats for stats in found if stats is not None}
    entries = {entry.name: entry for entry in list_files(candidates)}
    sizes = {name: entry.size for name, entry in entries.items()}
    marked = {shard.marker: shard for shard in shards if shard.marker in entries}
    finished = {}
    for name, content in read_many(candidates, [entries[name] for name in marked]).items():
        stats = _parse_marker(content)
        if stats is not None and _is_of(stats, marked[name], job):
            files = (stats.tar, stats.rows)
            if all(sizes.get(info.name) == info.bytes for info in files):
                finished[stats.number] = stats
    return finished


def finished_shard(candidates: Path, shard: Shard, job: str) -> ShardStats | None:
    """Stats of a shard that is there and intact, by size and sha256; None if it must be made."""
    stats = _read_marker(candidates / shard.marker)
    if stats is None or not _is_of(stats, shard, job):
        return None
    files = (stats.tar, stats.rows)
    return stats if all(info.matches(candidates / info.name) for info in files) else None


def _is_of(stats: ShardStats, shard: Shard, job: str) -> bool:
    found = (stats.job, stats.number, stats.start, stats.stop)
    return found == (job, shard.number, shard.start, shard.stop)


def _read_marker(path: Path) -> ShardStats | None:
    """A completion marker; None if it is absent, truncated or zeroed: its shard is not finished."""
    try:
        return _parse_marker(path.read_bytes())
    except OSError:
        return None


def _parse_marker(content: bytes) -> ShardStats | None:
    try:
        return ShardStats.from_json(json.loads(content))
    except (ValueError, KeyError, TypeError):
        return None
