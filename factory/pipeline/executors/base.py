"""The executor protocol, and how often a shard is tried."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator, Sequence
from typing import Protocol

from factory.pipeline.failures import ShardError, ShardFailure
from factory.pipeline.shard import Shard, ShardStats
from factory.pipeline.worker import WorkerSpec

Outcome = ShardStats | ShardFailure
Results = Generator[Outcome, None, None]

ATTEMPTS = 2  # per shard, before its failure is reported


class Executor(Protocol):
    """Runs shards in any order and yields the outcome of each as it finishes.

    The outcome is the shard's statistics or, if a second attempt failed too, its failure.
    """

    @property
    def cpus_per_worker(self) -> int:
        """Threads per worker."""
        ...

    @property
    def start_sec(self) -> float:
        """Time to start, without loading the models (an estimate)."""
        ...

    def device(self, requested: str) -> str:
        """The device for the workers of a job with `--device requested`.

        Raises ValueError if the other options of the executor exclude it.
        """
        ...

    def expected_workers(self, shards: int, device: str) -> int:
        """How many workers this machine would run for this many shards on `device`."""
        ...

    def run(self, spec: WorkerSpec, shards: Sequence[Shard]) -> Results:
        """Raise ValueError or OSError for what the user can fix; anything else is a bug."""
        ...


def attempt(worker: Callable[[Shard], ShardStats], shard: Shard) -> Outcome:
    """Make a shard, at the second attempt if needed; raises what stops the whole job."""
    failure: ShardFailure | None = None
    for _ in range(ATTEMPTS):
        try:
            return worker(shard)
        except ShardError as error:
            where = "".join(traceback.format_exception(error))
            failure = ShardFailure(shard.number, shard.start, shard.stop, str(error), where)
    assert failure is not None
    return failure
