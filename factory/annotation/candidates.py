"""What is known about images before one of them is annotated: features, and a labeler's doubts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from rich.console import Console

from factory.annotation.choosing import pixel_descriptors
from factory.annotation.encoding import encode_batches
from factory.recipe import find_weights
from factory.terminal.progress import ProgressLine

if TYPE_CHECKING:
    from generators.base import Encoder, FeatureMaps, Generator
    from labelers.labeler import Labeler

Batch = tuple[torch.Tensor, "FeatureMaps | None"]


def load_labeler(folder: str, generator: Encoder, device: str) -> Labeler:
    """The labeler in `folder`; raises ValueError unless it belongs to `generator`."""
    from factory_core.device import pick_device, pick_dtype
    from labelers.info import INFO_FILE, read_info
    from labelers.labeler import Labeler

    path, where = find_weights("--labeler", folder), pick_device(device)
    precision = read_info(Path(path) / INFO_FILE).config.precision
    labeler = Labeler.load(path, where, pick_dtype(precision, where))
    labeler.check(generator)
    return labeler


def describe_images(
    images: torch.Tensor, generator: Encoder | None, labeler: Labeler | None, console: Console
) -> tuple[np.ndarray, np.ndarray | None]:
    """Descriptors `[N, D]` and uncertainty `[N]` of images uint8 `[N, 3, H, W]`.

    Descriptors are pooled features of the generator; `pixel_descriptors` without one, and with a
    GAN, which has features only of its own images.
    """
    from generators.base import Projecting

    if generator is None or (isinstance(generator, Projecting) and labeler is None):
        return pixel_descriptors(images), None

    def encoded() -> Iterator[Batch]:
        start = 0
        for features in encode_batches(generator, images, console):
            yield images[start : start + features.batch_size], features
            start += features.batch_size

    return _describe(encoded(), labeler)


def describe_samples(
    indices: Sequence[int], generator: Generator, labeler: Labeler | None, console: Console
) -> tuple[np.ndarray, np.ndarray | None]:
    """As `describe_images`, of samples of the generator, from the features of their sampling."""
    from generators.base import batches

    def sampled() -> Iterator[Batch]:
        with ProgressLine("looking at samples", "images", len(indices), console) as line:
            for rows in batches(range(len(indices)), generator.batch_size):
                yield generator.sample(indices[rows.start : rows.stop])
                line.update(rows.stop)

    return _describe(sampled(), labeler)


def _describe(
    found: Iterable[Batch], labeler: Labeler | None
) -> tuple[np.ndarray, np.ndarray | None]:
    descriptors, uncertainty = [], []
    with torch.inference_mode():
        for images, features in found:
            assert features is not None
            descriptors.append(features.pooled())
            if labeler is not None:
                size = (images.shape[-2], images.shape[-1])
                uncertainty.append(labeler.predict(images, features, size).uncertainty.cpu())
    doubts = torch.cat(uncertainty).numpy() if uncertainty else None
    return np.concatenate(descriptors), doubts
