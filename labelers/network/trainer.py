"""Fine-tuning of the members, one after another: steps, averages, reports, checkpoints."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from factory_core.averaging import update_average
from factory_core.device import send
from factory_core.dice import dice_sums, loss_of_sums
from factory_core.images import IGNORE
from factory_core.segmentation_unet import SegmentationUNet, UNetDescription, training_format
from factory_core.symmetries import augment
from generators.base import sample_seed
from labelers.config import NetworkTraining
from labelers.network.networks import to_unit_range
from labelers.training.checkpoint import load_checkpoint, save_checkpoint
from labelers.training.loss import balanced_weights
from labelers.training.pixel_order import PixelOrders
from labelers.training.schedule import learning_rate
from labelers.training.trainer import CHECKPOINT_SEC, Progress, Report

REPORT_STEPS = 10
# Random streams of a seed, besides the passes over the images, which count from 0.
START_STREAM, STEP_STREAM = 2**31, 2**31 + 1


class NetworkTrainer:
    """Trains M networks from `start` on images and masks uint8 `[N, 4, H, W]`, 255 = ignore.

    Every mask has other pixels than 255. If `is_balanced`, every class weighs the same in the
    cross-entropy. Networks compute in `dtype`, on `device`; weights stay float32.
    """

    def __init__(
        self,
        start: UNetDescription,
        classes: int,
        training: NetworkTraining,
        seed: int,
        pairs: Tensor,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        is_balanced: bool = False,
    ):
        self.start, self.classes, self.training, self.seed = start, classes, training, seed
        self.pairs, self.device, self.dtype = pairs, device, dtype
        self.class_weights = None
        if is_balanced:
            labels = pairs[:, 3]
            self.class_weights = balanced_weights(labels[labels != IGNORE], classes).to(device)
        rows = torch.arange(len(pairs))
        self.orders = PixelOrders(rows, training.members, training.batch_size, seed)
        self.step = self.reported = 0  # over all members
        self.done: list[SegmentationUNet] = []
        self.sums = torch.zeros(2, device=device)  # loss and accuracy since the last report
        self.scores: list[dict[str, float]] = []  # the last of each member
        self._begin()

    @property
    def total(self) -> int:
        """Steps of all members."""
        return self.training.members * self.training.steps

    def train(
        self, progress: Progress | None = None, checkpoint: Path | None = None, run: str = ""
    ) -> dict[str, float]:
        """Train to the end; returns mean loss and accuracy of the last steps, and the steps.

        With a file `checkpoint`, resumes from it if it exists, and writes it once a minute; `run`
        identifies the training in it. Raises ValueError if a member diverges.
        """
        if checkpoint is not None and (found := load_checkpoint(checkpoint, run)) is not None:
            self._restore(*found)
        saved = time.monotonic()
        while self.step < self.total:
            self.learn()
            is_last = self.step % self.training.steps == 0  # of this member
            if is_last or self.step - self.reported == REPORT_STEPS:
                self._report(progress)
                if is_last:
                    self._finish()
                # Right after a report there are no partial sums to save.
                is_due = self.step < self.total and time.monotonic() - saved >= CHECKPOINT_SEC
                if checkpoint is not None and is_due:
                    save_checkpoint(checkpoint, *self._state(), run)
                    saved = time.monotonic()
        means = {k: sum(s[k] for s in self.scores) / len(self.scores) for k in self.scores[0]}
        return {**means, "steps": float(self.training.steps)}

    def learn(self) -> None:
        """One step of the current member."""
        member, step = divmod(self.step, self.training.steps)
        x, masks = self._batch(member, step)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits = self.net(x).float()
        loss = F.cross_entropy(logits, masks.long(), self.class_weights, ignore_index=IGNORE)
        if self.training.dice:
            loss = loss + self.training.dice * loss_of_sums(dice_sums(logits, masks))
        self.optimizer.zero_grad()
        loss.backward()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.training, step)
        self.optimizer.step()
        self.step += 1
        update_average(self.average, self.net, self.training.ema, step + 1)
        right = (logits.argmax(1) == masks).sum() / (masks != IGNORE).sum()
        self.sums += torch.stack([loss.detach(), right])

    def _batch(self, member: int, step: int) -> tuple[Tensor, Tensor]:
        """Augmented images float `[N, 3, H, W]` and masks uint8, a function of seed and step."""
        rng = self._rng(self.step, STEP_STREAM)
        pairs = self.pairs[self.orders(step)[member]]
        is_square = pairs.shape[-1] == pairs.shape[-2]
        turns = self.training.quarter_turns and is_square
        images, masks = augment(pairs, self.training.flips, turns, rng).split([3, 1], 1)
        x = to_unit_range(images)
        x = x + self.training.noise * torch.randn(x.shape, generator=rng)
        x = send(x, self.device).contiguous(memory_format=training_format(self.device))
        return x, send(masks[:, 0].contiguous(), self.device)

    def _rng(self, index: int, stream: int) -> torch.Generator:
        return torch.Generator().manual_seed(sample_seed(self.seed, index, stream))

    def _begin(self) -> None:
        """Set up the next member: its own last convolution, or all weights of a random start."""
        self.net = self._build(self.start, len(self.done))
        self.average = self._build(self.start, len(self.done)).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(), weight_decay=self.training.weight_decay, fused=True
        )

    def _build(self, start: UNetDescription, member: int) -> SegmentationUNet:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(sample_seed(self.seed, member, START_STREAM))
            net = SegmentationUNet(start, self.classes)
        # In eval mode: dropout would draw from the global random state.
        return net.eval().to(  # type: ignore[call-overload]
            self.device, memory_format=training_format(self.device)
        )

    def _finish(self) -> None:
        if not all(p.isfinite().all() for p in self.average.parameters()):
            raise ValueError(
                f"the training of network {len(self.done) + 1} diverged: set a smaller "
                f"labeler.network.lr (found {self.training.lr}), or labeler.network.precision="
                "float32"
            )
        self.done.append(self.average)
        if self.step < self.total:
            self._begin()

    def _report(self, progress: Progress | None) -> None:
        loss, accuracy = (self.sums / (self.step - self.reported)).tolist()
        self.sums.zero_()
        self.reported = self.step
        member = (self.step - 1) // self.training.steps
        self.scores[member:] = [{"train_loss": loss, "train_accuracy": accuracy}]
        if progress is not None:
            accuracies = tuple(score["train_accuracy"] for score in self.scores)
            progress(Report(self.step, self.total, loss, accuracies))

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that the rest of the run depends on: tensors, numbers."""
        parts = {f"done{i}": net.state_dict() for i, net in enumerate(self.done)}
        parts |= {"net": self.net.state_dict(), "average": self.average.state_dict()}
        for i, state in self.optimizer.state_dict()["state"].items():
            parts[f"adam{i}"] = state
        tensors = {f"{part}/{k}": t for part, state in parts.items() for k, t in state.items()}
        return tensors, {"step": self.step, "scores": self.scores}

    def _restore(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        parts: dict[str, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            part, _, name = key.partition("/")
            parts.setdefault(part, {})[name] = tensor
        self.step = self.reported = numbers["step"]
        self.scores = numbers["scores"]
        shape = UNetDescription(self.start.config)
        while state := parts.get(f"done{len(self.done)}"):
            member = self._build(shape, len(self.done)).requires_grad_(False)
            member.load_state_dict(state)
            self.done.append(member)
        self.net.load_state_dict(parts["net"])
        self.average.load_state_dict(parts["average"])
        adam = {}
        for i, parameter in enumerate(self.net.parameters()):
            if f"adam{i}" not in parts:  # a member that has not taken a step
                continue
            adam[i] = parts[f"adam{i}"]
            for name, tensor in adam[i].items():
                if tensor.shape == parameter.shape:  # fused AdamW wants one memory format
                    adam[i][name] = torch.empty_like(parameter).copy_(tensor)
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": adam, "param_groups": groups})
