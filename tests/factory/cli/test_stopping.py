"""How the command stops: on Ctrl-C, on `kill`, after `kill -9`, and next to another job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from factory.locking.lock import exclusive

SECONDS = 300  # the longest wait
JOB = (
    *("generate", "--n", "20000"),  # more than it can make before it is stopped
    *("--set", "generator.steps=2", "--set", "dataset.shard_size=2"),
)
FACTORY = ("-m", "factory")
LOCAL, RAY = ("--executor", "local"), ("--workers", "1")


def start(
    out: Path,
    executor: Sequence[str] = LOCAL,
    program: Sequence[str] = FACTORY,
    until: str = "out/candidates/*_stats.json",
) -> subprocess.Popen[str]:
    """Start a job; wait for a file `until` beside `out`, by default that of a finished shard."""
    process = subprocess.Popen(
        [sys.executable, *program, *JOB, *executor, "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Tests in the background of a shell ignore Ctrl-C, and their children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    latest = time.monotonic() + SECONDS
    while not list(out.parent.glob(until)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < latest
        time.sleep(0.02)
    return process


@pytest.mark.slow
@pytest.mark.parametrize(
    ("executor", "number", "code"),
    [
        (LOCAL, signal.SIGINT, 130),
        (LOCAL, signal.SIGTERM, 143),
        (RAY, signal.SIGINT, 130),
        (RAY, signal.SIGTERM, 143),
    ],
)
def test_it_stops_cleanly_and_says_how_to_resume(
    tmp_path: Path, executor: Sequence[str], number: signal.Signals, code: int
) -> None:
    out = tmp_path / "out"
    process = start(out, executor)
    process.send_signal(number)
    _, error = process.communicate(timeout=SECONDS)
    assert process.returncode == code
    assert error.strip().splitlines()[-1] == "interrupted: rerun the command to resume"
    names = {path.name for path in out.rglob("*") if path.is_file()}
    assert "job.json" in names
    assert not {name for name in names if name.startswith(".")}
    for marker in out.glob("candidates/*_stats.json"):  # complete shards only
        stem = marker.name.split("_")[0]
        assert {f"{stem}.tar", f"{stem}.parquet"} <= names


# The command, with a Ray that starts only when the signal has arrived.
SLOW_RAY = """
import pathlib, sys, threading
from factory.cli import main, stopping
from factory.pipeline.executors.cluster import _quiet

_quiet()
import ray

note, heard = pathlib.Path(sys.argv.pop(1)), threading.Event()
init, stop = ray.init, stopping.Stopping._stop

def slowly(**options):
    note.touch()
    heard.wait()
    return init(**options)

def stop_and_release(self, *signal):
    heard.set()
    stop(self, *signal)

ray.init, stopping.Stopping._stop = slowly, stop_and_release
main()
"""


@pytest.mark.slow
def test_it_can_be_stopped_while_ray_starts(tmp_path: Path) -> None:
    program = ("-c", SLOW_RAY, str(tmp_path / "starting"))
    process = start(tmp_path / "out", RAY, program, until="starting")
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=SECONDS)
    assert process.returncode == 143, error
    assert error.strip().splitlines()[-1] == "interrupted: rerun the command to resume"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_can_be_stopped_before_it_has_imported_anything(
    tmp_path: Path, number: signal.Signals
) -> None:
    """The signal arrives while Python looks for the first module outside its own library."""
    script = f"""
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
import factory.cli
class Finder:
    def find_spec(self, *_):
        os.kill(os.getpid(), {int(number)})
sys.meta_path.insert(0, Finder())
sys.argv = ["factory", "generate", "--n", "2", "--out", {str(tmp_path / "out")!r}]
factory.cli.main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 128 + number
    assert done.stderr.strip() == "interrupted: rerun the command to resume"
    assert not (tmp_path / "out").exists()


DEAF = """
import os, signal, sys, time
from factory.cli import stopping
stopping.INSIST_SEC = 0.05
class Deaf:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
stop = stopping.Stopping()
try:
    with stop:
        try:
            Deaf()  # Python only reports on stderr what is raised there
            print("not heard", flush=True)
            time.sleep(600)
        finally:
            time.sleep(0.5)
except KeyboardInterrupt:
    time.sleep(0.5)
    sys.exit(stop.code)
"""


def test_a_signal_lost_in_a_destructor_is_raised_again_but_not_during_clean_up() -> None:
    done = subprocess.run([sys.executable, "-c", DEAF], capture_output=True, text=True)
    assert done.stdout == "not heard\n"
    assert done.returncode == 143, done.stderr


@pytest.mark.slow
def test_a_second_job_is_refused_until_the_first_is_killed(
    factory: Callable, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = start(out)
    try:
        second = factory(*JOB, *LOCAL, "--out", out)
        assert second.code == 1
        assert f"in use by another job (host {os.uname().nodename}, pid {first.pid})" in second.err
        assert len(second.err.strip().splitlines()) == 1
        assert f"pid {first.pid}" in factory("status", out).out
    finally:
        first.kill()
        first.communicate()
    assert "not running" in factory("status", out).out
    with exclusive(out):
        pass
