"""The progress line of a training."""

from __future__ import annotations

import io
from types import SimpleNamespace

import lightning
import pytest
import torch
from rich.console import Console

from factory.terminal import training_progress, views
from factory.terminal.training_progress import TrainingProgress
from train_seg.training.module import Place


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
    monkeypatch.setattr(views, "LOG_EVERY_SEC", 0.0)
    text, trainer = io.StringIO(), Trainer()
    line = TrainingProgress("training", Console(file=text, width=100))
    line.on_train_start(trainer, None)
    for step in range(1, 101):
        trainer.global_step = step
        line.on_train_batch_end(trainer, None)
    line.teardown(trainer, None, "fit")
    assert trainer.asked_at == (1, 100)
    assert text.getvalue().splitlines()[-1].endswith("/s  0:00 left  loss 0.25")


def test_an_accelerator_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "LOG_EVERY_SEC", 0.0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU number {device.index}")
    text, trainer = io.StringIO(), Trainer()
    line = TrainingProgress("training", Console(file=text, width=100))
    module = SimpleNamespace(device=torch.device("cuda:1"))
    line.on_train_start(trainer, module)
    line.on_train_batch_end(trainer, module)
    line.teardown(trainer, module, "fit")
    assert "loss 0.25  on GPU number 1" in text.getvalue()


def test_two_stages_share_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "LOG_EVERY_SEC", 0.0)
    text, trainer = io.StringIO(), Trainer()
    line = TrainingProgress("training", Console(file=text, width=100))
    first_place = Place(stages=2, total=150)
    for steps, place in ((100, first_place), (50, first_place.after([{"step": 100.0}]))):
        module = SimpleNamespace(place=place)
        trainer.max_steps = trainer.global_step = steps
        line.on_train_start(trainer, module)
        line.on_train_batch_end(trainer, module)
        line.teardown(trainer, module, "fit")
    first, second = text.getvalue().splitlines()
    assert first.startswith("training, stage 1/2 100/150 steps")
    assert second.startswith("training, stage 2/2 150/150 steps")
    assert line.line is None


def test_an_error_closes_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the terminal stays without a cursor, and the line is redrawn over the message."""
    monkeypatch.setattr(views, "LOG_EVERY_SEC", 0.0)
    line = TrainingProgress("training", Console(file=io.StringIO(), width=100))

    class Diverging(lightning.LightningModule):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])

        def training_step(self, batch: object, number: int) -> None:
            assert line.line is not None
            raise ValueError("diverged")

    trainer = lightning.Trainer(
        accelerator="cpu",
        callbacks=[line],
        max_steps=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with pytest.raises(ValueError, match="diverged"):
        trainer.fit(Diverging(), [torch.zeros(1)])
    assert line.line is None
