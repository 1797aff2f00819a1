"""The executor on Ray: how many workers, with which resources, on which cluster."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from factory.pipeline.executors.base import Results
from factory.pipeline.executors.cluster import cluster
from factory.pipeline.shard import Shard
from factory.pipeline.worker import WorkerSpec
from factory_core.machine import available_cpus

ROUNDING = 1e-6  # a share of 1/3 fits three times
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RayExecutor:
    """A pool of Ray actors, on a local cluster that is started and stopped, or on `address`.

    It runs `workers` to `max_workers` actors, or exactly `workers` without `max_workers`; see
    `factory.pipeline.executors.pool.Pool`. `workers` None means one per GPU, or without GPUs one
    per `cpus_per_worker` cores. `gpus_per_worker` may be a fraction, and 0 means the CPU; None
    shares the GPUs among the workers. `shard_timeout_sec` is as in `Pool`.
    """

    workers: int | None = None
    cpus_per_worker: int = 1
    gpus_per_worker: float | None = None
    address: str | None = None
    max_workers: int | None = None
    shard_timeout_sec: float | None = None
    start_sec: float = 5.0  # measured on two cores, page cache warm

    def __post_init__(self) -> None:
        gpus = self.gpus_per_worker
        if gpus is not None and gpus > 1 and gpus != int(gpus):
            raise ValueError(
                f"--gpus-per-worker {gpus:g}: expected a fraction up to 1, or a whole number"
            )

    def device(self, requested: str) -> str:
        """See `Executor`: Ray chooses the GPU, and without one a worker computes on the CPU."""
        gpus = self.gpus_per_worker
        if requested.startswith("cuda") and gpus == 0:
            raise ValueError(
                f"--device {requested} --gpus-per-worker 0: expected a share of a GPU for each"
                " worker: leave one of them out"
            )
        if requested.startswith("cuda:"):
            raise ValueError(
                f"--device {requested}: Ray assigns the GPUs: give --device cuda (and"
                " CUDA_VISIBLE_DEVICES to choose among them), or --executor local"
            )
        if requested == "cpu" and gpus:
            raise ValueError(f"--device cpu --gpus-per-worker {gpus:g}: leave one of them out")
        return "cpu" if gpus == 0 else requested

    def expected_workers(self, shards: int, device: str) -> int:
        """As `run` decides on a local cluster."""
        resources = {"CPU": float(available_cpus()), "GPU": float(torch.cuda.device_count())}
        return self._share(resources, shards, device)[1]

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
            least, most, gpus = self._share(resources, len(shards), spec.device)
            most = self._placed(least, most, gpus, resources)
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

    def _share(
        self, resources: dict[str, float], shards: int, device: str
    ) -> tuple[int, int, float]:
        """Least and greatest number of workers, and GPUs per worker.

        A worker is placed on one GPU, so that as many equal shares as needed must fit on each.
        """
        total_gpus = 0.0 if device == "cpu" else resources.get("GPU", 0.0)
        least = self.workers
        if least is None:
            cores = int(resources.get("CPU", 1.0)) // self.cpus_per_worker
            least = int(total_gpus) or max(1, cores)
        most = min(max(least, self.max_workers or least), shards)
        gpus = self.gpus_per_worker
        if gpus is None:
            gpus = 1 / math.ceil(most / total_gpus) if total_gpus else 0.0
        return min(least, shards), most, gpus

    def _placed(self, least: int, most: int, gpus: float, resources: dict[str, float]) -> int:
        """The greatest number of workers for which there are GPUs.

        Raises ValueError if this machine has too few for `least`. A cluster may still grow.
        """
        if not gpus:
            return most
        found = resources.get("GPU", 0.0)
        room = int(found / gpus) if gpus > 1 else int(found) * int(1 / gpus + ROUNDING)
        if room >= least:
            return most if self.address is not None else min(most, room)
        line = (
            f"--workers {least} --gpus-per-worker {gpus:g}: found {found:g} GPUs, room for {room}"
        )
        if self.address is None:
            raise ValueError(f"{line}: give fewer workers, or a smaller share")
        logger.warning("%s: the other workers wait until machines join the cluster", line)
        return most
