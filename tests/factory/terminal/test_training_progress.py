"""The progress line of a training."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from factory.terminal import progress, training_progress
from factory.terminal.training_progress import TrainingProgress


class Trainer:
    """Stand-in for a trainer with metrics on a GPU, where reading them waits for its work."""

    max_steps = 100
    global_step = 0
    asked_at: tuple[int, ...] = ()

    @property
    def progress_bar_metrics(self) -> dict[str, float]:
        self.asked_at += (self.global_step,)
        return {"loss": 0.25}


def test_progress_is_reported_at_intervals_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_progress, "SHOW_EVERY_SEC", 1e6)
    monkeypatch.setattr(progress, "LOG_EVERY_SEC", 0.0)
    text, trainer = io.StringIO(), Trainer()
    line = TrainingProgress("training", Console(file=text, width=100))
    line.on_train_start(trainer, None)
    for step in range(1, 101):
        trainer.global_step = step
        line.on_train_batch_end(trainer, None)
    line.teardown(trainer, None, "fit")
    assert trainer.asked_at == (1, 100)
    assert text.getvalue().splitlines()[-1].endswith("100/100  0:00 left  loss 0.25")
