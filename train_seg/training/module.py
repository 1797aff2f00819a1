"""Training step, validation and checkpoints of a segmenter, as a Lightning module."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import safetensors.torch
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint
from safetensors import SafetensorError

from factory_core.averaging import update_average
from factory_core.device import send
from factory_core.storage import atomic_path, write_bytes
from train_seg.config import SGD_MOMENTUM, SegmenterConfig
from train_seg.data.stream import Stream
from train_seg.evaluation.metrics import Confusion, scores
from train_seg.network.network import Network, weights_bytes
from train_seg.training.curves import write_table
from train_seg.training.losses import objective
from train_seg.training.parallel import rank, union, whole, world_size
from train_seg.training.plan import warmup_steps

LAST_NAME = "last.ckpt"
BEST_NAME = "best.safetensors"
LOG_EVERY = 10  # steps between values in TensorBoard, and between checks of the loss


@dataclass(frozen=True)
class Place:
    """Where a stage is in its training."""

    stage: int = 1
    stages: int = 1
    total: int = 0
    """steps of all stages"""
    before: int = 0
    """steps of the stages before it"""
    history: Sequence[Mapping[str, float]] = ()
    """the rows of curves.csv that they wrote"""

    def after(self, history: Sequence[Mapping[str, float]]) -> Place:
        """The place of the next stage, given the rows of curves.csv up to there."""
        return replace(self, stage=self.stage + 1, before=int(history[-1]["step"]), history=history)


class SegmenterModule(lightning.LightningModule):
    """Minimises `losses.objective`; keeps the weights with the best mIoU.

    If several processes train together, each runs this module on its part of the batches. Loss and
    scores are those of all parts, and only the first process writes.
    """

    def __init__(
        self,
        network: Network,
        config: SegmenterConfig,
        classes: Sequence[str],
        total_steps: int,
        checkpoints: Path,
        place: Place = Place(),
    ):
        """`total_steps` is the length of this stage, to which `config` belongs."""
        super().__init__()
        self.network, self.config, self.classes = network, config, list(classes)
        self.total_steps, self.checkpoints, self.place = total_steps, checkpoints, place
        self.average = copy.deepcopy(network).requires_grad_(False) if config.ema else None
        self.best: dict[str, Any] = {}  # scores of the best validation so far
        self.history: list[dict[str, float]] = []
        self._losses: list[torch.Tensor] = []
        self._started = 0.0

    @property
    def result(self) -> Network:
        """The network that is validated and kept: the averaged one if weights are averaged."""
        return self.average if self.average is not None else self.network

    @property
    def rows(self) -> list[Mapping[str, float]]:
        """The rows of curves.csv, those of earlier stages included."""
        return [*self.place.history, *self.history]

    @property
    def step(self) -> int:
        """Optimiser steps of the whole training so far."""
        return self.place.before + self.global_step

    def configure_optimizers(self) -> Any:
        config = self.config
        settings: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
        if config.optimizer == "sgd":
            settings |= {"momentum": SGD_MOMENTUM, "nesterov": True}
        kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1]},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = kinds[config.optimizer](groups, fused=True, **settings)
        warmup = warmup_steps(config, self.total_steps)

        def factor(step: int) -> float:
            risen = min(1.0, (step + 1) / (warmup + 1))
            if config.schedule == "constant":
                return risen
            return risen * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.total_steps)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_train_epoch_start(self) -> None:
        self._losses, self._started = [], time.perf_counter()

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> torch.Tensor:
        images, labels = batch
        # Dropout depends on seed and step, so that a resumed run repeats the lost steps exactly.
        words = [self.config.seed, self.global_step, rank()]
        torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1)[0]))
        loss = objective(self.network(images), labels, self.config)
        self._losses.append(loss.detach())
        self._show(loss.detach())
        return loss * world_size()  # see `whole`

    def _show(self, loss: torch.Tensor) -> None:
        """Log the loss every LOG_EVERY steps: each look waits for the GPU."""
        step = self.global_step
        if (step + 1) % LOG_EVERY and step not in (0, self.total_steps - 1):
            return
        elapsed = time.perf_counter() - self._started
        speed = len(self._losses) * self.config.batch_size / elapsed
        # On the CPU: Lightning reads what is in its progress bar again at every step.
        if self.place.stages > 1:
            stage = torch.tensor(float(self.place.stage))
            self.log("stage", stage, prog_bar=True, logger=False)
        self.log("loss", loss.cpu(), prog_bar=True)
        self.log("images/s", torch.tensor(speed), prog_bar=True)

    def transfer_batch_to_device(
        self, batch: tuple[torch.Tensor, ...], device: torch.device, dataloader_idx: int
    ) -> tuple[torch.Tensor, ...]:
        """Copy a batch without waiting for the steps that are queued on a GPU."""
        return tuple(send(part, device) for part in batch)

    def on_train_batch_end(self, *_: Any) -> None:
        if self.average is not None:
            update_average(self.average, self.network, self.config.ema, self.global_step)
        if self.global_step % LOG_EVERY == 0:  # not each step: reading it waits for the GPU
            self._check_loss()

    def _check_loss(self) -> None:
        loss = float(self._losses[-1])
        if not math.isfinite(loss):
            raise ValueError(self._diverged(f"the loss is {loss}"))

    def check_weights(self) -> None:
        """Raise ValueError unless all weights, including averaged ones, are finite."""
        finite = torch.stack([t.isfinite().all() for t in self.state_dict().values()])
        if not finite.all():
            raise ValueError(self._diverged("weights are not finite"))

    def _diverged(self, found: str) -> str:
        key, where = "lr", ""
        if self.place.stage > 1:
            key, where = "then.lr", " in the second stage"
        return (
            f"the training diverged, {found} after step {self.global_step} of {self.total_steps}"
            f"{where}: lower {key} (now {self.config.lr:g}) or raise warmup_steps"
        )

    def on_validation_epoch_start(self) -> None:
        self.check_weights()  # NaN logits would be scored like any others
        self._confusion, self._images = Confusion(len(self.classes)), torch.tensor(0)

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> None:
        images, masks = batch
        self._confusion.update(self.result(images).argmax(1), masks)
        self._images += len(images)

    def on_validation_epoch_end(self) -> None:
        self._confusion.counts = whole(self._confusion.counts.to(self.device)).cpu()
        images = int(whole(self._images.to(self.device)))
        found = scores(self._confusion, self.classes, images).to_dict()
        self.log("miou", found["miou"], prog_bar=True)
        self.log("pixel_accuracy", found["pixel_accuracy"])
        self._validation = found
        if not self.best or found["miou"] > self.best["miou"]:
            self.best = {**found, "step": self.step}
            if self.trainer.is_global_zero:
                write_bytes(self.checkpoints / BEST_NAME, weights_bytes(self.result))

    @property
    def exhausted(self) -> bool:
        """Whether the last `patience` validations brought no better mIoU."""
        since = sum(row["step"] > self.best["step"] for row in self.history) if self.best else 0
        return self.config.patience is not None and since >= self.config.patience

    def on_train_start(self) -> None:
        self.trainer.should_stop = self.exhausted  # the resumed run may have ended

    @property
    def idle(self) -> bool:
        """Whether this round has no step yet: when resuming, Lightning opens an empty one."""
        return not self._losses

    def on_train_epoch_end(self) -> None:
        if self.idle:
            return
        self._check_loss()
        self.check_weights()  # before KeepLast
        elapsed = time.perf_counter() - self._started
        row = {
            "step": self.step,
            "loss": float(torch.stack(self._losses).mean()),
            "lr": self.trainer.optimizers[0].param_groups[0]["lr"],
            "images_per_sec": len(self._losses) * self.config.batch_size / elapsed,
        }
        if self.best:
            row |= {k: self._validation[k] for k in ("miou", "miou_reference", "pixel_accuracy")}
        self.history.append(row)
        self.trainer.should_stop = self.exhausted
        if not self.trainer.is_global_zero:
            return
        write_table(self.checkpoints.parent, self.rows)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint |= {"best": self.best, "history": self.history}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.best, self.history = checkpoint["best"], checkpoint["history"]

    def restore_best(self) -> Network:
        """The network with the weights of the best validation, or the last ones without validation.

        Raises ValueError if the file with the best weights is missing or damaged.
        """
        if self.best:
            path = self.checkpoints / BEST_NAME
            try:
                self.result.load_state_dict(safetensors.torch.load_file(path))
            except (OSError, SafetensorError, RuntimeError):
                raise ValueError(
                    f"{path} is missing or damaged: delete {path.parent} to start over"
                ) from None
        return self.result


class Skips(Callback):
    """Keeps the samples that `stream` skipped, in all processes, in the checkpoints."""

    def __init__(self, stream: Stream):
        self._stream = stream

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        self._stream.damaged = union(self._stream.damaged)

    def state_dict(self) -> dict[str, Any]:
        return {"damaged": self._stream.damaged}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._stream.damaged = dict(state_dict["damaged"])


class KeepLast(Checkpoint):
    """Replaces checkpoints/last.ckpt atomically after each round."""

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        assert isinstance(pl_module, SegmenterModule)
        if pl_module.idle:
            return
        path = pl_module.checkpoints / LAST_NAME
        # All processes take part in saving; the first one writes.
        target = atomic_path(path) if trainer.is_global_zero else nullcontext(path)
        with target as file:
            trainer.save_checkpoint(file)
