"""The cost of a job, measured on one small batch."""

from __future__ import annotations

import time
from dataclasses import dataclass

from factory.pipeline import ownership
from factory.pipeline.executors.base import Executor
from factory.pipeline.job import Job
from factory.pipeline.select import drop_count
from factory.pipeline.worker import ShardWorker, WorkerSpec
from factory_core.device import torch_threads
from factory_core.machine import GIB, disk_free_bytes, peak_memory_bytes
from factory_core.storage import DiskStore

SAMPLES = 4  # at most, in the timed batch


@dataclass(frozen=True)
class Estimate:
    """Cost of a job on this machine. `disk_peak_gib` includes the candidates.

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


def estimate(job: Job, executor: Executor) -> Estimate:
    """Time, memory and disk of `run(job, executor)`; writes nothing. Raises as `run`."""
    ownership.inspect(job)
    count = min(SAMPLES, job.n, job.recipe.generator.batch_size)
    with torch_threads(executor.cpus_per_worker):
        began = time.perf_counter()
        worker = ShardWorker(WorkerSpec.of(job))
        worker.make([0])  # loads the models and warms up
        loaded = time.perf_counter()
        samples = list(worker.make(range(count)).members(worker.spec.encoding))
        batch_sec = time.perf_counter() - loaded
    workers = executor.expected_workers(job.shard_count)
    rate = workers * count / batch_sec
    # A tar pads every member to 512 bytes and gives it a header of 512.
    member_bytes = [512 + -(-len(data) // 512) * 512 for sample in samples for _, data in sample]
    candidates = sum(member_bytes) / count * job.n / GIB
    recipe = job.recipe.recipe
    dropped = drop_count(job.n, recipe.dataset.drop_fraction, recipe.selection.policy)
    kept = candidates * (1 - dropped / job.n)
    free = disk_free_bytes(job.out.path) / GIB if isinstance(job.out, DiskStore) else None
    return Estimate(
        samples=job.n,
        workers=workers,
        samples_per_sec=rate,
        total_sec=executor.start_sec + (loaded - began) + job.n / rate,
        ram_gib=workers * peak_memory_bytes() / GIB,
        disk_gib=kept,
        disk_peak_gib=candidates + kept,
        disk_free_gib=free,
    )
