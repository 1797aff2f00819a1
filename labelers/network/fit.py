"""Training of a labeler whose members are segmentation networks.

Each starts from the same U-Net, that of the generator, with its own last convolution, and learns
from all annotated images: random flips and turns, a little Gaussian noise, cross-entropy and Dice
loss, averaged weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from factory_core.images import IGNORE
from factory_core.segmentation_unet import UNetDescription
from labelers.config import LabelerConfig, NetworkTraining
from labelers.labeler import GeneratorInfo, Labeler, LabelerInfo
from labelers.network.networks import Networks
from labelers.network.trainer import NetworkTrainer
from labelers.training.budget import Budget
from labelers.training.pixel_order import training_pixels
from labelers.training.trainer import Progress


def fit_network(
    images: torch.Tensor,
    masks: torch.Tensor,
    start: UNetDescription,
    config: LabelerConfig,
    *,
    classes: Sequence[str],
    generator: GeneratorInfo,
    data_digest: str,
    palette: list[list[int]] | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> Labeler:
    """Train a labeler of kind `network` on N annotated images.

    `images` uint8 `[N, 3, H, W]`, `masks` uint8 `[N, H, W]`, 255 = ignore. Networks compute in
    `dtype`; weights stay float32. With a file `checkpoint`, an interrupted training resumes from it
    and ends with the same weights. For one kind of device and number of threads, the result depends
    on the arguments alone. Raises ValueError if masks and images do not match, if the masks leave
    fewer than two classes, if a training diverges, or if the checkpoint belongs to a different
    training.
    """
    trainer = network_trainer(images, masks, start, config, len(classes), device, dtype)
    info = LabelerInfo(
        classes=list(classes),
        palette=palette,
        # Tuples become lists, as in the file.
        unet=json.loads(json.dumps(trainer.net.config)),
        generator=generator,
        image_size=(masks.shape[1], masks.shape[2]),
        data_digest=data_digest,
        config=config.model_copy(update={"kind": "network"}),
    )
    scores = trainer.train(progress, checkpoint, _digest(info, trainer))
    networks = Networks(trainer.done)
    return Labeler(None, info.model_copy(update={"scores": scores}), networks=networks)


def network_trainer(
    images: torch.Tensor,
    masks: torch.Tensor,
    start: UNetDescription,
    config: LabelerConfig,
    classes: int,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> NetworkTrainer:
    """The trainer of `fit_network`, before its first step; errors as there."""
    if len(masks) != len(images):
        raise ValueError(f"{len(masks)} masks for {len(images)} images")
    return NetworkTrainer(
        start,
        classes,
        config.network,
        config.seed,
        _learnable(images, masks, classes, config.min_class_pixels),
        torch.device(device),
        dtype,
        is_balanced=config.class_weights == "balanced",
    )


def network_budget(start: UNetDescription, config: NetworkTraining) -> Budget:
    """The disk and memory of `fit_network`, activations left out."""
    weights = sum(tensor.numel() for tensor in start.weights.values())
    # float32 weights, gradients, Adam's two moments, average; and the members that are finished.
    return Budget(
        features_bytes=0,
        checkpoint_bytes=4 * weights * (4 + config.members),
        working_bytes=4 * weights * (5 + config.members),
        weights=weights * config.members,
    )


def _learnable(
    images: torch.Tensor, masks: torch.Tensor, classes: int, min_class_pixels: int
) -> torch.Tensor:
    """Images and masks as `[N, 4, H, W]`, without images that have nothing to learn from.

    Pixels that `training_pixels` leaves out become 255. Raises ValueError as it does.
    """
    pixels = training_pixels(masks, classes, min_class_pixels)
    kept = torch.full_like(masks, IGNORE, device="cpu")
    kept.view(-1)[pixels] = masks.cpu().flatten()[pixels]
    rows = (kept != IGNORE).any((1, 2))
    return torch.cat([images.cpu(), kept[:, None]], 1)[rows]


def _digest(info: LabelerInfo, trainer: NetworkTrainer) -> str:
    """sha256 of everything that the training depends on."""
    about = [info.model_dump(mode="json"), str(trainer.dtype)]
    h = hashlib.sha256(json.dumps(about).encode())
    h.update(trainer.pairs.numpy().tobytes())
    for name, tensor in sorted(trainer.start.weights.items()):
        h.update(name.encode())
        h.update(tensor.contiguous().numpy().tobytes())
    return h.hexdigest()
