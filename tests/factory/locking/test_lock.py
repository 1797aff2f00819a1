"""Two jobs never share a folder, and a dead one never blocks it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from factory.locking.lock import LOCK_NAME, Holder, exclusive, read_holder

HOLD = """
import sys, time
from pathlib import Path
from factory.locking.lock import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def other(tmp_path: Path) -> Any:
    """Another process that holds `tmp_path`/out."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_error_names_the_holder(tmp_path: Path, other: Any) -> None:
    message = f"in use by another job .host {socket.gethostname()}, pid {other.pid}.: wait"
    with pytest.raises(BlockingIOError, match=message) as caught, exclusive(tmp_path / "out"):
        pass
    assert "\n" not in str(caught.value)
    assert read_holder(tmp_path / "out") == Holder(socket.gethostname(), other.pid)


def test_a_killed_holder_holds_nothing(tmp_path: Path, other: Any) -> None:
    other.send_signal(signal.SIGKILL)
    other.wait()
    holder = read_holder(tmp_path / "out")
    assert holder is not None
    assert holder.is_gone
    with exclusive(tmp_path / "out"):
        assert not read_holder(tmp_path / "out").is_gone  # type: ignore[union-attr]


def test_it_leaves_the_folder_as_it_found_it(tmp_path: Path) -> None:
    with exclusive(tmp_path / "deep/out"):
        pass
    assert not (tmp_path / "deep/out").exists()
    with pytest.raises(ZeroDivisionError), exclusive(tmp_path):
        _ = 1 / 0
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


def test_a_lock_file_removed_while_it_was_opened_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it did, a third job could lock a new file and run alongside the second."""
    path, real, removed = tmp_path / LOCK_NAME, fcntl.flock, []

    def flock(descriptor: int, how: int) -> None:
        if not removed and how & fcntl.LOCK_EX:  # the holder ends at this moment
            removed.append(path.stat().st_ino)
            path.unlink()
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with exclusive(tmp_path):
        assert removed
        assert json.loads(path.read_bytes())["host"] == socket.gethostname()


def test_an_interrupted_attempt_leaves_the_holders_file(
    tmp_path: Path, other: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without that file, a third job could lock a new one and run alongside the holder."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("factory.locking.lock.read_holder", interrupt)
    with pytest.raises(KeyboardInterrupt), exclusive(tmp_path / "out"):
        pass
    assert (tmp_path / "out" / LOCK_NAME).exists()


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: Any) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="file system without locks"), exclusive(tmp_path / "out"):
        pass
    assert not (tmp_path / "out").exists()


def test_nobody_here_knows_whether_a_holder_elsewhere_is_gone() -> None:
    assert Holder("another-host", 1).is_gone is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"host": "h"}'])
def test_an_unreadable_lock_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / LOCK_NAME).write_bytes(content)
    assert read_holder(tmp_path) is None


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sign(folder: Path, descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("factory.locking.lock._sign", sign)
    with pytest.raises(OSError, match="No space left") as caught, exclusive(tmp_path / "out"):
        pass
    assert caught.value.filename == str(tmp_path / "out")


def test_a_full_disk_leaves_no_lock(tmp_path: Path) -> None:
    """The limit on the size of files stands for it: the lock file is created, but stays empty."""
    program = """
import resource, sys
from pathlib import Path
from factory.locking.lock import exclusive
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
with exclusive(Path(sys.argv[1])):
    pass
"""
    command = [sys.executable, "-c", program, str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert f"[Errno {errno.EFBIG}]" in done.stderr
    assert not (tmp_path / "out").exists()
