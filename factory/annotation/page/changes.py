"""A counter of changes that open pages wait on."""

from __future__ import annotations

import asyncio
import threading


class Changes:
    """`version` counts what has happened; any thread may add to it, coroutines wait for it."""

    def __init__(self) -> None:
        self.version = 0
        self.ended = False
        self._lock = threading.Lock()
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def note(self, ended: bool = False) -> None:
        """Wake everybody who waits; `ended`: nothing will happen any more."""
        with self._lock:
            self.version += 1
            self.ended = self.ended or ended
            for loop, event in self._waiting:
                loop.call_soon_threadsafe(event.set)

    async def newer_than(self, version: int, timeout_sec: float) -> None:
        """Return once there is something newer than `version`, or after the timeout."""
        waiting = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            if self.version != version or self.ended:
                return
            self._waiting.add(waiting)
        try:
            await asyncio.wait_for(waiting[1].wait(), timeout_sec)
        except TimeoutError:
            return
        finally:
            with self._lock:
                self._waiting.discard(waiting)
