"""Ray itself: started here and stopped again, or joined; and kept off the terminal."""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

# A machine's setting, if there is one, is meant for one process; without it, Ray gives each worker
# as many threads as it has cores.
THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
OBJECT_STORE_BYTES = 128 * 2**20  # only shards' numbers and statistics travel through Ray here


@contextmanager
def cluster(address: str | None, cpus: int) -> Iterator[None]:
    """Join the cluster at `address`, or start one here of `cpus` cores; leave as found afterwards.

    Raises ValueError if nothing answers.
    """
    _quiet()
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
            with _no_stderr(), _without(THREAD_SETTINGS), _own_sigterm():
                ray.init(**options, logging_level=logging.ERROR, log_to_driver=False)
        except ConnectionError as error:
            raise ValueError(f"--address {address}: no Ray cluster answers: {error}") from None
        yield
    finally:
        ray.shutdown()  # also after Ctrl-C in the middle of starting


def available_cpus() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quiet() -> None:
    """Keep Ray's notes off the terminal; must run before Ray is imported. Errors still raise."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    warnings.filterwarnings("ignore", module=r"ray(\.|$)")


@contextmanager
def _without(names: Sequence[str]) -> Iterator[None]:
    """Hide environment variables from the processes that are started meanwhile."""
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep this process's way to be terminated: Ray's core sets one that aborts with a dump."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


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
