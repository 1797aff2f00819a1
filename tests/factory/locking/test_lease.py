"""Leases: who may write to a folder of a bucket, and when another job may take over."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from factory.locking import lease
from factory.locking.lease import LOCK_NAME, Lease, leased
from factory.locking.lock import exclusive
from factory_core.storage import Store

SECONDS = 300  # the longest wait
ELSEWHERE = Lease("elsewhere", 1, "another machine", "0123")


@pytest.fixture(params=["s3_out", "memory_out"])
def out(request: pytest.FixtureRequest) -> Store:
    """A folder of each kind of store."""
    return request.getfixturevalue(request.param)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short leases: only their order matters, not their length."""
    monkeypatch.setattr(lease, "BEAT_SEC", 0.1)
    monkeypatch.setattr(lease, "SETTLE_SEC", 0.05)


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Handle SIGINT, by which a lost lease stops a job: a shell's background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def sleep(monkeypatch: pytest.MonkeyPatch, instead: Callable[[float], None]) -> None:
    """Replace `sleep` for leases, and for nothing else in this process."""
    monkeypatch.setattr(lease, "time", SimpleNamespace(time=time.time, sleep=instead))


def test_two_jobs_in_one_folder(tiny: Any, out: Store):
    with exclusive(out), pytest.raises(BlockingIOError, match=r"in use by another job \(host "):
        tiny.make(out)
    assert out.entries() == []


def test_a_lease_held_on_another_machine_lapses(out: Store, monkeypatch: pytest.MonkeyPatch):
    out.write(LOCK_NAME, ELSEWHERE.to_bytes())
    refused = r"\(host elsewhere, pid 1\).*\(if it was killed, the lock expires 60 s later\)"
    with pytest.raises(BlockingIOError, match=refused), leased(out):
        pass
    monkeypatch.setattr(lease, "LAPSE_SEC", -5.0)
    with leased(out):
        held = lease.read_lease(out)
        assert held is not None
        assert held.pid == os.getpid()
    assert out.entries() == []


def test_a_fast_clock_does_not_end_a_live_lease(out: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lease, "LAPSE_SEC", -5.0)  # every lease looks old from here
    out.write(LOCK_NAME, ELSEWHERE.to_bytes())
    alive = replace(ELSEWHERE, beats=1)
    # It is renewed while we watch.
    sleep(monkeypatch, lambda _: out.write(LOCK_NAME, alive.to_bytes()))
    with pytest.raises(BlockingIOError, match="elsewhere"), leased(out):
        pass
    assert lease.read_lease(out) == alive


def test_the_last_job_to_write_takes_over(out: Store, monkeypatch: pytest.MonkeyPatch):
    out.write(LOCK_NAME, replace(ELSEWHERE, host="gone").to_bytes())
    monkeypatch.setattr(lease, "LAPSE_SEC", -5.0)

    def meanwhile(seconds: float) -> None:
        if seconds == lease.SETTLE_SEC:
            out.write(LOCK_NAME, ELSEWHERE.to_bytes())

    sleep(monkeypatch, meanwhile)
    with pytest.raises(BlockingIOError, match="elsewhere"), leased(out):
        pass


@pytest.fixture(params=[False, True], ids=["foreground", "background"])
def in_background(request: pytest.FixtureRequest) -> Iterator[None]:
    """Signals as the command line finds them: a shell starts background jobs without SIGINT."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    sigint = signal.SIG_IGN if request.param else signal.default_int_handler
    before = signal.signal(signal.SIGINT, sigint), signal.signal(signal.SIGTERM, stop)
    yield
    signal.signal(signal.SIGINT, before[0])
    signal.signal(signal.SIGTERM, before[1])


@pytest.mark.usefixtures("in_background")
def test_a_lease_is_renewed_and_its_loss_stops_the_job(out: Store):
    with pytest.raises(BlockingIOError, match="elsewhere"), leased(out):  # noqa: PT012
        first = lease.read_lease(out)
        deadline = time.monotonic() + SECONDS
        while lease.read_lease(out) == first and time.monotonic() < deadline:
            time.sleep(0.02)
        assert lease.read_lease(out) != first
        # A renewal in progress may still overwrite what we write.
        while lease.read_lease(out) != ELSEWHERE:
            out.write(LOCK_NAME, ELSEWHERE.to_bytes())
            time.sleep(3 * lease.BEAT_SEC)
        time.sleep(SECONDS)
        pytest.fail("continued without its lease")
    assert lease.read_lease(out) == ELSEWHERE  # not ours to remove
