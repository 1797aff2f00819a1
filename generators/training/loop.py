"""Training of any kind of generator: batches, checkpoints, sample sheets, resumption.

Batches and everything random in step k are pure functions of (seed, k), so a resumed run repeats
the interrupted one exactly.
"""

from __future__ import annotations

import math
import shutil
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler
from torchvision.utils import save_image

from factory_core.device import pick_device, pick_dtype
from factory_core.storage import TEMPORARY_PREFIX, atomic_path, sweep_temporaries
from generators.base import sample_seed
from generators.colours import save_colours
from generators.training.config import TrainingConfig
from generators.training.folder import (
    CHECKPOINTS,
    LAST_NAME,
    RECORD_NAME,
    TrainingRecord,
    check_readable,
    check_resumable,
    read_record,
)
from generators.training.images import TrainingImages
from generators.training.labels import save_classes

LOG_EVERY = 10  # steps between looks at the loss: each waits for the GPU
GRID_SAMPLES = 16  # a 4 x 4 sheet, from the same noise each time


class StepBatches(Sampler[list[int]]):
    """Index batches of the steps `first` .. `first + steps - 1`, each drawn from (seed, step).

    Consecutive batches walk through one permutation of the data after another.
    """

    def __init__(self, num_images: int, batch_size: int, seed: int, first: int, steps: int):
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.first, self.steps = first, steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        orders: dict[int, list[int]] = {}
        for step in range(self.first, self.first + self.steps):
            batch = []
            for draw in range(step * self.batch_size, (step + 1) * self.batch_size):
                epoch, position = divmod(draw, self.num_images)
                if epoch not in orders:
                    rng = torch.Generator().manual_seed(sample_seed(self.seed, epoch))
                    orders = {epoch: torch.randperm(self.num_images, generator=rng).tolist()}
                batch.append(orders[epoch][position])
            yield batch


class GeneratorTraining(lightning.LightningModule):
    """Trains a generator and keeps a moving average of it, `ema`, which is finally written.

    Every `checkpoint_every` steps are one Lightning epoch.
    """

    ema: nn.Module

    def __init__(self, config: TrainingConfig, images: TrainingImages):
        super().__init__()
        self.config, self.images = config, images
        self.started: tuple[float, int] | None = None
        self.seconds_before = 0.0  # of earlier sessions of a resumed training

    @abstractmethod
    def sample_grid(self) -> Tensor:
        """Samples of the EMA network, float `[3, H, W]` in [0, 1]."""

    @abstractmethod
    def write(self, out: Path) -> None:
        """Save the EMA network into `out` in the format that `generators.load` reads."""

    def train_dataloader(self) -> DataLoader:
        """The next `checkpoint_every` steps; reloaded each Lightning epoch, so it resumes."""
        config, first = self.config, self.global_step
        steps = min(config.checkpoint_every, config.steps - first)
        batches = StepBatches(len(self.images), config.batch_size, config.seed, first, steps)
        return DataLoader(self.images, batch_sampler=batches)

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        """Leave images on the CPU, where they are augmented."""
        return batch

    def show(self, step: int, **metrics: Tensor | float) -> None:
        """Log `metrics` and the speed of step `step` (from 0), every LOG_EVERY steps."""
        images_per_sec = self.images_per_sec()
        if (step + 1) % LOG_EVERY == 0 or step in (0, self.config.steps - 1):
            shown = {**metrics, "images/s": images_per_sec}
            # On the CPU: Lightning reads what is in its progress bar again at every step.
            self.log_dict({k: torch.tensor(float(v)) for k, v in shown.items()}, prog_bar=True)

    @property
    def seconds(self) -> float:
        """Time spent in training steps, earlier sessions included."""
        now = 0.0 if self.started is None else time.perf_counter() - self.started[0]
        return self.seconds_before + now

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["seconds"] = self.seconds

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.seconds_before = checkpoint["seconds"]

    def images_per_sec(self) -> float:
        """Mean over this session; call it once per step."""
        if self.started is None:
            self.started = (time.perf_counter(), self.global_step)
            return 0.0
        began, first = self.started
        return (self.global_step - first) * self.config.batch_size / (time.perf_counter() - began)


class KeepLast(Checkpoint):
    """Replaces the checkpoint atomically after each Lightning epoch."""

    def __init__(self, path: Path):
        self.path = path

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        if not all(p.isfinite().all() for p in module.ema.parameters()):
            raise ValueError(
                f"the training diverged before step {trainer.global_step}: the weights are not "
                f"finite; set a smaller lr (found {module.config.lr}) and another --out"
            )
        with atomic_path(self.path) as temporary:
            trainer.save_checkpoint(temporary, weights_only=False)


class SampleGrids(Callback):
    """Writes a sheet of samples as PNG and to TensorBoard every `every` steps."""

    def __init__(self, folder: Path, every: int):
        self.folder, self.every = folder, every

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        step = trainer.global_step
        if step % self.every and step != module.config.steps:
            return
        grid = module.sample_grid()
        self.folder.mkdir(parents=True, exist_ok=True)
        save_image(grid, self.folder / f"step_{step:06d}.png")
        if trainer.logger is not None:
            trainer.logger.experiment.add_image("samples", grid, step)


def scheduled(optimizer: torch.optim.Optimizer, factor: Callable[[int], float]) -> Any:
    """For `configure_optimizers`: step s, counted from 0, has factor(s) times the learning rate."""
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def warm_cosine(warmup_steps: int, steps: int) -> Callable[[int], float]:
    """Factor of the learning rate at a step: a linear rise, then half a cosine to zero."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        rest = max(1, steps - warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / rest))

    return factor


def run(
    build: Callable[[], GeneratorTraining],
    config: TrainingConfig,
    images: TrainingImages,
    out: Path,
    init: str | None,
    device: str = "auto",
    progress: list[Callback] | None = None,
    autocast: bool = True,
    **trainer_settings: Any,
) -> None:
    """Train the module that `build` returns on `images` and write the generator into `out`.

    `out` also gets `samples/*.png`, TensorBoard `logs/`, `checkpoints/` and `training.json`
    (settings, `init`, digests of the images, seconds). An interrupted run in `out` is resumed, a
    finished one left unchanged. Raises ValueError if `out` holds a training with other settings or
    images, or a damaged file.

    With `autocast`, the network computes in `config.precision`; otherwise the module sees to that.
    """
    record_file, last = out / RECORD_NAME, out / CHECKPOINTS / LAST_NAME
    classes = {"classes": list(images.classes)} if images.classes else {}
    record = TrainingRecord(
        config=config.model_dump(mode="json"),
        provenance={"init": init, "images": len(images), **classes},
        images=dict(images.digests),
    )
    if last.is_file() and record_file.is_file():
        found = read_record(out)
        check_resumable(found, record, out, config.changeable)
        if found.steps >= config.steps:
            return
        check_readable(last)
    module, where = build(), pick_device(device)  # nothing is written if that fails
    last.parent.mkdir(parents=True, exist_ok=True)
    sweep_temporaries(last.parent)
    for unfinished in out.glob(f"{TEMPORARY_PREFIX}*"):  # of a killed `write`
        shutil.rmtree(unfinished, ignore_errors=True)
    record.save(record_file)
    is_mixed = autocast and pick_dtype(config.precision, where) is torch.bfloat16
    trainer = lightning.Trainer(
        accelerator={"cuda": "gpu"}.get(where.type, where.type),
        devices=[where.index] if where.index is not None else 1,
        max_steps=config.steps,
        reload_dataloaders_every_n_epochs=1,
        callbacks=[
            KeepLast(last),
            SampleGrids(out / "samples", config.preview_every),
            *(progress or []),
        ],
        logger=TensorBoardLogger(out, name="logs", version=""),
        log_every_n_steps=LOG_EVERY,
        enable_model_summary=False,
        enable_progress_bar=False,
        precision="bf16-mixed" if is_mixed else "32-true",
        **trainer_settings,
    )
    try:
        trainer.fit(module, ckpt_path=last if last.is_file() else None, weights_only=True)
    except SystemExit:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from None
    save_colours(out, images.is_grey)
    save_classes(out, images.classes)
    module.write(out)
    finished = {"steps": trainer.global_step, "seconds": round(module.seconds, 1)}
    record.model_copy(update=finished).save(record_file)
