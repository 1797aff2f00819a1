"""The job: plan, run what is missing, select, commit.

    OUT/candidates/job.json       what is being made (recipe, number of samples, source)
                  NNNNNN.tar, NNNNNN.parquet, NNNNNN_stats.json      see `factory.pipeline.worker`
                  NNNNNN_failed.json                                 see `factory.pipeline.failures`
    OUT/shards, samples.parquet, dataset.json, preview.png           see `factory_core.dataset`

It can be stopped at any moment and started again with the same command; the outcome is the same
to the byte. dataset.json is the last word: with it the dataset is finished. Started again then,
the job checks every file and makes what is damaged anew.
"""

from __future__ import annotations

import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from factory.locking.lock import exclusive
from factory.pipeline.commit import commit
from factory.pipeline.executors import Executor, LocalExecutor
from factory.pipeline.failures import HOPELESS, ShardFailure, ShardsFailed, record, sweep_failures
from factory.pipeline.job import Job, begin, describe, finished_shards, identity, inspect
from factory.pipeline.photographs import list_photographs
from factory.pipeline.repair import plan_repair, rewrite
from factory.pipeline.worker import (
    LoadModels,
    Shard,
    ShardStats,
    ShardWorker,
    WorkerSpec,
    load_models,
)
from factory.recipe.recipe import ResolvedRecipe
from factory_core.dataset import Manifest, markers, sweep_temporaries
from factory_core.dataset.recovery import restore_manifest
from factory_core.output_folder import contents
from factory_core.storage import DISK_FULL, is_remote, is_shared, remove_folder

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
    shards_failed: int
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
        ShardsFailed: some shards could not be made (a ValueError; the others are finished).
        OSError: `out` is something else or in use by another job, or the disk is full (what is
            finished stays).
    """
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
    """Make the same kind of dataset from the photographs in `images`.

    Errors as `generate`, and those of `list_photographs`.
    """
    job = Job(recipe, len(files := list_photographs(images)), out, files, device, load)
    return _run(job, executor or LocalExecutor(), keep_candidates, on_progress)


def _run(job: Job, executor: Executor, keep_candidates: bool, on_progress: OnProgress) -> Manifest:
    if not (is_shared(job.out) or isinstance(executor, LocalExecutor)):
        raise ValueError(
            f"--out {job.out}: lies in the memory of this process, which other workers cannot"
            " reach: give --executor local, or another --out"
        )
    description = describe(job)
    inspect(job, description)  # what is refused is refused before anything is written
    with exclusive(job.out):
        manifest = inspect(job, description)  # another job may just have ended
        sweep_temporaries(job.out)
        try:
            if manifest is not None:
                restore_manifest(job.out, manifest)
            manifest = _finish(job, executor, description, manifest, on_progress)
            _draw_preview(job.out)
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            done, total = len(markers(job.candidates)), job.shard_count
            # What goes to a bucket is written here first.
            where = tempfile.gettempdir() if is_remote(job.out) else job.out
            raise OSError(
                f"disk full while writing {where}: {done} of {total} shards are finished and"
                " kept: free some space and run the same command again"
            ) from error
        if not keep_candidates:
            remove_folder(job.candidates)
    return manifest


def _draw_preview(out: Path) -> None:
    """Draw preview.png unless it is there and whole: it is not in dataset.json."""
    from factory.reports import preview

    if preview.fault(out) is not None:
        preview.write_preview(out)


def _finish(
    job: Job,
    executor: Executor,
    description: dict[str, Any],
    manifest: Manifest | None,
    on_progress: OnProgress,
) -> Manifest:
    """Make what is missing or damaged; `manifest` is that of a dataset finished before."""
    repair = None if manifest is None else plan_repair(job, manifest)
    if manifest is not None and repair is None:
        shards = job.shard_count
        on_progress(Progress("done", job.n, job.n, job.n, shards, shards, 0, None, 0))
        return manifest
    begin(job, description)
    shards_needed = job.shards if repair is None else repair.candidates
    precision = None if manifest is None else manifest.precision or None
    spec = replace(job.spec, precision=precision, job=identity(description))
    stats = _run_missing(job, spec, shards_needed, executor, on_progress)
    if manifest is None or repair is None or repair.is_complete:
        return commit(job.recipe, description["source"], job.out, stats)
    rewrite(job, repair, stats)
    return manifest


# --- running ---------------------------------------------------------------------------------


def _run_missing(
    job: Job,
    spec: WorkerSpec,
    shards: Sequence[Shard],
    executor: Executor,
    on_progress: OnProgress,
) -> list[ShardStats]:
    """Make those of `shards` that are not there; returns the stats of all, in order.

    Raises ShardsFailed, after the others are made, if some could not be.
    """
    started = time.perf_counter()
    sweep_temporaries(job.candidates)
    sweep_failures(job.candidates)
    stats = finished_shards(job.candidates, shards, spec.job)
    failures: list[ShardFailure] = []
    tally = _Tally()
    for found in stats.values():
        tally.add(found)
    spec = replace(spec, precision=tally.precision or spec.precision)
    resumed, total = tally.samples, sum(len(s.indices) for s in shards)

    def report(stage: Literal["generate", "commit"]) -> None:
        on_progress(
            Progress(
                stage,
                tally.samples,
                total,
                resumed,
                len(stats),
                len(shards),
                len(failures),
                tally.mean_uncertainty,
                time.perf_counter() - started,
            )
        )

    report("generate")
    missing = [shard for shard in shards if shard.number not in stats]
    try:
        with closing(executor.run(spec, missing)) as finished:
            for outcome in finished:
                if isinstance(outcome, ShardFailure):
                    record(job.candidates, outcome)
                    failures.append(outcome)
                    if len(failures) == HOPELESS and not stats:
                        break
                else:
                    stats[outcome.number] = outcome
                    tally.add(outcome)
                report("generate")
    finally:
        sweep_temporaries(job.candidates)
        # Nothing to resume: leave no trace, unless it is all that says whose the other files are.
        if not markers(job.candidates) and not failures and len(contents(job.out)) <= 1:
            remove_folder(job.candidates)
    if failures:
        hint = "mend the cause and run the same command again"
        if job.files is not None:  # other photographs are another job
            hint += ", with another --out if photographs are changed or removed"
        raise ShardsFailed(failures, len(stats), len(shards), hint)
    report("commit")
    return [stats[shard.number] for shard in shards]


@dataclass
class _Tally:
    """Sums over finished shards, kept up as they come: adding all up each time would be O(n²)."""

    samples: int = 0
    uncertainty_sum: float = 0.0
    precision: str | None = None

    def add(self, stats: ShardStats) -> None:
        """Count a shard in.

        Raises ValueError if it was computed in another precision than those before: workers that
        began at once may differ.
        """
        if self.precision not in (None, stats.precision):
            found = sorted((str(self.precision), stats.precision))
            raise ValueError(
                f"the workers' machines differ in what auto means, {' and '.join(found)}: set one"
                " of them and give another --out"
            )
        self.precision = stats.precision
        self.samples += stats.samples
        self.uncertainty_sum += stats.uncertainty_sum

    @property
    def mean_uncertainty(self) -> float | None:
        """Of a sample, in nats; None without any."""
        return self.uncertainty_sum / self.samples if self.samples else None


# --- estimating ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """What a job would take on this machine. `disk_peak_gib` includes the candidates.

    `disk_free_gib` is None in a bucket.
    """

    samples: int
    workers: int
    samples_per_sec: float
    total_sec: float
    ram_gib: float
    disk_gib: float
    disk_peak_gib: float
    disk_free_gib: float | None


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
    inspect(job, describe(job))
    began = time.perf_counter()
    worker = ShardWorker(job.spec, executor.cpus_per_worker)
    worker.make([0])  # loads the models; first passes are slow for reasons that do not last
    loaded = time.perf_counter()
    count = min(4, n, recipe.generator.batch_size)
    members = list(worker.encode(worker.make(range(count))))
    batch_sec = time.perf_counter() - loaded
    workers = executor.expected_workers(job.shard_count)
    rate = workers * count / batch_sec
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    # A tar pads every member to 512 bytes and gives it a header of 512.
    member_bytes = [512 + -(-len(data) // 512) * 512 for sample in members for _, data in sample]
    disk = sum(member_bytes) / count * n / GIB
    kept_disk = disk * (1 - recipe.recipe.dataset.drop_fraction)
    return Estimate(
        samples=n,
        workers=workers,
        samples_per_sec=rate,
        total_sec=executor.start_sec + (loaded - began) + n / rate,
        ram_gib=workers * rss / GIB,
        disk_gib=kept_disk,
        disk_peak_gib=disk + kept_disk,
        disk_free_gib=None if is_remote(out) else _disk_free_gib(out),
    )


def _disk_free_gib(folder: Path) -> float:
    """Free on the disk that `folder` lies on, or would lie on."""
    folder = folder.resolve()
    existing = next(path for path in [folder, *folder.parents] if path.exists())
    return shutil.disk_usage(existing).free / GIB
