"""A job and its folder: what is to be made, what is there already, whose the folder is."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory.dataset import (
    CANDIDATES_DIR,
    JOB_NAME,
    MANIFEST_NAME,
    MAX_SAMPLES,
    Manifest,
    file_sha256,
    markers,
    read_manifest,
    write_json,
)
from factory.folders import contents, refuse_file
from factory.recipe import ResolvedRecipe, canonical, diff
from factory.worker import LoadModels, Shard, ShardStats, WorkerSpec, load_models


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


def inspect(job: Job, description: dict[str, Any]) -> Manifest | None:
    """What `job.out` holds: the manifest if the job is finished, else None; writes nothing.

    Raises:
        ValueError: another job's folder (says what differs), or a damaged one.
        OSError: a file, or a folder of other things.
    """
    refuse_file(job.out)
    if (job.out / MANIFEST_NAME).is_file():
        manifest = read_manifest(job.out)
        _refuse_another(job.out, description, _describe_finished(job.out, manifest))
        return manifest
    job_file = job.candidates / JOB_NAME
    if not job_file.is_file():
        _refuse_foreign(job.out)
    elif markers(job.candidates):
        try:
            begun = json.loads(job_file.read_bytes())
        except ValueError:
            begun = None
        if not isinstance(begun, dict) or not begun.keys() >= description.keys():
            raise ValueError(f"{job_file} is damaged: give another --out")
        _refuse_another(job.out, description, begun)
    return None


def begin(job: Job, description: dict[str, Any]) -> None:
    """Make the folder and write job.json (after `inspect`)."""
    job.candidates.mkdir(parents=True, exist_ok=True)
    if not markers(job.candidates):
        write_json(job.candidates / JOB_NAME, description)


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
    """Raise FileExistsError if `out`, in which no job was begun, holds anything."""
    foreign = [name for name in contents(out) if name != CANDIDATES_DIR]
    # They are deleted when a job is finished: another program's must not be taken for ours.
    foreign += [f"{CANDIDATES_DIR}/{name}" for name in contents(out / CANDIDATES_DIR)]
    if foreign:
        raise FileExistsError(
            f"--out {out} holds no dataset but {foreign[0]}: give a new or empty folder"
        )


def finished_shard(candidates: Path, shard: Shard) -> ShardStats | None:
    """Stats of a shard that is there and intact, by size and sha256; None if it must be made."""
    try:
        content = json.loads((candidates / f"{shard.stem}_stats.json").read_bytes())
        stats = ShardStats.from_json(content)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # absent, truncated or zeroed: all mean that the shard is not finished
    same = (stats.number, stats.start, stats.stop) == (shard.number, shard.start, shard.stop)
    intact = stats.tar.matches(candidates / f"{shard.stem}.tar") and stats.rows.matches(
        candidates / f"{shard.stem}.parquet"
    )
    return stats if same and intact else None
