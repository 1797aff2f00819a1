"""One training run of an ensemble: steps, stops, reports, checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from labelers.config import FastTraining, ReferenceTraining
from labelers.ensemble.classifiers import Ensemble
from labelers.ensemble.vote import first_maximum
from labelers.training.checkpoint import load_checkpoint, save_checkpoint
from labelers.training.first_layer import FirstLayer
from labelers.training.loss import PixelLoss
from labelers.training.pixel_features import Normalisation, PixelReader
from labelers.training.pixel_order import PixelOrders
from labelers.training.schedule import StoppingRule, learning_rate

REPORT_STEPS = 50
CHECKPOINT_SEC = 60.0


@dataclass(frozen=True)
class Report:
    """Progress of a training: `step` of an estimated `total`, and means since the last report.

    `loss` is the mean over the members, `accuracy` (0-1) that of each on its own batches.
    """

    step: int
    total: int
    loss: float
    accuracy: tuple[float, ...]


Progress = Callable[[Report], None]


@dataclass(frozen=True)
class Data:
    """The input of a training: vectors by pixel number, the class of every pixel, and orders.

    `labels` uint8 `[N·H·W]` are on the reader's device.
    """

    reader: PixelReader
    labels: torch.Tensor
    orders: PixelOrders
    normalisation: Normalisation | None = None


class Trainer:
    """Trains `ensemble`; the first layer's products are computed in `dtype`."""

    def __init__(
        self,
        ensemble: Ensemble,
        training: ReferenceTraining | FastTraining,
        data: Data,
        loss: PixelLoss,
        dtype: torch.dtype = torch.float32,
    ):
        self.ensemble = ensemble.train()
        self.training = training
        self.data = data
        self.loss = loss
        self.first = FirstLayer(ensemble.linears[0], data.orders.batch, dtype)
        self.optimizer = torch.optim.Adam(ensemble.parameters(), fused=True)
        device, members = data.labels.device, ensemble.members
        if isinstance(training, ReferenceTraining):
            self.early = min(training.min_epochs, training.max_epochs) * data.orders.per_epoch
            self.last = training.max_epochs * data.orders.per_epoch
            self.rule = StoppingRule(members, training.patience_batches)
        else:
            self.early = self.last = training.steps
            self.rule = StoppingRule(members, 1)  # never used
        self.step = self.reported = 0
        self.kept: dict[str, torch.Tensor] = {}  # members as they were when they stopped
        # Loss and accuracies since the last report.
        self.sums = torch.zeros(1 + members, device=device)
        self.scores: dict[str, float] = {}

    def train(
        self, progress: Progress | None = None, checkpoint: Path | None = None, run: str = ""
    ) -> dict[str, float]:
        """Train to the end; returns mean loss and accuracy since the last report, and the steps.

        With a file `checkpoint`, resumes from it if it exists, and writes it once a minute; `run`
        identifies the training in it.
        """
        if checkpoint is not None and (found := load_checkpoint(checkpoint, run)) is not None:
            self._restore(*found)
        saved = time.monotonic()
        while not (all(self.rule.stopped) or self.step == self.last):
            losses = self._learn(self.data.orders(self.step))
            self.step += 1
            if self.step > self.early:
                for member in self.rule.update(losses.tolist()):
                    self._keep(member)
            if self.step - self.reported == REPORT_STEPS:
                self._report(progress)
                # Right after a report there are no partial sums to save.
                if checkpoint is not None and time.monotonic() - saved >= CHECKPOINT_SEC:
                    save_checkpoint(checkpoint, *self._state(), run)
                    saved = time.monotonic()
        if self.step > self.reported:
            self._report(progress)
        # Stopped members kept training with the others, which costs less than removing them.
        state = self.ensemble.state_dict()
        for name, tensor in self.kept.items():
            stopped = torch.tensor(self.rule.stopped, device=tensor.device)
            state[name][stopped] = tensor[stopped]
        return {**self.scores, "steps": float(self.step)}

    def _learn(self, pixels: torch.Tensor) -> torch.Tensor:
        """One Adam step of every member on its own pixels `[M, B]`; losses `[M]`."""
        pixels = pixels.to(self.data.labels.device)
        target = self.data.labels[pixels].long()
        self.data.reader.gather(pixels, self.first.pixels, self.data.normalisation)
        self.optimizer.zero_grad()
        first = self.first.forward()
        losses, logits = self.loss(self.ensemble, first, target)
        losses.sum().backward()  # members share no parameter: each gets its own gradient
        self.first.backward(first)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.training, self.step)
        self.optimizer.step()
        losses = losses.detach()
        accuracies = (first_maximum(logits) == target).float().mean(1)
        self.sums += torch.cat([losses.mean()[None], accuracies])
        return losses

    def _keep(self, member: int) -> None:
        state = self.ensemble.state_dict()
        if not self.kept:
            self.kept = {name: t.clone() for name, t in state.items()}
        for name, tensor in state.items():
            self.kept[name][member] = tensor[member]

    def _report(self, progress: Progress | None) -> None:
        loss, *accuracies = (self.sums / (self.step - self.reported)).tolist()
        self.sums.zero_()
        self.reported = self.step
        mean = sum(accuracies) / len(accuracies)
        self.scores = {"train_loss": loss, "train_accuracy": mean}
        ended = all(self.rule.stopped) or self.step == self.last
        if progress is not None:
            soonest = min(self.early + self.rule.patience, self.last)
            total = self.step if ended else max(self.step, soonest)
            progress(Report(self.step, total, loss, tuple(accuracies)))

    def _state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Everything that the rest of the run depends on: tensors, numbers."""
        tensors = {f"ensemble.{k}": t for k, t in self.ensemble.state_dict().items()}
        tensors |= {f"kept.{k}": t for k, t in self.kept.items()}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{k}": t for k, t in state.items()}
        rule = {"best": self.rule.best, "since": self.rule.since, "stopped": self.rule.stopped}
        return tensors, {"step": self.step, "rule": rule, "scores": self.scores}

    def _restore(self, tensors: dict[str, torch.Tensor], numbers: dict[str, Any]) -> None:
        parts: dict[str, dict[str, torch.Tensor]] = {"ensemble": {}, "kept": {}, "adam": {}}
        for key, tensor in tensors.items():
            part, _, name = key.partition(".")
            parts[part][name] = tensor
        self.ensemble.load_state_dict(parts["ensemble"])
        self.kept = {k: t.to(self.sums.device) for k, t in parts["kept"].items()}
        adam: dict[int, dict[str, torch.Tensor]] = {}
        for key, tensor in parts["adam"].items():
            i, _, name = key.partition(".")
            adam.setdefault(int(i), {})[name] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": adam, "param_groups": groups})
        self.step = self.reported = numbers["step"]
        self.scores = numbers["scores"]
        for name, values in numbers["rule"].items():
            setattr(self.rule, name, values)
