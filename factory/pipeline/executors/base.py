"""What an executor is, how often a shard is tried, and the executor in this process."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

from factory.pipeline.failures import ShardError, ShardFailure
from factory.pipeline.worker import Shard, ShardStats, ShardWorker, WorkerSpec

Outcome = ShardStats | ShardFailure
Results = Generator[Outcome, None, None]

ATTEMPTS = 2  # at a shard, before it is reported


class Executor(Protocol):
    """Runs shards in any order and yields the outcome of each as it is finished.

    That is its statistics or, if it could not be made at a second try either, its failure.
    """

    @property
    def cpus_per_worker(self) -> int:
        """Threads of a worker."""
        ...

    @property
    def start_sec(self) -> float:
        """What it takes to start, without loading the models (an estimate)."""
        ...

    def expected_workers(self, shards: int) -> int:
        """How many workers this machine would run for so many shards."""
        ...

    def run(self, spec: WorkerSpec, shards: Sequence[Shard]) -> Results:
        """Raise ValueError or OSError for what the user can mend; anything else is a bug."""
        ...


@dataclass(frozen=True)
class LocalExecutor:
    """One shard after another in this process, on `cpus_per_worker` threads."""

    cpus_per_worker: int = 1
    start_sec: float = 0.0

    def expected_workers(self, shards: int) -> int:
        """Always one."""
        return 1

    def run(self, spec: WorkerSpec, shards: Sequence[Shard]) -> Results:
        """See `Executor`."""
        worker = ShardWorker(spec, self.cpus_per_worker)
        for shard in shards:
            yield attempt(worker, shard)


def attempt(worker: Callable[[Shard], ShardStats], shard: Shard) -> Outcome:
    """Make a shard, at the second try if need be; what stops the whole job is raised."""
    failure: ShardFailure | None = None
    for _ in range(ATTEMPTS):
        try:
            return worker(shard)
        except ShardError as error:
            where = "".join(traceback.format_exception(error))
            failure = ShardFailure(shard.number, shard.start, shard.stop, str(error), where)
    assert failure is not None
    return failure
