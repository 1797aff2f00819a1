"""One job per folder: a lock that vanishes with its holder, however the holder ends.

On a disk, the operating system holds the lock (through `filelock`), not the file OUT/.lock: the
file may outlive a killed job, the lock never does. NFS passes the lock to the server, so it holds
between machines. In a bucket, it is a lease: see `factory.locking.lease`.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from factory.locking.lease import LOCK_NAME, has_ended, has_lapsed, in_use, leased
from factory_core.storage import DiskStore, Store, naming_full_disk, open_store

ENDING_SEC = 0.5  # for a holder that is just removing its lock file
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@dataclass(frozen=True)
class Holder:
    """The process that last wrote the lock file; it may have ended since."""

    host: str
    pid: int

    @property
    def is_gone(self) -> bool | None:
        """Whether that process has ended; None (unknown) if it ran on another machine."""
        return has_ended(self.pid) if self.host == socket.gethostname() else None

    def __str__(self) -> str:
        return f"host {self.host}, pid {self.pid}"


def read_holder(folder: Path | Store) -> Holder | None:
    """Who holds, or held, `folder`; None without a lock file, or if it is (still) empty."""
    store = open_store(folder)
    try:
        if store.is_remote and has_lapsed(store):
            return None
        content = json.loads(store.read(LOCK_NAME))
        return Holder(str(content["host"]), int(content["pid"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def exclusive(folder: Path | Store) -> Iterator[None]:
    """Hold `folder`. Create it if needed, and remove it again if it stayed empty.

    Raises BlockingIOError naming the other holder, or OSError if the file system has no locks.
    """
    store = open_store(folder)
    if not isinstance(store, DiskStore):
        with leased(store):
            yield
        return
    lock = _acquire(store.path)
    try:
        yield
    finally:
        # Removed while still locked: whoever waits for the removed file sees that and starts over.
        with suppress(OSError):  # Windows removes it on release
            (store.path / LOCK_NAME).unlink()
        lock.release()
        with suppress(OSError):  # not empty: the usual case
            store.path.rmdir()


def _acquire(folder: Path) -> FileLock:
    while True:
        lock = FileLock(
            folder / LOCK_NAME,
            thread_local=False,
            fallback_to_soft=False,
            on_acquired=partial(_sign, folder),
        )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with naming_full_disk(folder):
                lock.acquire(timeout=ENDING_SEC)
            return lock
        except FileNotFoundError:
            continue  # the last holder has just removed the empty folder
        except PermissionError:
            raise PermissionError(f"{folder}: no permission to write there") from None
        except Timeout:
            raise BlockingIOError(in_use(folder, read_holder(folder))) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                with suppress(OSError):  # not empty: the usual case
                    folder.rmdir()
                raise
            with suppress(OSError):
                (folder / LOCK_NAME).unlink()
                folder.rmdir()
            raise OSError(
                f"{folder} is on a file system without locks ({os.strerror(error.errno)}), which"
                " keep two jobs apart: mount it with locks, or give --out on another disk"
            ) from None


def _sign(folder: Path, descriptor: int) -> None:
    """Write the holder into the lock file that was just locked; remove it if the disk is full."""
    holder = json.dumps(asdict(Holder(socket.gethostname(), os.getpid())))
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, holder.encode())
    except OSError:
        (folder / LOCK_NAME).unlink(missing_ok=True)
        raise
