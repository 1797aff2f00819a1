"""The segmenters of a comparison: their settings, and training them once per split."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from factory.verdict.labels import levels_of
from factory.verdict.settings import CompareConfig
from factory_core.device import pick_dtype
from factory_core.segmentation_unet import UNetDescription
from train_seg.config import INFERENCE_BATCH_SIZE, PRESETS, SegmenterConfig
from train_seg.data.training_data import LabeledImages
from train_seg.network.segmenter import INFO_NAME, WEIGHTS_NAME, Segmenter
from train_seg.training.train import train

STRONG = {"scale": [0.5, 1.0], "brightness": 0.2, "contrast": 0.2, "saturation": 0.1}
DEEPLAB = {"encoder": "resnet18", "encoder_weights": None, "averaged": True}


def augmentation(config: CompareConfig, size: tuple[int, int], is_strong: bool) -> dict[str, Any]:
    """Flips, and turns of square images, unless they have a top; `is_strong` adds more."""
    light = {
        "horizontal_flip": True,
        "vertical_flip": not config.upright,
        "quarter_turns": not config.upright and size[0] == size[1],
        "noise": PRESETS["unet"]["augment"]["noise"],
    }
    return light | (STRONG if is_strong else {})


def unet_settings(
    config: CompareConfig, size: tuple[int, int], seed: int, steps: int, is_strong: bool = False
) -> SegmenterConfig:
    """The small U-Net (preset `unet`), from a random start."""
    return SegmenterConfig.model_validate(
        PRESETS["unet"]
        | _common(config, seed, steps)
        | {"augment": augmentation(config, size, is_strong)}
    )


def deeplab_settings(
    config: CompareConfig, size: tuple[int, int], seed: int, steps: int, **changes: Any
) -> SegmenterConfig:
    """DeepLabV3 on a small ResNet (preset `modern`); `is_strong` and other settings may change."""
    is_strong = changes.pop("is_strong", False)
    return SegmenterConfig.model_validate(
        PRESETS["modern"]
        | DEEPLAB
        | _common(config, seed, steps)
        | {"augment": augmentation(config, size, is_strong)}
        | changes
    )


def finishing(config: CompareConfig, first: SegmenterConfig) -> SegmenterConfig:
    """The settings of a second stage, on the annotated images, after those of the first."""
    changes = {
        "max_steps": config.finish_steps,
        "validate_every": config.finish_steps,
        "lr": config.finish_lr,
        "soft_labels": False,  # what a person drew is certain
    }
    return first.model_copy(update=changes)


def _common(config: CompareConfig, seed: int, steps: int) -> dict[str, Any]:
    return {
        "batch_size": config.batch_size,
        "max_steps": steps,
        "validate_every": steps,
        "lr": config.lr,
        "seed": seed,
    }


def train_once(
    folder: Path,
    data: Sequence[LabeledImages],
    settings: SegmenterConfig,
    init: Segmenter | UNetDescription | None = None,
    mix: Sequence[float] | None = None,
    device: str = "auto",
) -> Segmenter:
    """The segmenter of `folder`, trained if it is not there; only its own two files are kept.

    An interrupted training resumes.
    """
    if not (folder / INFO_NAME).is_file():
        train(data, folder, settings, mix=mix, init=init, device=device)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in (INFO_NAME, WEIGHTS_NAME):
            path.unlink()
    return Segmenter.load(folder, device)


@torch.inference_mode()
def levels_by(segmenter: Segmenter, images: torch.Tensor) -> torch.Tensor:
    """Levels uint8 `[N, K, H, W]` of the class probabilities of images uint8 `[N, 3, H, W]`.

    In bfloat16 where the device multiplies it: probabilities are rounded to 1/255 anyway.
    """
    network = segmenter.network.eval()
    device = next(network.parameters()).device
    dtype = pick_dtype("auto", device)
    parts = []
    for batch in images.split(INFERENCE_BATCH_SIZE):
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = network(batch.to(device)).float()
        parts.append(levels_of(logits.softmax(1).cpu()))
    return torch.cat(parts)
