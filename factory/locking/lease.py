"""One job a folder of a bucket: a lease that its holder renews, and that lapses with its holder.

A store has no locks. FOLDER/.lock is created only where there is none, and rewritten every
BEAT_SEC by a thread of the job; LAPSE_SEC after the last time anybody may take it over.

Two that take over a lapsed lease in the same moment both write it; the last to write has it, and
the other sees that when it reads the lease again. Stores differ in what they can do in one step,
so nothing more is asked of them. Were two jobs to slip through, nothing would break: they would
make the same bytes, under the same names, until one of them notices at its next beat.
"""

from __future__ import annotations

import _thread
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from factory_core.storage import create_bytes, modified, read_bytes, write_bytes

LOCK_NAME = ".lock"  # hidden: no content of the folder
BEAT_SEC = 15.0
LAPSE_SEC = 4 * BEAT_SEC  # three beats may be lost
SETTLE_SEC = 2.0  # longer than it takes to write a small object


@dataclass(frozen=True)
class Lease:
    """Content of the lock file: who holds it, `token` to tell holders apart, how often renewed.

    `machine` is that of `this_machine`.
    """

    host: str
    pid: int
    machine: str
    token: str
    beats: int = 0

    @classmethod
    def new(cls) -> Lease:
        """Of this process."""
        return cls(socket.gethostname(), os.getpid(), this_machine(), uuid.uuid4().hex)

    def to_bytes(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self)).encode()

    @property
    def is_gone(self) -> bool:
        """Whether the holder is known to have ended; nobody can tell from another machine."""
        return bool(self.machine) and self.machine == this_machine() and has_ended(self.pid)

    def __str__(self) -> str:
        return f"host {self.host}, pid {self.pid}"


def has_ended(pid: int) -> bool:
    """Whether no process of this machine has that id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # somebody else's, but there
        return False
    return False


def this_machine() -> str:
    """What processes share that see each other's ids; empty where that cannot be told.

    Not the host's name: containers may share that, and a restarted one may have it again.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def read_lease(path: Path) -> Lease | None:
    """The lease at `path`; None without one, or if it is damaged."""
    try:
        return Lease(**json.loads(read_bytes(path)))
    except (FileNotFoundError, ValueError, TypeError):
        return None


@contextmanager
def leased(folder: Path) -> Iterator[None]:
    """Hold `folder` of a bucket, renewing the lease in the background.

    Raises BlockingIOError naming the other holder, at the beginning, or if it took over because
    this process was stopped or cut off for longer than LAPSE_SEC.
    """
    path, lease = folder / LOCK_NAME, Lease.new()
    _acquire(path, lease)
    ended, lost = threading.Event(), threading.Event()
    renewing = threading.Thread(target=_renew, args=(path, lease, ended, lost), daemon=True)
    renewing.start()
    try:
        yield
    except KeyboardInterrupt:
        if not lost.is_set():
            raise
        raise BlockingIOError(in_use(folder, read_lease(path))) from None
    finally:
        ended.set()
        renewing.join()
        held = read_lease(path)
        if held is not None and held.token == lease.token:
            path.unlink(missing_ok=True)


def _acquire(path: Path, lease: Lease) -> None:
    """Create the lock file, or take over one that has lapsed."""
    # Some stores know no exclusive creation, and just write.
    while path.exists() or not create_bytes(path, lease.to_bytes()):
        held = read_lease(path)
        if held is None and not path.exists():
            continue  # its holder has just ended
        if held is None or not held.is_gone:
            _refuse_fresh(path, held)
        write_bytes(path, lease.to_bytes())
        time.sleep(SETTLE_SEC)
        held = read_lease(path)
        if held is not None and held.token == lease.token:
            return
        raise BlockingIOError(in_use(path.parent, held))


def has_lapsed(path: Path) -> bool:
    """Whether the lease at `path` was last renewed too long ago, by our clock."""
    return time.time() - modified(path) > LAPSE_SEC


def _refuse_fresh(path: Path, held: Lease | None) -> None:
    """Raise BlockingIOError unless the lease has lapsed."""
    if not has_lapsed(path):
        wait = f" (if it was killed, its hold ends {LAPSE_SEC:.0f} s after that)"
        raise BlockingIOError(in_use(path.parent, held) + wait)
    # The store's clock and ours may differ: the holder is gone if it misses a beat before our eyes.
    time.sleep(BEAT_SEC + SETTLE_SEC)
    if read_lease(path) != held:
        raise BlockingIOError(in_use(path.parent, held))


def _renew(path: Path, lease: Lease, ended: threading.Event, lost: threading.Event) -> None:
    """Rewrite the lease until `ended`; interrupt the job if somebody else has it."""
    beats = 0
    while not ended.wait(BEAT_SEC):
        beats += 1
        try:
            held = read_lease(path)
            if held is not None and held.token != lease.token:
                lost.set()
                _thread.interrupt_main()
                return
            write_bytes(path, Lease(**{**asdict(lease), "beats": beats}).to_bytes())
        except OSError:
            continue  # cut off: so are the workers, and the next beat tells who has the lease


def in_use(folder: Path, holder: object) -> str:
    """What to tell whoever finds `folder` held by `holder` (None: it has not said yet)."""
    return (
        f"{folder} is in use by another job ({holder or 'just started'}): wait for it or stop it,"
        " then run the same command again"
    )
