"""Running a job: make the missing shards, select, commit.

    OUT/candidates/job.json       what is being made (recipe, number of samples, source)
                  NNNNNN.tar, NNNNNN.parquet, NNNNNN_stats.json      see `shard_writer`
                  NNNNNN_failed.json                                 see `failures`
    OUT/shards, samples.parquet, dataset.json, preview.png           see `factory_core.dataset`

A job can be stopped at any moment and resumed with the same command. The result is the same to the
byte. dataset.json is written last and marks the dataset as finished. A job that is rerun after that
checks every file and regenerates what is damaged.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace

from factory.locking.lock import exclusive
from factory.pipeline import ownership
from factory.pipeline.commit import commit
from factory.pipeline.executors.base import Executor
from factory.pipeline.executors.local import LocalExecutor
from factory.pipeline.failures import HOPELESS, ShardFailure, ShardsFailed, record, sweep_failures
from factory.pipeline.job import Job
from factory.pipeline.progress import OnProgress, Tally, ignore
from factory.pipeline.repair import plan_repair, rewrite
from factory.pipeline.shard import Shard, ShardStats
from factory.pipeline.worker import WorkerSpec
from factory.reports import preview
from factory_core.dataset import Manifest, markers
from factory_core.dataset.recovery import restore_manifest
from factory_core.output_folder import contents, refuse_file
from factory_core.storage import DISK_FULL


def run(job: Job, executor: Executor | None = None, on_progress: OnProgress = ignore) -> Manifest:
    """Make the dataset of `job`, or finish one that was started before; in this process by default.

    Raises:
        ValueError: another job in `job.out`, or a labeler of a different generator.
        ShardsFailed: some shards could not be made (a ValueError; the others are finished).
        OSError: `job.out` holds something else or is in use by another job, or the disk is full
            (finished shards are kept).
    """
    executor = executor or LocalExecutor()
    if not (job.out.is_shared or isinstance(executor, LocalExecutor)):
        raise ValueError(
            f"--out {job.out} is in the memory of this process, which other workers cannot reach:"
            " give --executor local, or another --out"
        )
    job = replace(job, device=executor.device(job.device))
    refuse_file(job.out)
    with exclusive(job.out):
        finished = ownership.inspect(job)
        job.out.sweep()
        with _full_disk_explained(job):
            if finished is None:
                stats = _make_missing(job, job.shards, executor, on_progress)
                manifest = commit(job.recipe, job.identity.source, job.out, stats)
            else:
                restore_manifest(job.out, finished)
                manifest = _repaired(job, finished, executor, on_progress)
            if preview.fault(job.out) is not None:  # dataset.json does not list it
                preview.write_preview(job.out)
        if not job.keep_candidates:
            job.candidates.remove()
    return manifest


@contextmanager
def _full_disk_explained(job: Job) -> Iterator[None]:
    """Report what is kept when the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        done, total = len(markers(job.candidates)), job.shard_count
        # Files for a bucket are first written to this machine.
        where = tempfile.gettempdir() if job.out.is_remote else job.out
        raise OSError(
            f"disk full while writing {where}: {done} of {total} shards are finished and kept:"
            " free some space and rerun the command"
        ) from error


def _repaired(
    job: Job, manifest: Manifest, executor: Executor, on_progress: OnProgress
) -> Manifest:
    """The manifest of a finished dataset after regenerating what is damaged."""
    repair = plan_repair(job, manifest)
    if repair is None:
        count = job.shard_count
        nothing_to_do = Tally(job.n, count, samples=job.n, samples_resumed=job.n, shards=count)
        on_progress(nothing_to_do.progress("done"))
        return manifest
    made, here = manifest.threads, executor.cpus_per_worker
    if made and here not in made:
        raise ValueError(
            f"{job.out} is damaged, and was made with --cpus-per-worker "
            f"{' and '.join(map(str, made))}: {here} would round differently, so repair it with "
            f"--cpus-per-worker {made[0]}"
        )
    precision = manifest.precision or None
    stats = _make_missing(job, repair.candidates, executor, on_progress, precision)
    if repair.is_complete:
        return commit(job.recipe, job.identity.source, job.out, stats, manifest)
    rewrite(job, repair, stats)
    return manifest


def _make_missing(
    job: Job,
    shards: Sequence[Shard],
    executor: Executor,
    on_progress: OnProgress,
    precision: str | None = None,
) -> list[ShardStats]:
    """Make the missing `shards`; returns the stats of all, in order.

    `precision` is that of the dataset under repair, if any. Raises ShardsFailed if some could not
    be made, after making the others.
    """
    ownership.begin(job)
    job.candidates.sweep()
    sweep_failures(job.candidates)
    stats = ownership.finished_shards(job.candidates, shards, job.identity.sha256)
    tally = Tally(sum(len(s.indices) for s in shards), len(shards), precision=precision)
    for found in stats.values():
        tally.add(found, resumed=True)
    on_progress(tally.progress("generate"))
    failures: list[ShardFailure] = []
    missing = [shard for shard in shards if shard.number not in stats]
    try:
        with closing(executor.run(WorkerSpec.of(job, tally.precision), missing)) as outcomes:
            for outcome in outcomes:
                if isinstance(outcome, ShardFailure):
                    record(job.candidates, outcome)
                    failures.append(outcome)
                    tally.failed += 1
                    if len(failures) == HOPELESS and not stats:
                        break
                else:
                    stats[outcome.number] = outcome
                    tally.add(outcome)
                on_progress(tally.progress("generate"))
    finally:
        job.candidates.sweep()
        # Nothing to resume: leave no trace, unless only this identifies the other files' job.
        if not markers(job.candidates) and not failures and len(contents(job.out)) <= 1:
            job.candidates.remove()
    if failures:
        raise ShardsFailed(failures, len(stats), len(shards), _hint(job))
    on_progress(tally.progress("commit"))
    return [stats[shard.number] for shard in shards]


def _hint(job: Job) -> str:
    hint = "fix the cause and rerun the command"
    if job.files is not None:  # different photographs are a different job
        hint += ", with another --out if photographs are changed or removed"
    return hint
