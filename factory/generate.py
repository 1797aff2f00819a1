"""The job: plan, run what is missing, select, commit.

    OUT/candidates/job.json       what is being made (recipe, number of samples, source)
                  NNNNNN.tar, NNNNNN.parquet, NNNNNN_stats.json      see `factory.worker`
    OUT/shards, samples.parquet, dataset.json, preview.png           see `factory.dataset`

It can be stopped at any moment and started again with the same command; the outcome is the same
to the byte. dataset.json is the last word: with it the dataset is finished.
"""

from __future__ import annotations

import errno
import hashlib
import json
import resource
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from factory.commit import commit
from factory.dataset import (
    CANDIDATES_DIR,
    MANIFEST_NAME,
    MAX_SAMPLES,
    PREVIEW_NAME,
    Manifest,
    file_sha256,
    open_dataset,
    sweep_temporaries,
    write_json,
)
from factory.executors import Executor, LocalExecutor
from factory.recipe import ResolvedRecipe, canonical, diff
from factory.worker import (
    LoadModels,
    Shard,
    ShardStats,
    ShardWorker,
    WorkerSpec,
    load_models,
)

JOB_NAME = "job.json"
GIB = 2**30


@dataclass(frozen=True)
class Progress:
    """Where a job stands. `samples_resumed` were there when it started; uncertainty in nats."""

    stage: Literal["generate", "commit", "done"]
    samples_done: int
    samples_total: int
    samples_resumed: int
    shards_done: int
    shards_total: int
    mean_uncertainty: float | None
    elapsed_sec: float

    @property
    def samples_per_sec(self) -> float:
        """Rate since this process started, its start included."""
        return (self.samples_done - self.samples_resumed) / max(self.elapsed_sec, 1e-9)

    @property
    def eta_sec(self) -> float | None:
        """Time left at that rate; None before the first shard."""
        rate = self.samples_per_sec
        return (self.samples_total - self.samples_done) / rate if rate else None


OnProgress = Callable[[Progress], None]


def _ignore(_: Progress) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class Job:
    """What is made, where. `files` are the photographs of `factory label`, None for samples."""

    recipe: ResolvedRecipe
    n: int
    out: Path
    files: tuple[str, ...] | None = None
    device: str = "auto"
    load: LoadModels = load_models

    @property
    def candidates(self) -> Path:
        """The folder of work in progress."""
        return self.out / CANDIDATES_DIR

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
            device=self.device,
            load=self.load,
        )


def generate(
    recipe: ResolvedRecipe,
    n: int,
    out: Path,
    *,
    executor: Executor | None = None,
    device: str = "auto",
    keep_candidates: bool = False,
    on_progress: OnProgress = _ignore,
    load: LoadModels = load_models,
) -> Manifest:
    """Make a dataset of `n` candidates from the generator, or finish one begun before.

    Raises:
        ValueError: `n` out of range, another job in `out`, a labeler of another generator.
        OSError: `out` is something else, or the disk is full (what is finished stays).
    """
    if not 1 <= n <= MAX_SAMPLES:
        raise ValueError(f"--n {n}: expected a number of samples from 1 to {MAX_SAMPLES}")
    job = Job(recipe, n, out, device=device, load=load)
    return _run(job, executor or LocalExecutor(), keep_candidates, on_progress)


def label(
    recipe: ResolvedRecipe,
    images: Path,
    out: Path,
    *,
    executor: Executor | None = None,
    device: str = "auto",
    keep_candidates: bool = False,
    on_progress: OnProgress = _ignore,
    load: LoadModels = load_models,
) -> Manifest:
    """Make the same kind of dataset from the photographs in `images` (errors as `generate`)."""
    job = Job(recipe, len(files := _list_files(images)), out, files, device, load)
    return _run(job, executor or LocalExecutor(), keep_candidates, on_progress)


def _list_files(images: Path) -> tuple[str, ...]:
    from labelers.annotations import list_images

    return tuple(str(path.resolve()) for path in list_images(images))


def _run(job: Job, executor: Executor, keep_candidates: bool, on_progress: OnProgress) -> Manifest:
    description = _describe(job)
    if (job.out / MANIFEST_NAME).is_file():
        manifest = open_dataset(job.out).manifest
        _refuse_another(job.out, description, _describe_finished(manifest))
        on_progress(
            Progress("done", job.n, job.n, job.n, len(job.shards), len(job.shards), None, 0)
        )
    else:
        _begin(job, description)
        try:
            stats = _run_missing(job, executor, on_progress)
            manifest = commit(job.recipe, description["source"], job.out, stats)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            done, total = len(_markers(job.candidates)), len(job.shards)
            raise OSError(
                f"disk full while writing {job.out}: {done} of {total} shards are finished and"
                " kept: free some space and run the same command again"
            ) from error
    if not (job.out / PREVIEW_NAME).exists():
        from factory.preview import write_preview

        write_preview(job.out)
    if not keep_candidates:
        shutil.rmtree(job.candidates, ignore_errors=True)
    return manifest


# --- what is in the folder -------------------------------------------------------------------


def _describe(job: Job) -> dict[str, Any]:
    """Content of job.json: all that two runs must agree in to share a folder."""
    source: dict[str, Any] = {"kind": "generator"}
    if job.files is not None:
        content = hashlib.sha256()
        for file in job.files:
            content.update(f"{Path(file).name} {file_sha256(Path(file))}\n".encode())
        source = {"kind": "images", "sha256": content.hexdigest()}
    recipe, digest = job.recipe.canonical, job.recipe.digest
    return {"digest": digest, "n": job.n, "source": source, "recipe": recipe}


def _describe_finished(manifest: Manifest) -> dict[str, Any]:
    """What job.json said of a finished dataset."""
    return {
        "digest": manifest.recipe_digest,
        "n": manifest.totals.candidates,
        "source": manifest.source,
        "recipe": canonical(manifest.recipe, manifest.weights),
    }


def _refuse_another(out: Path, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Raise ValueError, naming what differs, unless `out` holds the same job."""
    hint = "give another --out, or what it was started with"
    if ours["source"] != theirs["source"]:
        raise ValueError(f"{out} was made from other images: {hint}")
    if ours["digest"] != theirs["digest"]:
        fields = ", ".join(diff(theirs["recipe"], ours["recipe"]))
        raise ValueError(f"{out} was started with another recipe ({fields} differ): {hint}")
    if ours["n"] != theirs["n"]:
        raise ValueError(f"{out} was started with --n {theirs['n']}, not {ours['n']}: {hint}")


def _begin(job: Job, description: dict[str, Any]) -> None:
    """Check that `out` is empty or holds this very job, and write job.json."""
    job_file = job.candidates / JOB_NAME
    if job.out.exists() and not job.out.is_dir():
        raise NotADirectoryError(f"--out {job.out} is a file, expected a folder or a new name")
    if job_file.is_file() and _markers(job.candidates):
        try:
            begun = json.loads(job_file.read_bytes())
        except ValueError:
            raise ValueError(f"{job_file} is damaged: give another --out") from None
        _refuse_another(job.out, description, begun)
        return
    if job.out.is_dir() and not job_file.is_file():
        foreign = sorted(p.name for p in job.out.iterdir() if p.name != CANDIDATES_DIR)
        if foreign:
            raise FileExistsError(
                f"--out {job.out} holds no dataset but {foreign[0]}: give a new or empty folder"
            )
    job.candidates.mkdir(parents=True, exist_ok=True)
    write_json(job_file, description)


def _markers(candidates: Path) -> list[Path]:
    return sorted(candidates.glob("*_stats.json"))


def _finished(candidates: Path, shard: Shard) -> ShardStats | None:
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


# --- running ---------------------------------------------------------------------------------


def _run_missing(job: Job, executor: Executor, on_progress: OnProgress) -> list[ShardStats]:
    """Make the shards that are not there; returns the stats of all, in order."""
    started = time.perf_counter()
    sweep_temporaries(job.candidates)
    shards = job.shards
    stats = {s.number: s for shard in shards if (s := _finished(job.candidates, shard))}
    resumed = sum(s.samples for s in stats.values())

    def report(stage: Literal["generate", "commit"]) -> None:
        done = sum(s.samples for s in stats.values())
        total = sum(s.uncertainty_sum for s in stats.values())
        elapsed, mean = time.perf_counter() - started, total / done if done else None
        on_progress(Progress(stage, done, job.n, resumed, len(stats), len(shards), mean, elapsed))

    report("generate")
    missing = [shard for shard in shards if shard.number not in stats]
    try:
        with closing(executor.run(job.spec, missing)) as finished:
            for shard_stats in finished:
                stats[shard_stats.number] = shard_stats
                report("generate")
    finally:
        sweep_temporaries(job.candidates)
        if not _markers(job.candidates):  # nothing to resume: leave the folder as it was
            shutil.rmtree(job.candidates, ignore_errors=True)
            if not any(job.out.iterdir()):
                job.out.rmdir()
    report("commit")
    return [stats[shard.number] for shard in shards]


# --- estimating ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """What a job would take on this machine. `disk_peak_gib` includes the candidates."""

    samples: int
    workers: int
    samples_per_sec: float
    total_sec: float
    ram_gib: float
    disk_gib: float
    disk_peak_gib: float
    disk_free_gib: float


def estimate(
    recipe: ResolvedRecipe,
    n: int,
    out: Path,
    *,
    executor: Executor | None = None,
    device: str = "auto",
    load: LoadModels = load_models,
) -> Estimate:
    """Time, memory and disk of `generate`, from one small batch made now (errors likewise)."""
    executor = executor or LocalExecutor()
    job = Job(recipe, n, out, device=device, load=load)
    began = time.perf_counter()
    worker = ShardWorker(job.spec, executor.cpus_per_worker)
    worker.make([0])  # loads the models; first passes are slow for reasons that do not last
    loaded = time.perf_counter()
    count = min(4, n, recipe.generator.batch_size)
    members = worker.make(range(count)).members
    batch_sec = time.perf_counter() - loaded
    workers = executor.expected_workers(len(job.shards))
    rate = workers * count / batch_sec
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    # A tar pads every member to 512 bytes and gives it a header of 512.
    member_bytes = [512 + -(-len(data) // 512) * 512 for sample in members for _, data in sample]
    disk = sum(member_bytes) / count * n / GIB
    kept_disk = disk * (1 - recipe.recipe.dataset.drop_fraction)
    existing = next(p for p in [out.resolve(), *out.resolve().parents] if p.exists())
    return Estimate(
        samples=n,
        workers=workers,
        samples_per_sec=rate,
        total_sec=executor.start_sec + (loaded - began) + n / rate,
        ram_gib=workers * rss / GIB,
        disk_gib=kept_disk,
        disk_peak_gib=disk + kept_disk,
        disk_free_gib=shutil.disk_usage(existing).free / GIB,
    )
