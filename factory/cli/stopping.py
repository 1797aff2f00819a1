"""Ctrl-C and `kill`: a KeyboardInterrupt that is never lost, and the exit code of the signal.

This module is loaded first, so it imports almost nothing.
"""

from __future__ import annotations

import signal
import sys
from typing import Any, NoReturn

INSIST_SEC = 1.0
HAS_TIMER = hasattr(signal, "setitimer")


class Stopping:
    """A context in which SIGINT and SIGTERM raise KeyboardInterrupt and set `code` (else None).

    Python drops exceptions raised in a destructor or in a callback from C. So the interrupt is
    raised again every INSIST_SEC until the context is left, unless it is already propagating.
    Windows has no such timer: there, an interrupt is raised once.
    """

    def __init__(self) -> None:
        self.code: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stopping:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:  # background jobs of a shell ignore it
                self._before[number] = signal.signal(number, self._stop)
        if HAS_TIMER:
            self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._insist)
        return self

    def __exit__(self, *_: object) -> None:
        self._set_timer(0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, _: Any) -> NoReturn:
        self.code = 128 + number
        self._set_timer(INSIST_SEC)
        raise KeyboardInterrupt

    @staticmethod
    def _set_timer(seconds: float) -> None:
        if HAS_TIMER:
            signal.setitimer(signal.ITIMER_REAL, seconds, seconds)

    def _insist(self, *_: Any) -> None:
        propagating = sys.exc_info()[1]  # the exception being cleaned up after, if any
        while propagating is not None:
            if isinstance(propagating, KeyboardInterrupt):
                return
            propagating = propagating.__context__
        raise KeyboardInterrupt
