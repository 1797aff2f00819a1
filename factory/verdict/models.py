"""What a contender delivers: something that predicts the masks of a pool's images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from factory.verdict.pools import Pool
from factory_core.dataset import IGNORE
from generators.base import batches
from labelers.labeler import Labeler, Prediction
from train_seg.network.segmenter import Segmenter

BATCH = 8  # images that a labeler predicts at a time


class Model(Protocol):
    """A trained contender."""

    def predict(self, pool: Pool, rows: Sequence[int]) -> torch.Tensor:
        """Class ids uint8 `[N, H, W]` of the images `rows`."""
        ...


@dataclass(frozen=True)
class SegmenterModel:
    """A segmenter, which needs nothing but the image."""

    segmenter: Segmenter

    def predict(self, pool: Pool, rows: Sequence[int]) -> torch.Tensor:
        return self.segmenter.predict(pool.images[list(rows)])


@dataclass(frozen=True)
class LabelerModel:
    """A labeler, which needs its generator too."""

    labeler: Labeler

    def predict(self, pool: Pool, rows: Sequence[int]) -> torch.Tensor:
        return torch.cat([found.mask for found in predictions(self.labeler, pool, rows)])


@dataclass(frozen=True)
class BlindModel:
    """The same mask uint8 `[H, W]` for every image: what can be known without looking."""

    mask: torch.Tensor

    def predict(self, pool: Pool, rows: Sequence[int]) -> torch.Tensor:
        return self.mask.expand(len(rows), *self.mask.shape)


def predictions(labeler: Labeler, pool: Pool, rows: Sequence[int]) -> Iterator[Prediction]:
    """Labels of a few images at a time, with class probabilities."""
    for some in batches(list(rows), BATCH):
        features = pool.features(some) if labeler.needs_features else None
        yield labeler.predict(pool.images[some], features, probabilities=True)


def class_pixels(masks: torch.Tensor, classes: int) -> torch.Tensor:
    """Pixels of each class in `masks` uint8 `[N, H, W]`, int64 `[K]`."""
    return torch.bincount(masks.flatten().long(), minlength=IGNORE + 1)[:classes]


def most_frequent_class(masks: torch.Tensor, classes: int) -> BlindModel:
    """The class with the most pixels in `masks` uint8 `[N, H, W]`, everywhere."""
    most = int(class_pixels(masks, classes).argmax())
    return BlindModel(torch.full(masks.shape[1:], most, dtype=torch.uint8))


def most_frequent_per_pixel(masks: torch.Tensor, classes: int) -> BlindModel:
    """The class that is most frequent at each position in `masks` uint8 `[N, H, W]`."""
    counts = torch.stack([(masks == class_id).sum(0) for class_id in range(classes)])
    return BlindModel(counts.argmax(0).to(torch.uint8))
