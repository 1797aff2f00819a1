"""What a user watches while something runs: one line with rate and time left.

On a terminal the line is a moving bar; in a log file it is printed again every half minute.
"""

from __future__ import annotations

import logging
import time
import warnings
from typing import Any

from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LOG_EVERY_SEC = 30.0


class ProgressLine:
    """`description 12/100 unit ━━━ elapsed < left  status`, used as a context manager."""

    def __init__(self, description: str, unit: str, total: int, console: Console):
        self.console = console
        self.printed = time.monotonic()
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TextColumn("<"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}"),
            console=console,
            refresh_per_second=2,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task(description, total=total, status="")

    def __enter__(self) -> ProgressLine:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def update(self, completed: int, status: str = "", total: int | None = None) -> None:
        """Show `completed` of the total (which may be corrected) and `status` behind it."""
        self.bar.update(self.task, completed=completed, status=status, total=total)
        if self.console.is_terminal or time.monotonic() - self.printed < LOG_EVERY_SEC:
            return
        self.printed = time.monotonic()
        task = self.bar.tasks[0]
        left = "" if task.time_remaining is None else f"  {task.time_remaining / 60:.0f} min left"
        self.console.print(f"{task.description} {completed}/{task.total:.0f}{left}  {status}")


def quiet_libraries() -> None:
    """Silence the advice that training libraries print; their errors still show."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "diffusers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(lightning|diffusers|torch|webdataset)(\.|$)")


class TrainingProgress(Callback):
    """One line over all optimiser steps of a Lightning training, with what the module logs."""

    def __init__(self, description: str, console: Console):
        self.description, self.console = description, console
        self.line: ProgressLine | None = None

    def on_train_start(self, trainer: Any, module: Any) -> None:
        total = trainer.max_steps if trainer.max_steps > 0 else trainer.estimated_stepping_batches
        self.line = ProgressLine(self.description, "steps", int(total), self.console)
        self.line.__enter__()

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        assert self.line is not None
        shown = {k: float(v) for k, v in trainer.progress_bar_metrics.items()}
        self.line.update(trainer.global_step, "  ".join(f"{k} {v:.4g}" for k, v in shown.items()))

    def teardown(self, trainer: Any, module: Any, stage: str) -> None:
        if self.line is not None:
            self.line.__exit__()
            self.line = None
