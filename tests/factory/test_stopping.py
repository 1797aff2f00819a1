"""The command as it is stopped in life: by Ctrl-C, by `kill`, by `kill -9`, beside another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from factory.lock import exclusive

SECONDS = 120  # to wait, instead of for ever
COMMAND = (
    *(sys.executable, "-m", "factory", "generate", "--n", "200"),
    *("--set", "generator.steps=2", "--set", "dataset.shard_size=2"),
)
LOCAL, RAY = ("--executor", "local"), ("--workers", "1")


def start(out: Path, executor: Sequence[str] = LOCAL) -> subprocess.Popen[str]:
    """The command, once it has finished a shard."""
    process = subprocess.Popen(
        [*COMMAND, *executor, "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in the background of a shell, they ignore Ctrl-C and hand that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    until = time.monotonic() + SECONDS
    while not list(out.glob("candidates/*_stats.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)
    return process


@pytest.mark.parametrize(
    ("executor", "number", "code"),
    [(LOCAL, signal.SIGINT, 130), (LOCAL, signal.SIGTERM, 143), (RAY, signal.SIGTERM, 143)],
)
def test_it_stops_clean_and_says_how_to_go_on(
    tmp_path: Path, executor: Sequence[str], number: signal.Signals, code: int
) -> None:
    out = tmp_path / "out"
    process = start(out, executor)
    process.send_signal(number)
    _, error = process.communicate(timeout=SECONDS)
    assert process.returncode == code
    assert error.strip() == "interrupted: run the same command again to go on"
    names = {path.name for path in out.rglob("*") if path.is_file()}
    assert "job.json" in names
    assert not {name for name in names if name.startswith(".")}
    for marker in out.glob("candidates/*_stats.json"):  # whole shards only
        stem = marker.name.split("_")[0]
        assert {f"{stem}.tar", f"{stem}.parquet"} <= names


def test_a_second_one_is_refused_until_the_first_is_killed(
    factory: Callable, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = start(out)
    try:
        second = factory(*COMMAND[3:], *LOCAL, "--out", out)
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
