"""The driver's side of a pool of Ray actors: one shard in flight each, lost actors replaced.

    waiting ──► held by an actor ──► outcome
       ▲              │
       └── lost with its actor, node or device, or overdue

Plain actors, not Ray Data: its streaming executor (Ray 2.60) took ten times the driver's time per
shard and several seconds more to start, and a restarted actor keeps its shard while others idle.
`python -m benchmarks.executors` measures the costs of both.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from factory.pipeline.executors.actor import Broken, Lacking, Ready
from factory.pipeline.executors.base import Outcome
from factory.pipeline.failures import ShardFailure
from factory.pipeline.shard import Shard

LOST_WORKERS = 5  # over the same shard, or loading while none works: not chance
PATIENCE_SEC = 30.0  # before reporting that no worker has been placed
# A shard is overdue after this many times the slowest one so far, but never sooner than this.
GENEROUS, SHORTEST_TIMEOUT_SEC = 20, 120.0

logger = logging.getLogger(__name__)


@dataclass
class Worker:
    """An actor of the pool: `shard` is what it makes, None while it loads or waits for one.

    `since` is when it got the shard (monotonic seconds).
    """

    actor: Any
    shard: Shard | None = None
    since: float = 0.0
    node_id: str | None = None


class Pool:
    """Between `least` and `most` actors, created by `start`, that make `shards`.

    It begins with `least` and doubles whenever all of its actors are busy and shards wait; during
    the last shards, surplus actors are released. `ship` puts the weights where all actors can
    get them (see `factory.pipeline.executors.shipping`). An actor that holds a shard for longer
    than `shard_timeout_sec` is killed and replaced, like a dead one; None means GENEROUS times the
    slowest shard so far, and no limit before the first is finished.
    """

    def __init__(
        self,
        start: Callable[[], Any],
        ship: Callable[[], Any],
        shards: Sequence[Shard],
        least: int,
        most: int,
        shard_timeout_sec: float | None = None,
    ):
        self.start, self.ship = start, ship
        self.waiting = deque(shards)
        self.least, self.most, self.target = least, most, least
        self.shard_timeout_sec = shard_timeout_sec
        self.slowest_sec: float | None = None
        self.loading: dict[Any, Worker] = {}  # by the reference to their result
        self.making: dict[Any, Worker] = {}
        self.idle: list[Worker] = []
        self.shipped: Any = None
        self.lost: Counter[int] = Counter()  # workers, by number of their shard
        self.lost_loading = 0  # in succession
        self.broken = 0  # devices that failed since a shard was last finished
        self.notes: list[str | None] = []  # of workers, each shown once

    def run(self) -> Iterator[Outcome]:
        """Outcomes as they arrive; raises errors that concern all shards."""
        try:
            while self.waiting or self.making:
                self._assign()
                self._resize()
                outcomes = [self._settle(task) for task in self._finished()]
                outcomes += [self._give_up(task) for task in self._overdue()]
                yield from (outcome for outcome in outcomes if outcome is not None)
        finally:
            for worker in [*self.loading.values(), *self.making.values(), *self.idle]:
                _kill(worker)

    @property
    def size(self) -> int:
        """Number of actors, including those waiting for a place in the cluster."""
        return len(self.loading) + len(self.making) + len(self.idle)

    @property
    def timeout_sec(self) -> float | None:
        """How long an actor may hold a shard; None without a limit."""
        if self.shard_timeout_sec is not None or self.slowest_sec is None:
            return self.shard_timeout_sec
        return max(SHORTEST_TIMEOUT_SEC, GENEROUS * self.slowest_sec)

    def _assign(self) -> None:
        while self.waiting and self.idle:
            worker = self.idle.pop()
            worker.shard, worker.since = self.waiting.popleft(), time.monotonic()
            self.making[worker.actor.make.remote(worker.shard)] = worker

    def _resize(self) -> None:
        if self.waiting and self.making and not self.loading:
            self.target = min(max(self.target, 2 * len(self.making)), self.most)
        while self.size < min(self.target, len(self.waiting) + len(self.making)):
            self._load(Worker(self.start()))
        if self.waiting:
            return
        while self.size > self.least and (self.idle or self.loading):
            _kill(self.idle.pop() if self.idle else self.loading.popitem()[1])

    def _load(self, worker: Worker) -> None:
        self.loading[worker.actor.load.remote(self.shipped)] = worker

    def _finished(self) -> list[Any]:
        """References of tasks that ended, after waiting for one; empty if a shard is overdue."""
        pending = [*self.making, *self.loading]
        patience = None if self.making else PATIENCE_SEC
        while True:
            limits = [limit for limit in (patience, self._next_deadline_sec()) if limit is not None]
            timeout = min(limits, default=None)
            ready, _ = ray.wait(pending, num_returns=1, timeout=timeout, fetch_local=False)
            if ready or self._overdue():
                return ready
            if patience is not None:
                patience = None
                logger.warning(
                    "still waiting for the first worker: either its models take long to load, or"
                    " the cluster has no room for one (see `ray status`, --cpus-per-worker and"
                    " --gpus-per-worker)"
                )

    def _next_deadline_sec(self) -> float | None:
        """Seconds until the first shard is overdue; None if none will be."""
        timeout = self.timeout_sec
        if timeout is None or not self.making:
            return None
        oldest = min(worker.since for worker in self.making.values())
        return max(0.0, oldest + timeout - time.monotonic())

    def _overdue(self) -> list[Any]:
        """References of the shards held for longer than the limit."""
        timeout, now = self.timeout_sec, time.monotonic()
        if timeout is None:
            return []
        late = [task for task, worker in self.making.items() if now - worker.since >= timeout]
        _, unfinished = ray.wait(late, num_returns=len(late), timeout=0) if late else ([], [])
        return unfinished

    def _give_up(self, task: Any) -> ShardFailure | None:
        """Treat a worker that makes no progress as lost."""
        worker = self.making.pop(task)
        assert worker.shard is not None
        held_sec = time.monotonic() - worker.since
        reason = f"not finished within {held_sec:.0f} s (see --shard-timeout)"
        logger.warning("shard %d: %s: its worker is replaced", worker.shard.number, reason)
        return self._replace(worker, reason)

    def _settle(self, task: Any) -> Outcome | None:
        """Process the result of a task, or the loss of its worker."""
        is_loading = task in self.loading
        worker = self.loading.pop(task) if is_loading else self.making.pop(task)
        try:
            result = ray.get(task)
        except RayTaskError:  # raised in the worker: a bug
            raise
        except RayError as error:
            return self._replace(worker, _last_line(error), str(error))
        if isinstance(result, Exception):
            raise result
        if isinstance(result, Broken):
            return self._lose_device(worker, result.reason)
        if isinstance(result, Lacking):
            if self.shipped is None:
                self.shipped = self.ship()
            self._load(worker)
            return None
        worker.shard = None
        self.idle.append(worker)
        if isinstance(result, Ready):
            worker.node_id, self.lost_loading = result.node_id, 0
            if result.note not in (None, *self.notes):
                self.notes.append(result.note)
                logger.warning("a worker computes without a GPU: %s", result.note)
            return None
        outcome: Outcome = result
        self.broken = 0
        self.slowest_sec = max(self.slowest_sec or 0.0, time.monotonic() - worker.since)
        return outcome

    def _lose_device(self, worker: Worker, reason: str) -> ShardFailure | None:
        """Replace a worker whose device failed, as often as that may help.

        Its successor may get the same device, so its shard goes to the end of the queue.
        """
        failure = self._replace(worker, reason)
        if worker.shard is not None and failure is None:
            self.waiting.rotate(-1)
        self.broken += 1
        if self.broken < LOST_WORKERS:
            logger.warning("a worker is replaced: %s", reason)
            return failure
        if not (self.making or self.idle):
            raise ValueError(f"{LOST_WORKERS} workers lost their device, the last: {reason}")
        self.least = self.most = self.target = len(self.making) + len(self.idle)
        self.broken = 0
        logger.warning("continuing with %d workers: %s", self.target, reason)
        return failure

    def _replace(self, worker: Worker, reason: str, details: str = "") -> ShardFailure | None:
        """Give a lost worker's shard to another; `_resize` starts a new one if needed."""
        _kill(worker)  # it may only be unreachable: later results are ignored
        if worker.shard is None:
            self.lost_loading += 1
            if self.lost_loading >= LOST_WORKERS and not self.making:
                raise ValueError(f"{LOST_WORKERS} workers died as they started, the last: {reason}")
            return None
        shard = worker.shard
        # A node that went away says nothing about the shard; one that loses every worker does.
        self.lost[shard.number] += not _is_gone(worker.node_id)
        if self.lost[shard.number] == LOST_WORKERS:
            reason = f"{LOST_WORKERS} workers were lost over it, the last: {reason}"
            return ShardFailure(shard.number, shard.start, shard.stop, reason, details or reason)
        self.waiting.appendleft(shard)
        return None


def _is_gone(node_id: str | None) -> bool:
    return all(node["NodeID"] != node_id or not node["Alive"] for node in ray.nodes())


def _kill(worker: Worker) -> None:
    with suppress(RayError):
        ray.kill(worker.actor)


def _last_line(error: RayError) -> str:
    """The most informative line of Ray's messages, which are pages long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].split(" There are some potential root causes")[0] if lines else repr(error)
