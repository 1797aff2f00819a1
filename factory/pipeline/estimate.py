"""The cost of a job, measured on one batch."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch

from factory.pipeline import ownership
from factory.pipeline.executors.base import Executor
from factory.pipeline.job import Job
from factory.pipeline.models import device_of
from factory.pipeline.select import drop_count
from factory.pipeline.worker import ShardWorker, WorkerSpec
from factory_core.device import torch_threads
from factory_core.machine import GIB, disk_free_bytes, peak_memory_bytes
from factory_core.storage import DiskStore

SAMPLES = 4  # timed, of a network that runs them one by one


@dataclass(frozen=True)
class Estimate:
    """Cost of a job on this machine. `disk_peak_gib` includes the candidates.

    `gpu_gib` is the memory that each worker needs on its GPU, None without one; `disk_free_gib` is
    None in a bucket.
    """

    workers: int
    samples_per_sec: float
    total_sec: float
    ram_gib: float
    gpu_gib: float | None
    disk_gib: float
    disk_peak_gib: float
    disk_free_gib: float | None


def estimate(job: Job, executor: Executor) -> Estimate:
    """Time, memory and disk of `run(job, executor)`; writes nothing. Raises as `run`.

    The timed batch is one of the job: fewer samples may take as long, because kernels are slower on
    small batches, and in low precision they are filled up.
    """
    job = replace(job, device=executor.device(job.device))
    ownership.inspect(job)
    with torch_threads(executor.cpus_per_worker):
        began = time.perf_counter()
        worker = ShardWorker(WorkerSpec.of(job))
        worker.make([0])  # loads the models and warms up
        count = _batch(job, worker)
        if device_of(worker.models).type != "cpu":
            worker.make(range(count))  # kernels are chosen, and memory is reserved, by shape
        loaded = time.perf_counter()
        with ThreadPoolExecutor(executor.cpus_per_worker) as pool:
            samples = list(worker.make(range(count)).members(worker.spec.encoding, pool))
        batch_sec = time.perf_counter() - loaded
    workers = executor.expected_workers(job.shard_count, job.device)
    rate = workers * count / batch_sec
    # A tar pads every member to 512 bytes and gives it a header of 512.
    member_bytes = [512 + -(-len(data) // 512) * 512 for sample in samples for _, data in sample]
    candidates = sum(member_bytes) / count * job.n / GIB
    recipe = job.recipe.recipe
    dropped = drop_count(job.n, recipe.dataset.drop_fraction, recipe.selection.policy)
    kept = candidates * (1 - dropped / job.n)
    free = disk_free_bytes(job.out.path) / GIB if isinstance(job.out, DiskStore) else None
    return Estimate(
        workers=workers,
        samples_per_sec=rate,
        total_sec=executor.start_sec + (loaded - began) + job.n / rate,
        ram_gib=workers * peak_memory_bytes() / GIB,
        gpu_gib=_gpu_gib(device_of(worker.models)),
        disk_gib=kept,
        disk_peak_gib=candidates + kept,
        disk_free_gib=free,
    )


def _batch(job: Job, worker: ShardWorker) -> int:
    """How many samples to time: the job's first batch.

    A network that runs samples one by one takes equally long for each: a few of them will do.
    """
    size = min(job.n, job.recipe.recipe.dataset.shard_size, job.recipe.generator.batch_size)
    alone = getattr(worker.models[0], "pass_size", size) == 1
    return min(size, SAMPLES) if alone else size


def _gpu_gib(device: torch.device) -> float | None:
    """The most that torch has reserved on a GPU; the driver adds a few hundred MiB."""
    if device.type != "cuda":
        return None
    return torch.cuda.max_memory_reserved(device) / GIB
