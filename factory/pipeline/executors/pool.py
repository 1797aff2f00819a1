"""The driver's side of a pool of Ray actors: one shard in flight each, lost ones replaced.

    waiting ──► an actor's hands ──► outcome
       ▲              │
       └── lost with its actor or node

Plain actors, not Ray Data: its streaming executor (Ray 2.60) took ten times the driver's time a
shard and several seconds more to start, and an actor that it restarts keeps its shard while others
idle. `python -m benchmarks.executors` measures what these cost.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from factory.pipeline.executors.actor import Lacking, Ready
from factory.pipeline.executors.base import Outcome
from factory.pipeline.failures import ShardFailure
from factory.pipeline.worker import Shard

LOST_WORKERS = 5  # that die over the same shard, or loading while none works: it is not chance
PATIENCE_SEC = 30.0  # before the user is told that no worker can be placed

logger = logging.getLogger(__name__)


@dataclass
class Worker:
    """An actor of the pool: `shard` is what it makes, None while it loads or waits for one."""

    actor: Any
    shard: Shard | None = None
    node_id: str | None = None


class Pool:
    """Between `least` and `most` actors, made by `start`, that make `shards`.

    It begins with `least` and doubles whenever all of its actors are at work and shards wait;
    as the last shards run, those beyond `least` are given back. `ship` puts the weights where
    all actors can get them (see `factory.pipeline.executors.shipping`).
    """

    def __init__(
        self,
        start: Callable[[], Any],
        ship: Callable[[], Any],
        shards: Sequence[Shard],
        least: int,
        most: int,
    ):
        self.start, self.ship = start, ship
        self.waiting = deque(shards)
        self.least, self.most, self.target = least, most, least
        self.loading: dict[Any, Worker] = {}  # by the reference to what they will return
        self.making: dict[Any, Worker] = {}
        self.idle: list[Worker] = []
        self.shipped: Any = None
        self.lost: Counter[int] = Counter()  # workers, by number of the shard they had
        self.lost_loading = 0  # in succession

    def run(self) -> Iterator[Outcome]:
        """Outcomes in the order they come; raises what concerns all shards."""
        try:
            while self.waiting or self.making:
                self._assign()
                self._resize()
                for task in self._finished():
                    outcome = self._settle(task)
                    if outcome is not None:
                        yield outcome
        finally:
            for worker in [*self.loading.values(), *self.making.values(), *self.idle]:
                _kill(worker)

    @property
    def size(self) -> int:
        """Actors, those included that wait for a place in the cluster."""
        return len(self.loading) + len(self.making) + len(self.idle)

    def _assign(self) -> None:
        while self.waiting and self.idle:
            worker = self.idle.pop()
            worker.shard = self.waiting.popleft()
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
        """References of tasks that ended, after waiting for at least one."""
        pending = [*self.making, *self.loading]
        patience = None if self.making else PATIENCE_SEC
        while True:
            ready, _ = ray.wait(pending, num_returns=1, timeout=patience, fetch_local=False)
            if ready:
                return ready
            patience = None
            logger.warning(
                "still waiting for the first worker: either its models take long to load, or the"
                " cluster has no room for one (see `ray status`, --cpus-per-worker and"
                " --gpus-per-worker)"
            )

    def _settle(self, task: Any) -> Outcome | None:
        """Take in what a task returned, or that its worker is lost."""
        is_loading = task in self.loading
        worker = self.loading.pop(task) if is_loading else self.making.pop(task)
        try:
            result = ray.get(task)
        except RayTaskError:  # raised in the worker: a bug
            raise
        except RayError as error:
            return self._replace(worker, error)
        if isinstance(result, Exception):
            raise result
        if isinstance(result, Lacking):
            if self.shipped is None:
                self.shipped = self.ship()
            self._load(worker)
            return None
        worker.shard = None
        self.idle.append(worker)
        if isinstance(result, Ready):
            worker.node_id, self.lost_loading = result.node_id, 0
            return None
        outcome: Outcome = result
        return outcome

    def _replace(self, worker: Worker, error: RayError) -> ShardFailure | None:
        """Give a lost worker's shard to another; `_resize` starts a new one if need be."""
        _kill(worker)  # it may only be out of reach: whatever it writes then, nobody is told
        reason = _last_line(error)
        if worker.shard is None:
            self.lost_loading += 1
            if self.lost_loading >= LOST_WORKERS and not self.making:
                raise ValueError(f"{LOST_WORKERS} workers died as they started, the last: {reason}")
            return None
        shard = worker.shard
        # A node that went away says nothing about the shard; what kills its worker each time does.
        self.lost[shard.number] += not _is_gone(worker.node_id)
        if self.lost[shard.number] == LOST_WORKERS:
            reason = f"{LOST_WORKERS} workers died over it, the last: {reason}"
            return ShardFailure(shard.number, shard.start, shard.stop, reason, str(error))
        self.waiting.appendleft(shard)
        return None


def _is_gone(node_id: str | None) -> bool:
    return all(node["NodeID"] != node_id or not node["Alive"] for node in ray.nodes())


def _kill(worker: Worker) -> None:
    with suppress(RayError):
        ray.kill(worker.actor)


def _last_line(error: RayError) -> str:
    """What says most in Ray's messages, which are pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].split(" There are some potential root causes")[0] if lines else repr(error)
