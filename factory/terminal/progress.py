"""The progress line of a running command: stage, rate, time left, and what is being written."""

from __future__ import annotations

import logging
import time
import warnings
from threading import Event, Lock, Thread

from rich.console import Console

from factory.terminal.views import Reading, view_on

SHOW_EVERY_SEC = 0.5
HEARTBEAT_SEC = 5.0


class ProgressLine:
    """How far a command is, used as a context manager.

    On a terminal it is a moving bar, in a notebook one line that changes, and in a log file a line
    a minute, also while nothing is reported. `writes` names what the command is writing.
    """

    def __init__(
        self, description: str, unit: str, total: int, console: Console, writes: object = ""
    ):
        self._reading = Reading(description, unit, 0, total, writes=str(writes))
        self._view = view_on(console)
        self._started = time.monotonic()
        self._first: int | None = None  # completed at the first update
        self._left_sec: float | None = None
        self._stopped, self._lock = Event(), Lock()
        self._heart = Thread(target=self._beat, name="progress", daemon=True)

    def __enter__(self) -> ProgressLine:
        self._view.start(self._reading)
        self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        with self._lock:
            self._view.stop()

    def describe(self, description: str, left_sec: float | None) -> None:
        """Change the description; `left_sec` replaces the line's own estimate of the time left."""
        self._left_sec = left_sec
        self._reading = self._reading.changed(description=description)

    def update(self, completed: int, status: str = "", total: int | None = None) -> None:
        """Show `completed` of the total, and `status` after it; `total` corrects the total."""
        total = self._reading.total if total is None else total
        if self._first is None:
            self._first = completed
        done = completed - self._first
        elapsed = time.monotonic() - self._started
        rate = done / elapsed if done and elapsed else None
        left = self._left_sec
        if left is None and rate is not None:
            left = (total - completed) / rate
        self._reading = self._reading.changed(
            completed=completed, total=total, per_sec=rate, left_sec=left, status=status
        )
        self._show()

    def _show(self) -> None:
        with self._lock:
            if not self._stopped.is_set():
                self._view.show(self._reading)

    def _beat(self) -> None:
        """A long step reports nothing for minutes; who reads the log wants to see it lives."""
        while not self._stopped.wait(HEARTBEAT_SEC):
            self._show()


def quiet_libraries() -> None:
    """Silence the advice that training libraries print; their errors are still shown."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "diffusers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(lightning|diffusers|torch|webdataset)(\.|$)")
