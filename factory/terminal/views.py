"""The places where progress is seen: a terminal, a notebook, a log file."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column

LOG_EVERY_SEC = 60.0
REDRAW_SEC = 0.5


@dataclass(frozen=True)
class Reading:
    """What is shown: `completed` of `total` units, their rate, the time left, and a status.

    `writes` names what is being written. Rate and time left are None until they are known.
    """

    description: str
    unit: str
    completed: int
    total: int
    per_sec: float | None = None
    left_sec: float | None = None
    status: str = ""
    writes: str = ""

    def changed(self, **changes: Any) -> Reading:
        """The reading with these values."""
        return replace(self, **changes)

    @property
    def rate(self) -> str:
        """`7.8/s`, or `4.1/min` if slower than one per second; empty until it is known."""
        if self.per_sec is None:
            return ""
        return f"{self.per_sec:.1f}/s" if self.per_sec >= 1 else f"{60 * self.per_sec:.1f}/min"

    @property
    def left(self) -> str:
        """`3:07`, `12:03:07` or, until it is known, `-:--`."""
        if self.left_sec is None:
            return "-:--"
        minutes, seconds = divmod(int(self.left_sec), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"

    @property
    def tail(self) -> str:
        """The status and what is written."""
        return "  ".join(filter(None, [self.status, self.writes and f"writing {self.writes}"]))

    def __str__(self) -> str:
        """All of it in one line."""
        done = f"{self.description} {self.completed}/{self.total} {self.unit}"
        return "  ".join(filter(None, [done, self.rate, f"{self.left} left", self.tail]))


class View(Protocol):
    """A place that shows readings between `start` and `stop`."""

    def start(self, reading: Reading) -> None: ...
    def show(self, reading: Reading) -> None: ...
    def stop(self) -> None: ...


def view_on(console: Console) -> View:
    """The view that suits where `console` prints to."""
    if console.is_jupyter:
        return NotebookLine()
    return Bar(console) if console.is_terminal else LogLines(console)


class Bar:
    """`description ━━━ 12/100 unit  rate  elapsed < left  status`, redrawn in place."""

    def __init__(self, console: Console):
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            *(TextColumn("{task.fields[unit]}"), TextColumn("{task.fields[rate]}")),
            TimeElapsedColumn(),
            TextColumn("< {task.fields[left]}"),
            # Cut, not wrapped: one line, however narrow the terminal.
            TextColumn(
                "{task.fields[tail]}",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis"),
            ),
            console=console,
            refresh_per_second=1 / REDRAW_SEC,
        )

    def start(self, reading: Reading) -> None:
        self._task = self._bar.add_task(reading.description, total=reading.total, **_texts(reading))
        self._bar.start()

    def show(self, reading: Reading) -> None:
        self._bar.update(
            self._task,
            description=reading.description,
            completed=reading.completed,
            total=reading.total,
            **_texts(reading),
        )

    def stop(self) -> None:
        self._bar.stop()


def _texts(reading: Reading) -> dict[str, Any]:
    return {name: getattr(reading, name) for name in ("unit", "rate", "left", "tail")}


class LogLines:
    """A line a minute, without carriage returns or control codes."""

    def __init__(self, console: Console):
        self._console = console

    def start(self, reading: Reading) -> None:
        self._printed = time.monotonic()

    def show(self, reading: Reading) -> None:
        if time.monotonic() - self._printed >= LOG_EVERY_SEC:
            self._printed = time.monotonic()
            self._console.print(str(reading), markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        pass


class NotebookLine:
    """One output of a notebook's cell that is replaced, twice a second at most."""

    def start(self, reading: Reading) -> None:
        from IPython.display import display

        self._shown, self._latest = time.monotonic(), reading
        self._handle = display(_plain(reading), raw=True, display_id=True)

    def show(self, reading: Reading) -> None:
        self._latest = reading
        if time.monotonic() - self._shown >= REDRAW_SEC:
            self._draw()

    def stop(self) -> None:
        self._draw()

    def _draw(self) -> None:
        self._shown = time.monotonic()
        self._handle.update(_plain(self._latest), raw=True)


def _plain(reading: Reading) -> dict[str, str]:
    return {"text/plain": str(reading)}
