"""One job per folder of a bucket: a lease that its holder renews, and that lapses otherwise.

A bucket has no locks. FOLDER/.lock is created only if there is none, and rewritten every BEAT_SEC
by a thread of the job. LAPSE_SEC after the last rewrite, anybody may take it over.

Two jobs that take over a lapsed lease at the same moment both write it. The last to write has it,
and the other sees that when it reads the lease back. Stores differ in their atomic operations, so
this relies on none. If two jobs slipped through, nothing would break: they would write the same
bytes under the same names until one of them notices at its next beat.
"""

from __future__ import annotations

import _thread
import json
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from factory_core.storage import Store

LOCK_NAME = ".lock"  # hidden, so it does not count as content
BEAT_SEC = 15.0
LAPSE_SEC = 4 * BEAT_SEC  # three beats may be lost
SETTLE_SEC = 2.0  # longer than it takes to write a small object


@dataclass(frozen=True)
class Lease:
    """Content of the lock file: who holds it, and how often it has been renewed.

    `token` is unique to each holder, `machine` is its `this_machine`.
    """

    host: str
    pid: int
    machine: str
    token: str
    beats: int = 0

    @classmethod
    def new(cls) -> Lease:
        """A lease for this process."""
        return cls(socket.gethostname(), os.getpid(), this_machine(), uuid.uuid4().hex)

    def to_bytes(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self)).encode()

    @property
    def is_gone(self) -> bool:
        """Whether the holder is known to have ended, which only its own machine can know."""
        return bool(self.machine) and self.machine == this_machine() and has_ended(self.pid)

    def __str__(self) -> str:
        return f"host {self.host}, pid {self.pid}"


def has_ended(pid: int) -> bool:
    """Whether no process on this machine has that id, as far as can be known."""
    if os.name == "nt":  # signal 0 would end the process there
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's process
        return False
    return False


def this_machine() -> str:
    """A name shared by all processes that see each other's ids; empty if that is unknown.

    Not the host's name: containers may share it, and a restarted one may reuse it.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def read_lease(store: Store) -> Lease | None:
    """The lease of a folder; None without one, or if it is damaged."""
    try:
        return Lease(**json.loads(store.read(LOCK_NAME)))
    except (FileNotFoundError, ValueError, TypeError):
        return None


@contextmanager
def leased(store: Store) -> Iterator[None]:
    """Hold a folder of a bucket, renewing the lease in the background.

    Raises BlockingIOError naming the other holder: at the beginning, or at the end if another job
    took over while this process was suspended or offline for longer than LAPSE_SEC.
    """
    lease = Lease.new()
    _acquire(store, lease)
    ended, lost = threading.Event(), threading.Event()
    renewing = threading.Thread(target=_renew, args=(store, lease, ended, lost), daemon=True)
    renewing.start()
    try:
        yield
    except KeyboardInterrupt:
        if not lost.is_set():
            raise
        raise BlockingIOError(in_use(store, read_lease(store))) from None
    finally:
        ended.set()
        renewing.join()
        held = read_lease(store)
        if held is not None and held.token == lease.token:
            store.delete(LOCK_NAME)


def _acquire(store: Store, lease: Lease) -> None:
    """Create the lock file, or take over one that has lapsed."""
    # Some stores lack exclusive creation and just write.
    while store.exists(LOCK_NAME) or not store.create(LOCK_NAME, lease.to_bytes()):
        held = read_lease(store)
        if held is None and not store.exists(LOCK_NAME):
            continue  # its holder has just ended
        if held is None or not held.is_gone:
            _refuse_fresh(store, held)
        store.write(LOCK_NAME, lease.to_bytes())
        time.sleep(SETTLE_SEC)
        held = read_lease(store)
        if held is not None and held.token == lease.token:
            return
        raise BlockingIOError(in_use(store, held))


def has_lapsed(store: Store) -> bool:
    """Whether the lease was last renewed too long ago, by our clock."""
    return time.time() - store.entry(LOCK_NAME).mtime > LAPSE_SEC


def _refuse_fresh(store: Store, held: Lease | None) -> None:
    """Raise BlockingIOError unless the lease has lapsed."""
    if not has_lapsed(store):
        wait = f" (if it was killed, the lock expires {LAPSE_SEC:.0f} s later)"
        raise BlockingIOError(in_use(store, held) + wait)
    # The bucket's clock may differ from ours: a holder that misses a beat as we watch is gone.
    time.sleep(BEAT_SEC + SETTLE_SEC)
    if read_lease(store) != held:
        raise BlockingIOError(in_use(store, held))


def _renew(store: Store, lease: Lease, ended: threading.Event, lost: threading.Event) -> None:
    """Rewrite the lease until `ended`; interrupt the job if another one holds it."""
    beats = 0
    while not ended.wait(BEAT_SEC):
        beats += 1
        try:
            held = read_lease(store)
            if held is not None and held.token != lease.token:
                lost.set()
                _interrupt_main()
                return
            store.write(LOCK_NAME, Lease(**{**asdict(lease), "beats": beats}).to_bytes())
        except OSError:
            continue  # offline, like the workers; the next beat shows who has the lease


def _interrupt_main() -> None:
    """Interrupt the main thread, as Ctrl-C or, where shells ignore that (`command &`), `kill`."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    handled = (number for number in numbers if callable(signal.getsignal(number)))
    _thread.interrupt_main(next(handled, signal.SIGINT))


def in_use(folder: object, holder: object) -> str:
    """The message for a `folder` held by `holder` (None: not recorded yet)."""
    return (
        f"{folder} is in use by another job ({holder or 'just started'}): wait for it or stop it,"
        " then rerun the command"
    )
