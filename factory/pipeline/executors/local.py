"""The executor that runs in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from factory.pipeline.executors.base import Results, attempt
from factory.pipeline.shard import Shard
from factory.pipeline.worker import ShardWorker, WorkerSpec
from factory_core.device import torch_threads


@dataclass(frozen=True)
class LocalExecutor:
    """One shard after another, on `cpus_per_worker` threads."""

    cpus_per_worker: int = 1
    start_sec: float = 0.0

    def device(self, requested: str) -> str:
        """The requested one."""
        return requested

    def expected_workers(self, shards: int, device: str) -> int:
        """Always one."""
        return 1

    def run(self, spec: WorkerSpec, shards: Sequence[Shard]) -> Results:
        """See `Executor`."""
        worker = ShardWorker(spec)
        for shard in shards:
            with torch_threads(self.cpus_per_worker):
                outcome = attempt(worker, shard)
            yield outcome
