"""Training a segmenter: from dataset folders to a folder that `Segmenter.load` reads.

OUT/model.safetensors, model.json   the segmenter, written at the end
    training.json                   settings and digests: what a resumption must agree with
    checkpoints/                    last.ckpt, best.safetensors
    curves.csv, tensorboard/        loss and mIoU over the steps
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import pickle
import shutil
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader, TensorDataset

from factory.dataset import sweep_temporaries, write_json
from train_seg.augment import Augment
from train_seg.config import SegmenterConfig
from train_seg.data import LabeledImages, Rounds, TrainingData, open_training_data
from train_seg.model import ABOUT_NAME, Segmenter, build, pick_device
from train_seg.module import LAST_NAME, LOG_EVERY, KeepLast, SegmenterModule
from train_seg.samples import check_ids

TRAINING_NAME = "training.json"
CHECKPOINTS_DIR = "checkpoints"
DAMAGE = (  # what zipfile and torch make of an archive with wrong bytes
    zipfile.BadZipFile,
    pickle.UnpicklingError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    ValueError,
)
MIN_ROUND_STEPS = 50  # a handful of images has epochs too short to validate after each


def train(
    data: Sequence[str | Path | LabeledImages],
    out: str | Path,
    config: SegmenterConfig,
    val: LabeledImages | None = None,
    *,
    device: str = "auto",
    callbacks: Sequence[Callback] = (),
) -> Segmenter:
    """Train on dataset folders and annotated images, joined; write the result to `out`.

    With `val` the weights of the best validation mIoU are kept, else the last. A run that was
    interrupted goes on from its last checkpoint and ends with the weights that an undisturbed one
    gives. `callbacks` watch (a progress bar): they find `loss`, `images/s` and `miou` among
    Lightning's progress bar metrics.

    Raises:
        FileNotFoundError: a dataset or one of its shards is missing.
        ValueError: the data are damaged or disagree, the encoder cannot be built, `out` holds
            a training with other settings or data or a damaged one, or the training diverged.
    """
    training_data = open_training_data(
        data,
        lambda size: Augment(config.augment, size),
        config.image_size,
        config.seed,
        config.num_workers,
        config.shuffle_buffer,
        config.ignore_above_quantile,
    )
    if val is not None:
        _check_validation(val, training_data.classes)
    with _quiet(), torch.random.fork_rng():
        return _train(training_data, Path(out), config, val, device, callbacks)


def total_steps(config: SegmenterConfig, samples: int) -> int:
    """Optimiser steps of a training on so many samples an epoch."""
    return config.max_steps or math.ceil(config.epochs * samples / config.batch_size)


def round_steps(config: SegmenterConfig, samples: int) -> int:
    """Steps between validations: as configured, or an epoch, at least MIN_ROUND_STEPS."""
    return config.validate_every or max(MIN_ROUND_STEPS, math.ceil(samples / config.batch_size))


def pick_precision(config: SegmenterConfig, device: torch.device) -> str:
    """Lightning's name of the precision; `auto` is bfloat16 where the hardware multiplies it.

    A CPU without the instructions emulates bfloat16, ten times slower than float32.
    """
    if config.precision != "auto":
        return {"float32": "32-true", "bfloat16": "bf16-mixed"}[config.precision]
    if device.type == "cuda":
        return "bf16-mixed" if torch.cuda.get_device_capability(device) >= (8, 0) else "32-true"
    if device.type == "cpu":
        # Private functions of torch: absent in some builds, which then count as without.
        probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        if any(getattr(torch.cpu, name, lambda: False)() for name in probes):
            return "bf16-mixed"
    return "32-true"


def _train(
    data: TrainingData,
    out: Path,
    config: SegmenterConfig,
    val: LabeledImages | None,
    device: str,
    callbacks: Sequence[Callback],
) -> Segmenter:
    torch.manual_seed(config.seed)
    network = build(config, len(data.classes), data.image_size)
    identity = _identity(data, config, val)
    checkpoint = _prepare_folder(out, identity)
    samples = data.source.samples
    total, steps = total_steps(config, samples), round_steps(config, samples)
    module = SegmenterModule(network, config, data.classes, total, out / CHECKPOINTS_DIR)
    where = pick_device(device)
    trainer = lightning.Trainer(
        accelerator="gpu" if where.type == "cuda" else where.type,
        devices=[where.index] if where.index is not None else 1,
        precision=pick_precision(config, where),  # type: ignore[arg-type]
        max_steps=total,
        limit_val_batches=0.0 if val is None else 1.0,
        num_sanity_val_steps=0,
        log_every_n_steps=LOG_EVERY,
        logger=TensorBoardLogger(out, name="", version="tensorboard"),
        callbacks=[KeepLast(), *callbacks],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    rounds = Rounds(data.source, config.batch_size, steps, total, lambda: trainer.global_step)
    loader = None
    if val is not None:
        loader = DataLoader(TensorDataset(val.images, val.masks), batch_size=config.batch_size)
    try:
        trainer.fit(module, rounds, loader, ckpt_path=checkpoint, weights_only=True)
    except SystemExit:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from None
    network = module.restore_best().to(where)
    module.to(where).check_weights()
    segmenter = Segmenter.create(
        network,
        config,
        data.classes,
        data.palette,
        data.image_size,
        data.digest,
        module.best,
    )
    segmenter.save(out)
    return segmenter


def _check_validation(val: LabeledImages, classes: Sequence[str]) -> None:
    if list(val.classes) != list(classes):
        raise ValueError(
            f"{val.name} has the classes {', '.join(val.classes)}, the training data "
            f"{', '.join(classes)}: they must agree in names and order"
        )
    check_ids(val.masks, len(classes), val.name)


def _identity(
    data: TrainingData, config: SegmenterConfig, val: LabeledImages | None
) -> dict[str, Any]:
    """What decides the result, apart from the machine; `num_workers` orders the samples."""
    identity = {**config.model_dump(mode="json"), "data": data.digest, "validation": None}
    if val is not None:
        identity["validation"] = _digest(val)
    return identity


def _digest(val: LabeledImages) -> str:
    h = hashlib.sha256(val.images.numpy().tobytes())
    h.update(val.masks.numpy().tobytes())
    return h.hexdigest()


def _prepare_folder(out: Path, identity: dict[str, Any]) -> Path | None:
    """Make `out` ready and return the checkpoint to go on from, if there is one."""
    record, checkpoints = out / TRAINING_NAME, out / CHECKPOINTS_DIR
    last = checkpoints / LAST_NAME
    # A training that failed before its first checkpoint leaves nothing that binds the next one.
    if record.is_file() and (last.is_file() or (out / ABOUT_NAME).is_file()):
        _check_same(record, identity)
        _check_archive(last)
    elif checkpoints.is_dir():
        shutil.rmtree(checkpoints)
    checkpoints.mkdir(parents=True, exist_ok=True)
    for folder in (out, checkpoints):
        sweep_temporaries(folder)
    write_json(record, identity)
    return last if last.is_file() else None


def _check_same(record: Path, identity: dict[str, Any]) -> None:
    """Refuse to go on with other settings or data than those of `record`."""
    try:
        found = dict(json.loads(record.read_bytes()))
    except (ValueError, TypeError):
        raise ValueError(f"{record} is damaged: delete it to start anew") from None
    names = {"data": "other data", "validation": "other validation data"}
    differing = [
        names.get(key) or f"{key} ({found.get(key)}, now {value})"
        for key, value in identity.items()
        if found.get(key) != value
    ]
    if differing:
        raise ValueError(
            f"{record.parent} holds another training: {', '.join(differing)}; use another --out"
        )


def _check_archive(last: Path) -> None:
    """Refuse a damaged checkpoint: a zip archive, whose checksums torch does not look at."""
    if not last.is_file():
        return
    with open(last, "rb") as file:  # outside: a file that may not be read is not damaged
        try:
            damaged = zipfile.ZipFile(file).testzip() is not None
            torch.load(last, map_location="cpu", weights_only=True, mmap=True)
        except DAMAGE:
            damaged = True
    if damaged:
        raise ValueError(f"{last} is damaged: delete it to start anew")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's tips and the warnings of libraries about each other."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(lightning|torch|webdataset|timm)(\.|$)")
            yield
    finally:
        logger.setLevel(level)
