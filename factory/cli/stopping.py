"""Ctrl-C and `kill`: a KeyboardInterrupt that is heard, and the exit code that says which it was.

Imports next to nothing, for it comes before all else.
"""

from __future__ import annotations

import signal
import sys
from typing import Any, NoReturn

INSIST_SEC = 1.0


class Stopping:
    """In this context SIGINT and SIGTERM raise KeyboardInterrupt; `code` is None until then.

    What Python raises while a destructor or another program's callback runs is dropped. So it is
    raised again every INSIST_SEC, unless it is on its way out, until the context is left.
    """

    def __init__(self) -> None:
        self.code: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stopping:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:  # as background jobs of a shell do
                self._before[number] = signal.signal(number, self._stop)
        self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._insist)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, _: Any) -> NoReturn:
        self.code = 128 + number
        signal.setitimer(signal.ITIMER_REAL, INSIST_SEC, INSIST_SEC)
        raise KeyboardInterrupt

    def _insist(self, *_: Any) -> None:
        on_its_way = sys.exc_info()[1]  # what is being cleaned up after, if anything
        while on_its_way is not None:
            if isinstance(on_its_way, KeyboardInterrupt):
                return
            on_its_way = on_its_way.__context__
        raise KeyboardInterrupt
