"""Settings resolved for the data and the machine: steps, precision, loader processes."""

from __future__ import annotations

import math

import torch

from factory_core.device import pick_dtype
from train_seg.config import MAX_LOADERS, MIN_ROUND_STEPS, THEN_LR_FACTOR, SegmenterConfig

LIGHTNING_PRECISIONS = {torch.float32: "32-true", torch.bfloat16: "bf16-mixed"}


def then_config(config: SegmenterConfig, has_datasets: bool) -> SegmenterConfig:
    """The settings of the second stage, as those of a training of its own.

    Without datasets there are no uncertainty maps, by which `ignore_above_quantile` selects pixels,
    and no class probabilities: what a person annotated is certain.
    """
    then = config.then
    return config.model_copy(
        update={
            "max_steps": then.max_steps,
            "lr": then.lr or THEN_LR_FACTOR * config.lr,
            "validate_every": then.validate_every,
            "ignore_above_quantile": config.ignore_above_quantile if has_datasets else None,
            "soft_labels": config.soft_labels and has_datasets,
        }
    )


def total_steps(config: SegmenterConfig, samples: int) -> int:
    """Optimiser steps of a training with this many samples per epoch."""
    return config.max_steps or math.ceil(config.epochs * samples / config.batch_size)


def round_steps(config: SegmenterConfig, samples: int) -> int:
    """Steps between validations: as configured, else an epoch, at least MIN_ROUND_STEPS."""
    return config.validate_every or max(MIN_ROUND_STEPS, math.ceil(samples / config.batch_size))


def is_continuation(
    before: SegmenterConfig, now: SegmenterConfig, samples: int, validates: bool
) -> bool:
    """Whether the training `now` begins with exactly the steps of `before`, a shorter one.

    The two differ in their length only. A schedule that ends with the training makes them differ;
    so does a last validation at a step at which the longer training has none, because it may have
    chosen the weights.
    """
    first, total = total_steps(before, samples), total_steps(now, samples)
    warmups = {warmup_steps(now, steps) for steps in (first, total)}
    if total < first or now.schedule != "constant" or len(warmups) > 1:
        return False
    return not validates or first % round_steps(now, samples) == 0


def warmup_steps(config: SegmenterConfig, total: int) -> int:
    """Steps of linear warm-up in a training of `total` steps."""
    return min(config.warmup_steps, total // 10)


def pick_precision(config: SegmenterConfig, device: torch.device) -> str:
    """Lightning's name of the precision; `auto` is bfloat16 if the hardware multiplies it."""
    return LIGHTNING_PRECISIONS[pick_dtype(config.precision, device)]


def pick_num_workers(config: SegmenterConfig, device: torch.device) -> int:
    """Loader processes; by default enough to keep a GPU busy, and none if the CPU trains."""
    if config.num_workers is not None:
        return config.num_workers
    if device.type == "cpu":
        return 0
    return min(MAX_LOADERS, torch.get_num_threads())  # this process's share of the cores
