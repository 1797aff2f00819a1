"""One job a folder: a lock that vanishes with its holder, however that ends.

The kernel holds the lock (`flock` on OUT/.lock), not the file: the file may outlive a killed
job, the lock never does. On NFS `flock` is carried to the server, so it holds between machines.
In a bucket it is a lease, see `factory.locking.lease`.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from factory.locking.lease import LOCK_NAME, has_ended, has_lapsed, in_use, leased
from factory_core.storage import is_remote, read_bytes

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@dataclass(frozen=True)
class Holder:
    """Who wrote the lock file last; it may be gone by now."""

    host: str
    pid: int

    @property
    def is_gone(self) -> bool | None:
        """Whether that process has ended; None on another machine, from where nobody can tell."""
        return has_ended(self.pid) if self.host == socket.gethostname() else None

    def __str__(self) -> str:
        return f"host {self.host}, pid {self.pid}"


def read_holder(folder: Path) -> Holder | None:
    """Who holds, or held, `folder`; None without a lock file or if nothing is in it (yet)."""
    path = folder / LOCK_NAME
    try:
        if is_remote(folder) and has_lapsed(path):
            return None
        content = json.loads(read_bytes(path))
        return Holder(str(content["host"]), int(content["pid"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold `folder`, which is made if need be, and removed again if nothing came to be in it.

    Raises BlockingIOError naming the other holder, or OSError if the file system has no locks.
    """
    if is_remote(folder):
        with leased(folder):
            yield
        return
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / LOCK_NAME
        try:
            # Programs started from here do not inherit it: none of them keeps the lock.
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            continue  # the last holder has just removed the empty folder
        is_ours = False
        try:
            _lock(descriptor, folder)
            is_ours = _is(path, descriptor)
            if is_ours:
                os.ftruncate(descriptor, 0)
                holder = Holder(socket.gethostname(), os.getpid())
                os.write(descriptor, json.dumps(asdict(holder)).encode())
                break
        except BaseException:
            if is_ours:  # without another's file, a third job would make and lock one of its own
                _remove(path)
            os.close(descriptor)
            raise
        os.close(descriptor)  # its last holder removed it between our opening and locking it
    try:
        yield
    finally:
        _remove(path)  # still locked: whoever has opened it will find it replaced
        os.close(descriptor)


def _remove(path: Path) -> None:
    """Remove the lock file, and its folder if nothing else is in it."""
    path.unlink(missing_ok=True)
    with suppress(OSError):  # not empty: as it should be
        path.parent.rmdir()


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = read_holder(folder)
        raise BlockingIOError(in_use(folder, holder)) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        _remove(folder / LOCK_NAME)
        raise OSError(
            f"{folder} lies on a file system without locks ({os.strerror(error.errno)}), which"
            " keep two jobs apart: mount it with them, or give --out on another disk"
        ) from None


def _is(path: Path, descriptor: int) -> bool:
    """Whether the open file is still the one at `path`."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    opened = os.fstat(descriptor)
    return (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino)
