"""Training a segmenter: from dataset folders to a folder that `Segmenter.load` reads.

OUT/model.safetensors, model.json   the segmenter, written at the end
    training.json                   settings and digests, which a resumed run must share
    checkpoints/                    last.ckpt, best.safetensors
    curves.csv, curves.png, tensorboard/        loss and mIoU over the steps
    panels/                         images, truth and predictions after each round
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.plugins.environments import ClusterEnvironment
from lightning.pytorch.strategies import Strategy
from torch.utils.data import DataLoader, TensorDataset

from factory_core.dataset import default_palette
from factory_core.device import pick_device
from train_seg.config import SegmenterConfig
from train_seg.data.augment import Augment
from train_seg.data.samples import check_ids
from train_seg.data.training_data import LabeledImages, Rounds, TrainingData, open_training_data
from train_seg.network.network import build, check_sizes
from train_seg.network.pretrained import settle_encoder_weights
from train_seg.network.segmenter import Segmenter
from train_seg.training.curves import write_plot
from train_seg.training.folder import CHECKPOINTS_DIR, last_checkpoint, prepare_folder
from train_seg.training.module import LOG_EVERY, KeepLast, SegmenterModule, Skips
from train_seg.training.panel import PANELS_DIR, Panels
from train_seg.training.parallel import barrier, rank, synchronise, world_size
from train_seg.training.plan import pick_num_workers, pick_precision, round_steps, total_steps


@dataclass(frozen=True)
class Together:
    """How Lightning joins this process with others that call `train` with the same arguments.

    Their process group already exists, and all of them see the same `out` and data.
    """

    strategy: Strategy
    environment: ClusterEnvironment


def train(
    data: Sequence[str | Path | LabeledImages],
    out: str | Path,
    config: SegmenterConfig,
    val: LabeledImages | None = None,
    *,
    mix: Sequence[float] | None = None,
    device: str = "auto",
    wandb: bool = False,
    callbacks: Sequence[Callback] = (),
    together: Together | None = None,
) -> Segmenter:
    """Train on dataset folders and annotated images together; write the result to `out`.

    With `val`, the weights of the best validation mIoU are kept, else the last ones. An
    interrupted run resumes from its last checkpoint and ends with the same weights as an
    uninterrupted one. `mix` is the share of each of `data` in the samples; without it, each sample
    comes once per epoch. `callbacks` watch (a progress bar): they find `loss`, `images/s` and
    `miou` among Lightning's progress bar metrics.

    Raises:
        FileNotFoundError: a dataset or one of its shards is missing.
        ImportError: `wandb` is set, but the package is not installed.
        ValueError: the data are damaged or disagree, the network cannot be built, `out` holds
            a training that is damaged or has other settings or data, or the training diverged.
    """
    config = settle_encoder_weights(config)
    num_workers = pick_num_workers(config, pick_device(device))
    training_data = open_segmenter_data(data, config, val, mix, num_workers)
    with _quiet(), torch.random.fork_rng():
        job = _Job(training_data, Path(out), config, val, mix, device)
        return job.run(_loggers(Path(out), wandb), callbacks, together)


def open_segmenter_data(
    data: Sequence[str | Path | LabeledImages],
    config: SegmenterConfig,
    val: LabeledImages | None,
    mix: Sequence[float] | None,
    num_workers: int = 0,
) -> TrainingData:
    """The data that `train` trains on, with the same checks and errors."""
    training_data = open_training_data(
        data,
        lambda size: Augment(config.augment, size),
        config.image_size,
        config.seed,
        num_workers,
        config.shuffle_buffer,
        config.ignore_above_quantile,
        mix=mix,
        skip_damaged=config.skip_damaged,
        soft_labels=config.soft_labels,
    )
    if val is not None:
        _check_validation(val, training_data.classes)
    elif config.patience is not None:
        raise ValueError("patience counts validations: also give --val, or leave it out")
    return training_data


@dataclass(frozen=True)
class _Job:
    """The arguments of `train`, checked."""

    data: TrainingData
    out: Path
    config: SegmenterConfig
    val: LabeledImages | None
    mix: Sequence[float] | None
    device: str

    def run(
        self, loggers: list[Logger], callbacks: Sequence[Callback], together: Together | None
    ) -> Segmenter:
        config, data, where = self.config, self.data, pick_device(self.device)
        torch.manual_seed(config.seed)
        network = build(config, len(data.classes), data.image_size)
        check_sizes(network, data.image_size)
        synchronise(network, where)
        palette = data.palette or default_palette(len(data.classes))
        if rank() == 0:
            prepare_folder(self.out, self._identity())
        barrier()
        samples = data.source.samples
        total, steps = total_steps(config, samples), round_steps(config, samples)
        module = SegmenterModule(network, config, data.classes, total, self.out / CHECKPOINTS_DIR)
        shown = None if self.val is None else (self.val.images, self.val.masks)
        panels = Panels(self.out / PANELS_DIR, data.classes, palette, shown)
        trainer = self._trainer(
            total, loggers, [Skips(data.source), KeepLast(), panels, *callbacks], together
        )
        rounds = Rounds(
            data.source,
            config.batch_size,
            steps,
            total,
            lambda: trainer.global_step,
            rank(),
            world_size(),
        )
        checkpoint = last_checkpoint(self.out)
        try:
            trainer.fit(module, rounds, self._val_loader(), ckpt_path=checkpoint, weights_only=True)
        except SystemExit:  # Lightning's answer to Ctrl-C
            raise KeyboardInterrupt from None
        network = module.restore_best().to(where)
        module.to(where).check_weights()
        segmenter = Segmenter.create(
            network,
            config,
            data.classes,
            palette,
            data.image_size,
            data.digest,
            module.best,
            dict(data.source.skipped),
        )
        if rank() == 0:
            segmenter.save(self.out)
            write_plot(self.out, module.history)
        return segmenter

    def _trainer(
        self,
        steps: int,
        loggers: list[Logger],
        callbacks: list[Callback],
        together: Together | None,
    ) -> lightning.Trainer:
        where = pick_device(self.device)
        return lightning.Trainer(
            accelerator="gpu" if where.type == "cuda" else where.type,
            precision=pick_precision(self.config, where),  # type: ignore[arg-type]
            max_steps=steps,
            limit_val_batches=0.0 if self.val is None else 1.0,
            num_sanity_val_steps=0,
            log_every_n_steps=LOG_EVERY,
            logger=loggers,
            callbacks=callbacks,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,  # each process reads its own rows
            **_devices(where, together),
        )

    def _val_loader(self) -> DataLoader | None:
        """This process's rows of the validation images."""
        if self.val is None:
            return None
        rows = slice(rank(), None, world_size())
        pairs = TensorDataset(self.val.images[rows], self.val.masks[rows])
        return DataLoader(pairs, batch_size=self.config.batch_size)

    def _identity(self) -> dict[str, Any]:
        """What determines the result, apart from the machine and the number of processes."""
        return {
            **self.config.model_dump(mode="json", exclude={"num_workers"}),
            "data": self.data.digest,
            "mix": None if self.mix is None else list(self.mix),
            "validation": None if self.val is None else _digest(self.val),
        }


def _devices(device: torch.device, together: Together | None) -> dict[str, Any]:
    """Lightning's settings for one device, or for one process of several."""
    if together is not None:
        return {
            "devices": "auto",
            "strategy": together.strategy,
            "plugins": [together.environment],
        }
    return {"devices": 1 if device.index is None else [device.index]}


def _loggers(out: Path, wandb: bool) -> list[Logger]:
    loggers: list[Logger] = [TensorBoardLogger(out, name="", version="tensorboard")]
    if wandb:
        if find_spec("wandb") is None:
            raise ImportError(
                "--wandb needs Weights & Biases: pip install 'dataset-factory[wandb]'"
            )
        if rank() == 0:
            loggers.append(WandbLogger(name=out.name, save_dir=out, project="dataset-factory"))
    return loggers


def _check_validation(val: LabeledImages, classes: Sequence[str]) -> None:
    if list(val.classes) != list(classes):
        raise ValueError(
            f"{val.name} has the classes {', '.join(val.classes)}, the training data "
            f"{', '.join(classes)}: they must agree in names and order"
        )
    check_ids(val.masks, len(classes), val.name)


def _digest(val: LabeledImages) -> str:
    h = hashlib.sha256(val.images.numpy().tobytes())
    h.update(val.masks.numpy().tobytes())
    return h.hexdigest()


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress Lightning's tips and the warnings of libraries about each other."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(lightning|torch|webdataset|timm)(\.|$)")
            yield
    finally:
        logger.setLevel(level)
