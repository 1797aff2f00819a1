"""Run a worker over shards: in this process, or on Ray actors. Both give the same bytes."""

from __future__ import annotations

import json
import logging
import os
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from factory.failures import ShardError, ShardFailure
from factory.worker import (
    Shard,
    ShardStats,
    ShardWorker,
    WorkerSpec,
    shard_from_json,
    shard_to_json,
)

Results = Generator[ShardStats | ShardFailure, None, None]

ATTEMPTS = 2  # at a shard, before it is reported
OBJECT_STORE_BYTES = 128 * 2**20  # only shard numbers and statistics travel through Ray


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


@dataclass(frozen=True)
class RayExecutor:
    """A pool of Ray actors, on a local cluster that is started and stopped, or on `address`.

    `workers` None means one a GPU, or one for every `cpus_per_worker` cores where there is no
    GPU. `gpus_per_worker` (a fraction is fine) None shares the GPUs there are among the workers.
    """

    workers: int | None = None
    cpus_per_worker: int = 1
    gpus_per_worker: float | None = None
    address: str | None = None
    start_sec: float = 10.0  # measured on two cores, page cache warm

    def expected_workers(self, shards: int) -> int:
        """As `run` decides on a local cluster."""
        resources = {"CPU": float(_available_cpus()), "GPU": float(torch.cuda.device_count())}
        return self._share(resources, shards)[0]

    def run(self, spec: WorkerSpec, shards: Sequence[Shard]) -> Results:
        """See `Executor`. Infrastructure failures (a lost actor or node) are retried for ever."""
        if not shards:
            return
        _quiet_ray()
        import ray.data

        for name in ("ray", "ray.data"):  # importing them sets their loggers up
            logging.getLogger(name).setLevel(logging.ERROR)
        with _cluster(self.address, self._local_cpus()):
            context = ray.data.DataContext.get_current()
            context.enable_progress_bars = False
            context.print_on_execution_start = False
            workers, gpus = self._share(ray.cluster_resources(), len(shards))
            # One shard in flight an actor: a shard takes seconds, so queueing a second one hides
            # nothing and would leave other actors idle at the end. Ray Data restarts lost actors
            # and retries their shards without limit by default.
            pool = ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1)
            items = [{"shard": shard_to_json(shard)} for shard in shards]
            worker: Any = _RayWorker  # Ray's annotation knows functions only
            results = ray.data.from_items(items, override_num_blocks=len(items)).map(
                worker,
                fn_constructor_kwargs={"spec": spec, "threads": self.cpus_per_worker},
                compute=pool,
                num_cpus=self.cpus_per_worker,
                num_gpus=gpus,
            )
            for row in results.iter_rows():
                yield _unpack(row)

    def _local_cpus(self) -> int:
        """Cores that a local cluster offers: those of the machine, or more if asked for more."""
        return max((self.workers or 1) * self.cpus_per_worker, _available_cpus())

    def _share(self, resources: dict[str, float], shards: int) -> tuple[int, float]:
        """Number of workers, and GPUs of each."""
        total_gpus = resources.get("GPU", 0.0)
        workers = self.workers
        if workers is None:
            cores = int(resources.get("CPU", 1.0)) // self.cpus_per_worker
            workers = int(total_gpus) or max(1, cores)
        workers = min(workers, shards)
        gpus = self.gpus_per_worker
        return workers, min(1.0, total_gpus / workers) if gpus is None else gpus


def attempt(worker: Callable[[Shard], ShardStats], shard: Shard) -> ShardStats | ShardFailure:
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


def make_executor(
    kind: str,
    *,
    workers: int | None = None,
    cpus_per_worker: int = 1,
    gpus_per_worker: float | None = None,
    address: str | None = None,
) -> Executor:
    """The executor `kind`: `ray` or `local` (which has exactly one worker)."""
    if kind == "ray":
        return RayExecutor(workers, cpus_per_worker, gpus_per_worker, address)
    if kind != "local":
        raise ValueError(f"--executor {kind}: expected ray or local")
    if workers not in (None, 1):
        raise ValueError(f"--workers {workers}: the local executor has one; use --executor ray")
    return LocalExecutor(cpus_per_worker)


class _RayWorker:
    """`ShardWorker` as Ray Data calls it: rows of plain strings in and out.

    A user's mistake comes back as a value: raised here, Ray would take it for a failure of the
    infrastructure or wrap it in pages of traceback.
    """

    def __init__(self, spec: WorkerSpec, threads: int):
        self.worker = ShardWorker(spec, threads)

    def __call__(self, row: dict[str, str]) -> dict[str, str]:
        try:
            outcome = attempt(self.worker, shard_from_json(row["shard"]))
        except OSError as error:
            known = [error.errno, error.strerror] if error.errno else [str(error)]
            return {"kind": "error", "content": json.dumps(known)}
        except ValueError as error:
            return {"kind": "error", "content": json.dumps([str(error)])}
        kind = "failure" if isinstance(outcome, ShardFailure) else "stats"
        return {"kind": kind, "content": json.dumps(outcome.to_json())}


def _unpack(row: dict[str, str]) -> ShardStats | ShardFailure:
    content = json.loads(row["content"])
    if row["kind"] == "error":
        raise OSError(*content) if len(content) > 1 else ValueError(*content)
    if row["kind"] == "failure":
        return ShardFailure.from_json(content)
    return ShardStats.from_json(content)


def _available_cpus() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _cluster(address: str | None, cpus: int) -> Iterator[None]:
    """Connect to the cluster at `address`, or start one here; leave as found afterwards."""
    import ray

    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"address": address}
    if address is None:
        options = {
            "address": "local",
            "num_cpus": cpus,
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
        }
    try:
        try:
            with _no_stderr():
                ray.init(**options, logging_level=logging.ERROR, log_to_driver=False)
        except ConnectionError as error:
            raise ValueError(f"--address {address}: no Ray cluster answers: {error}") from None
        yield
    finally:
        ray.shutdown()  # also after Ctrl-C in the middle of starting


def _quiet_ray() -> None:
    """Keep Ray's notes off the terminal; must run before Ray is imported. Errors still raise."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Its C++ core prints an ERROR for every actor pool (ray issue 53727), although Ray Data
    # holds the reference which that message fears for.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    warnings.filterwarnings("ignore", module=r"ray(\.|$)")


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Hide what the process, its C++ parts included, writes to stderr.

    Ray's core announces that it has read RAY_BACKEND_LOG_LEVEL, whatever that level is.
    """
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)
