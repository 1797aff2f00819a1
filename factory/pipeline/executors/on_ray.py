"""The executor on Ray: how many workers, with which resources, on which cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from factory.pipeline.executors.base import Results
from factory.pipeline.executors.cluster import cluster
from factory.pipeline.shard import Shard
from factory.pipeline.worker import WorkerSpec
from factory_core.machine import available_cpus


@dataclass(frozen=True)
class RayExecutor:
    """A pool of Ray actors, on a local cluster that is started and stopped, or on `address`.

    It runs `workers` to `max_workers` actors, or exactly `workers` without `max_workers`; see
    `factory.pipeline.executors.pool.Pool`. `workers` None means one per GPU, or without GPUs one
    per `cpus_per_worker` cores. `gpus_per_worker` may be a fraction; None shares the GPUs among the
    workers. `shard_timeout_sec` is as in `Pool`.
    """

    workers: int | None = None
    cpus_per_worker: int = 1
    gpus_per_worker: float | None = None
    address: str | None = None
    max_workers: int | None = None
    shard_timeout_sec: float | None = None
    start_sec: float = 5.0  # measured on two cores, page cache warm

    def expected_workers(self, shards: int) -> int:
        """As `run` decides on a local cluster."""
        resources = {"CPU": float(available_cpus()), "GPU": float(torch.cuda.device_count())}
        return self._share(resources, shards)[1]

    def run(self, spec: WorkerSpec, shards: Sequence[Shard]) -> Results:
        """See `Executor`. Shards lost with an actor or a node go to other workers."""
        if not shards:
            return
        with cluster(self.address, self._local_cpus()):
            import ray

            from factory.pipeline.executors.actor import ShardActor
            from factory.pipeline.executors.pool import Pool
            from factory.pipeline.executors.shipping import put, weights_of

            resources = ray.cluster_resources()
            least, most, gpus = self._share(resources, len(shards))
            if self.address is None and gpus > resources.get("GPU", 0.0):
                found = resources.get("GPU", 0.0)
                raise ValueError(f"--gpus-per-worker {gpus:g}: this machine has {found:g} GPUs")
            # On the driver's machine, the weights are where it found them.
            weights = [] if self.address is None else weights_of(spec)
            # The pool, not Ray, replaces lost actors, so it can reassign their shards. Ray limits
            # each to its cores (OMP_NUM_THREADS), and the actor sets torch's threads.
            actor = ray.remote(ShardActor).options(
                num_cpus=self.cpus_per_worker, num_gpus=gpus, max_restarts=0
            )
            start = partial(actor.remote, spec, self.cpus_per_worker, weights)
            ship = partial(put, weights)
            pool = Pool(start, ship, shards, least, most, self.shard_timeout_sec)
            yield from pool.run()

    def _local_cpus(self) -> int:
        """Cores that a local cluster offers: the machine's, or more if more are requested."""
        workers = self.max_workers or self.workers or 1
        return max(workers * self.cpus_per_worker, available_cpus())

    def _share(self, resources: dict[str, float], shards: int) -> tuple[int, int, float]:
        """Least and greatest number of workers, and GPUs per worker."""
        total_gpus = resources.get("GPU", 0.0)
        least = self.workers
        if least is None:
            cores = int(resources.get("CPU", 1.0)) // self.cpus_per_worker
            least = int(total_gpus) or max(1, cores)
        most = min(max(least, self.max_workers or least), shards)
        gpus = self.gpus_per_worker
        gpus = min(1.0, total_gpus / most) if gpus is None else gpus
        return min(least, shards), most, gpus
