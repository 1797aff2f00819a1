"""Start and stop a local Ray cluster, or join a running one, without Ray's output."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from functools import partial
from typing import Any

from factory.pipeline.executors.reaching import check_answers, check_socket_paths

# If the machine sets it, that is meant for one process. If not, Ray gives each worker as many
# threads as cores.
THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
OBJECT_STORE_BYTES = 128 * 2**20  # only shard numbers and statistics pass through it
STARTS = 2  # Ray allows 30 s, too little for a busy machine with a cold disk cache
JOIN_SEC = 50.0  # the longest wait for a running cluster
LEAVE_SEC = 3.0  # after Ctrl-C
HANDLER_SEC = 0.05  # the longest time in which Ray's own handler gets a SIGTERM


@contextmanager
def cluster(address: str | None, cpus: int) -> Iterator[None]:
    """Join the cluster at `address`, or start a local one of `cpus` cores; leave or stop it after.

    Raises OSError if nothing answers within JOIN_SEC, or Ray does not start.
    """
    _quiet()
    import ray

    if ray.is_initialized():
        yield
        return
    if address is None:
        check_socket_paths()
    else:
        check_answers(address)
    options: dict[str, Any] = {
        "address": address,
        "logging_level": logging.ERROR,
        "log_to_driver": False,
    }
    if address is None:
        options |= {
            "address": "local",
            "num_cpus": cpus,
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
        }
    ended, attempts = threading.Event(), list[Future[Any]]()
    try:
        with _no_stderr(), _without(THREAD_SETTINGS):
            error = _start(partial(_aside, partial(ray.init, **options), ended), address, attempts)
        if error is not None:
            raise OSError(_explain(address, error))
        yield
    finally:
        if all(attempt.done() for attempt in attempts):
            ray.shutdown()
        ended.set()


def _start(
    begin: Callable[[], Future[Any]], address: str | None, attempts: list[Future[Any]]
) -> BaseException | None:
    """Wait for `ray.init`, which `begin` runs in another thread; try again if it fails.

    Returns what the last of the `attempts` raised, or TimeoutError if it has not returned.
    """
    limit_sec, leave_sec = (None, None) if address is None else (JOIN_SEC, LEAVE_SEC)
    error: BaseException | None = None
    for _ in range(STARTS):
        attempts.append(begin())
        try:
            error = _result(attempts[-1], limit_sec)
        finally:
            # Interrupted, Ray would leave processes behind; in a running cluster, none are ours.
            wait(attempts, leave_sec)
        if error is None or isinstance(error, TimeoutError):
            break
    return error


def _aside(call: Callable[[], Any], ended: threading.Event) -> Future[Any]:
    """Run `call` in a thread that lives until `ended`: the processes it starts end with it.

    In the main thread, `ray.init` would replace this process's handler of SIGTERM.
    """
    future = Future[Any]()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)
        ended.wait()

    threading.Thread(target=run, daemon=True).start()
    return future


def _result(starting: Future[Any], limit_sec: float | None) -> BaseException | None:
    """What `ray.init` raised, or TimeoutError if it has not returned in time.

    The handler of SIGTERM of Ray's core, which dumps its stack, is undone here.
    """
    handler = signal.getsignal(signal.SIGTERM)
    is_main = threading.current_thread() is threading.main_thread()
    started = time.monotonic()
    while not starting.done():
        wait([starting], HANDLER_SEC)
        if handler is not None and is_main:
            signal.signal(signal.SIGTERM, handler)
        if limit_sec is not None and time.monotonic() - started > limit_sec:
            return TimeoutError(f"no answer in {limit_sec:.0f} s")
    return starting.exception()


def _explain(address: str | None, error: BaseException) -> str:
    """One line about an error of `ray.init`, which has any type and often several lines."""
    reason = " ".join(str(error).split())
    if address is not None:
        return f"--address {address}: found no Ray cluster to join there: {reason}"
    return (
        f"Ray did not start on this machine ({reason}): rerun the command when it is less busy,"
        " or give --executor local"
    )


def _quiet() -> None:
    """Keep Ray's notices off the terminal; call it before Ray is imported. Errors still raise."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    warnings.filterwarnings("ignore", module=r"ray(\.|$)")


@contextmanager
def _without(names: Sequence[str]) -> Iterator[None]:
    """Hide environment variables from the processes started in this context."""
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Hide what this process writes to stderr, including its C++ parts.

    At any log level, Ray's core announces that it has read RAY_BACKEND_LOG_LEVEL.
    """
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)
