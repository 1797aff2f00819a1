"""The progress line of a Lightning training, in its own module because Lightning loads slowly."""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from rich.console import Console

from factory.terminal.progress import SHOW_EVERY_SEC, ProgressLine
from factory_core.device import device_kind

CPU = torch.device("cpu")


def training_status(trainer: Any) -> str:
    """What the module logs for the progress line; not for every step, as it waits for the GPU."""
    shown = {k: float(v) for k, v in trainer.progress_bar_metrics.items()}
    return "  ".join(f"{k} {v:.4g}" for k, v in shown.items())


def steps_done(trainer: Any, module: Any) -> tuple[int, int]:
    """Optimiser steps done, and their total, over all stages if the module is in one of several."""
    place = getattr(module, "place", None)
    if place is not None and place.stages > 1:
        return place.before + trainer.global_step, place.total
    total = trainer.max_steps if trainer.max_steps > 0 else trainer.estimated_stepping_batches
    return trainer.global_step, int(total)


class TrainingProgress(Callback):
    """One line over all optimiser steps of a Lightning training: what the module logs, and where.

    Stages that follow each other continue the line. `writes` names the output.
    """

    def __init__(self, description: str, console: Console, writes: object = ""):
        self.description, self.console, self.writes = description, console, writes
        self.line: ProgressLine | None = None
        self.place = ""  # the accelerator, if there is one
        self.shown = -SHOW_EVERY_SEC

    def on_train_start(self, trainer: Any, module: Any) -> None:
        device = getattr(module, "device", CPU)
        self.place = "" if device.type == "cpu" else f"  on {device_kind(device)}"
        if self.line is None:
            _, total = steps_done(trainer, module)
            self.line = ProgressLine(self.description, "steps", total, self.console, self.writes)
            self.line.__enter__()
        place = getattr(module, "place", None)
        if place is not None and place.stages > 1:
            self.line.describe(f"{self.description}, stage {place.stage}/{place.stages}", None)

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        assert self.line is not None
        now = time.monotonic()
        if now - self.shown > SHOW_EVERY_SEC or trainer.global_step == trainer.max_steps:
            self.shown = now
            self.line.update(steps_done(trainer, module)[0], training_status(trainer) + self.place)

    def teardown(self, trainer: Any, module: Any, stage: str) -> None:
        place = getattr(module, "place", None)
        if place is None or place.stage == place.stages:
            self._close()

    def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
        self._close()  # Lightning tears nothing down after an exception

    def _close(self) -> None:
        if self.line is not None:
            self.line.__exit__()
            self.line = None
