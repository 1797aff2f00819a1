"""What a user watches while something runs: one line with rate and time left."""

from __future__ import annotations

import logging
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


def progress_bar(description: str, unit: str, total: int, console: Console) -> Progress:
    """A started one-task bar: `description 12/100 unit ━━━ elapsed < left · status`."""
    bar = Progress(
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
    )
    bar.add_task(description, total=total, status="")
    return bar


def quiet_libraries() -> None:
    """Silence the advice that training libraries print; their errors still show."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "diffusers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(lightning|diffusers|torch|webdataset)(\.|$)")


class TrainingProgress(Callback):
    """One bar over all optimiser steps of a Lightning training, with what the module logs."""

    def __init__(self, description: str, console: Console):
        self.description, self.console = description, console
        self.bar: Progress | None = None

    def on_train_start(self, trainer: Any, module: Any) -> None:
        total = trainer.max_steps if trainer.max_steps > 0 else trainer.estimated_stepping_batches
        self.bar = progress_bar(self.description, "steps", int(total), self.console)
        self.bar.start()

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        assert self.bar is not None
        shown = {k: float(v) for k, v in trainer.progress_bar_metrics.items()}
        status = "  ".join(f"{k} {v:.4g}" for k, v in shown.items())
        self.bar.update(self.bar.task_ids[0], completed=trainer.global_step, status=status)

    def teardown(self, trainer: Any, module: Any, stage: str) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
