"""Training of a labeler: all members at once, on pixels gathered from native-size maps.

`reference` training is that of the DDPM paper's code: Adam, cross-entropy on small batches, a few
epochs at least, then a stop once many batches in a row do not beat the best single-batch loss.
`fast` training takes few steps on large batches of normalised features, at a learning rate that
falls to zero. Members differ in their initial weights and their order of pixels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from generators.base import FeatureMaps
from labelers.config import FastTraining, LabelerConfig
from labelers.ensemble.classifiers import Ensemble, MemberLinear, channel_last
from labelers.labeler import GeneratorInfo, Labeler, LabelerInfo
from labelers.training.feature_store import FeatureTables
from labelers.training.loss import PixelLoss, balanced_weights, check_etf, simplex_etf
from labelers.training.pixel_features import Normalisation, PixelReader
from labelers.training.pixel_order import PixelOrders, training_pixels
from labelers.training.trainer import Data, Progress, Trainer

NORMALISATION_PIXELS = 4096  # from which mean and variance of the channels are estimated


def fit(
    features: FeatureMaps | FeatureTables,
    masks: torch.Tensor,
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
    """Train a labeler on the features of N annotated images.

    `masks` uint8 `[N, H, W]`, 255 = ignore. The first layer's products are computed in `dtype`.
    With a file `checkpoint`, an interrupted training resumes from it and ends with the same
    weights. For one kind of device and number of threads, the result depends on the arguments
    alone. Raises ValueError if masks and features do not match, if the masks leave fewer than two
    classes, or if the checkpoint belongs to a different training.
    """
    if len(masks) != features.batch_size:
        raise ValueError(f"{len(masks)} masks for features of {features.batch_size} images")
    pixels = check(masks, len(classes), config)
    size = (masks.shape[1], masks.shape[2])
    info = LabelerInfo(
        classes=list(classes),
        palette=palette,
        features=features.spec,
        generator=generator,
        image_size=size,
        data_digest=data_digest,
        config=config,
    )
    rng = torch.Generator().manual_seed(config.seed)
    hidden = config.hidden_for(len(classes))
    ensemble = Ensemble(features.spec, len(classes), hidden, config.members, rng).to(device)
    if isinstance(features, FeatureMaps):
        tables = channel_last(features, ensemble.groups)
    else:
        tables = features.tables()
    reader = PixelReader({native: table.to(device) for native, table in tables.items()}, size)
    labels = masks.to(device).flatten()
    normalisation = None
    if isinstance(config.training, FastTraining):
        chosen = pixels[torch.randperm(len(pixels), generator=rng)[:NORMALISATION_PIXELS]]
        normalisation = reader.normalisation(chosen.to(device))
    orders = PixelOrders(pixels, config.members, config.training.batch_pixels, config.seed)
    data = Data(reader, labels, orders, normalisation)
    loss = _loss(config, labels[pixels.to(device)], len(classes), hidden[-1], rng)
    trainer = Trainer(ensemble, config.training, data, loss, dtype)
    scores = trainer.train(progress, checkpoint, _digest(info, masks, dtype))
    if normalisation is not None:
        fold(normalisation, ensemble.linears[0])
    return Labeler(ensemble.eval(), info.model_copy(update={"scores": scores}))


def check(masks: torch.Tensor, classes: int, config: LabelerConfig) -> torch.Tensor:
    """The pixels to learn from; raises the ValueErrors of `fit` that need no features."""
    if config.etf_weight:
        check_etf(config.hidden_for(classes)[-1], classes)
    return training_pixels(masks, classes, config.min_class_pixels)


@torch.no_grad()
def fold(normalisation: Normalisation, first: MemberLinear) -> None:
    """Fold the normalisation into `first`, which then takes vectors without it."""
    first.bias.add_(first.weight @ normalisation.shift)
    first.weight.mul_(normalisation.scale)


def _loss(
    config: LabelerConfig, labels: torch.Tensor, classes: int, width: int, rng: torch.Generator
) -> PixelLoss:
    weights = etf = None
    if config.class_weights == "balanced":
        weights = balanced_weights(labels, classes)
    if config.etf_weight:
        frames = [simplex_etf(width, classes, rng) for _ in range(config.members)]
        etf = torch.stack(frames).to(labels.device)
    return PixelLoss(weights, etf, config.etf_weight)


def _digest(info: LabelerInfo, masks: torch.Tensor, dtype: torch.dtype) -> str:
    """sha256 of everything that the training depends on."""
    h = hashlib.sha256(json.dumps([info.model_dump(mode="json"), str(dtype)]).encode())
    h.update(masks.cpu().contiguous().numpy().tobytes())
    return h.hexdigest()
