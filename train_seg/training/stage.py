"""One stage of a training: its data, its settings, and the Lightning run over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.environments import ClusterEnvironment
from lightning.pytorch.strategies import Strategy
from torch.utils.data import DataLoader, TensorDataset

from factory_core.device import pick_device
from train_seg.config import SegmenterConfig
from train_seg.data.training_data import LabeledImages, Rounds, TrainingData
from train_seg.network.network import Network
from train_seg.training.folder import CHECKPOINTS_DIRS, last_checkpoint
from train_seg.training.module import LOG_EVERY, KeepLast, Place, SegmenterModule, Skips
from train_seg.training.panel import PANELS_DIR, Panels
from train_seg.training.parallel import barrier, rank, world_size
from train_seg.training.plan import pick_precision, round_steps, total_steps


@dataclass(frozen=True)
class Together:
    """How Lightning joins this process with others that call `train` with the same arguments.

    Their process group already exists, and all of them see the same `out` and data. Each stage
    makes its own `strategy` and `environment`.
    """

    strategy: Callable[[], Strategy]
    environment: Callable[[], ClusterEnvironment]


@dataclass(frozen=True)
class Stage:
    """What a stage trains on, and its settings as those of a training of its own."""

    data: TrainingData
    config: SegmenterConfig

    @property
    def steps(self) -> int:
        """Its optimiser steps."""
        return total_steps(self.config, self.data.source.samples)


@dataclass(frozen=True)
class Runner:
    """What all stages of a training have in common."""

    out: Path
    palette: Sequence[Sequence[int]]
    val: LabeledImages | None
    device: str
    callbacks: Sequence[Callback]
    together: Together | None

    def fit(
        self, stage: Stage, network: Network, place: Place, loggers: list[Logger]
    ) -> SegmenterModule:
        """Train `network`, or resume from the stage's last checkpoint.

        The module has the result; its best weights are not restored yet. Raises ValueError if the
        training diverges or the data are damaged.
        """
        config, data = stage.config, stage.data
        checkpoints = self.out / CHECKPOINTS_DIRS[place.stage - 1]
        module = SegmenterModule(network, config, data.classes, stage.steps, checkpoints, place)
        shown = None if self.val is None else (self.val.images, self.val.masks)
        panels = Panels(self.out / PANELS_DIR, data.classes, self.palette, shown)
        callbacks = [Skips(data.source), KeepLast(), panels, *self.callbacks]
        trainer = self._trainer(config, stage.steps, loggers, callbacks)
        rounds = Rounds(
            data.source,
            config.batch_size,
            round_steps(config, data.source.samples),
            stage.steps,
            lambda: trainer.global_step,
            rank(),
            world_size(),
        )
        last = last_checkpoint(checkpoints)
        barrier()  # all look for it before one writes the next
        try:
            trainer.fit(module, rounds, self._val_loader(config), ckpt_path=last, weights_only=True)
        except SystemExit:  # Lightning's answer to Ctrl-C
            raise KeyboardInterrupt from None
        barrier()  # the first process has written the best weights
        return module

    def _trainer(
        self, config: SegmenterConfig, steps: int, loggers: list[Logger], callbacks: list[Callback]
    ) -> lightning.Trainer:
        where = pick_device(self.device)
        return lightning.Trainer(
            accelerator="gpu" if where.type == "cuda" else where.type,
            precision=pick_precision(config, where),  # type: ignore[arg-type]
            max_steps=steps,
            limit_val_batches=0.0 if self.val is None else 1.0,
            num_sanity_val_steps=0,
            log_every_n_steps=LOG_EVERY,
            logger=loggers,
            callbacks=callbacks,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,  # each process reads its own rows
            **self._devices(),
        )

    def _devices(self) -> dict[str, Any]:
        """Lightning's settings for one device, or for one process of several."""
        if self.together is not None:
            return {
                "devices": "auto",
                "strategy": self.together.strategy(),
                "plugins": [self.together.environment()],
            }
        where = pick_device(self.device)
        return {"devices": 1 if where.index is None else [where.index]}

    def _val_loader(self, config: SegmenterConfig) -> DataLoader | None:
        """This process's rows of the validation images."""
        if self.val is None:
            return None
        rows = slice(rank(), None, world_size())
        pairs = TensorDataset(self.val.images[rows], self.val.masks[rows])
        return DataLoader(pairs, batch_size=config.batch_size)
