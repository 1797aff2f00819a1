"""The labels that a teacher gives the images of a pool, kept in one file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from factory.pipeline.select import select
from factory.recipe.schema import SelectionPolicy
from factory.verdict.models import class_pixels, predictions
from factory.verdict.pools import Pool
from factory_core.dataset import probability_levels
from factory_core.storage import atomic_path
from labelers.labeler import Labeler

ALIGN_ITERATIONS = 5
MIN_SHARE = 1e-6  # of a class without pixels
AT_ONCE = 16  # images whose probabilities are in memory


@dataclass(frozen=True)
class Labels:
    """Labels of N images.

    `masks` uint8 `[N, H, W]`, `levels` of the class probabilities uint8 `[N, K, H, W]` (see
    `probability_levels`), `uncertainty` float32 `[N]`, nats.
    """

    masks: torch.Tensor
    levels: torch.Tensor
    uncertainty: torch.Tensor

    def kept(self, drop_fraction: float, policy: SelectionPolicy) -> torch.Tensor:
        """Which images remain after selection, as `factory label` selects, bool `[N]`."""
        classes = range(self.levels.shape[1])
        pixels = torch.stack([(self.masks == c).sum((1, 2)) for c in classes], 1).numpy()
        indices, uncertainty = np.arange(len(self.masks)), self.uncertainty.numpy()
        return torch.from_numpy(select(indices, uncertainty, drop_fraction, policy, pixels).kept)


def label_pool(path: Path, pool: Pool, teacher: Labeler) -> Labels:
    """The labels in the file `path`, made by `teacher` if it does not exist."""
    if not path.is_file():
        found = [
            (part.mask, levels_of(part.probabilities), part.uncertainty)
            for part in predictions(teacher, pool, range(len(pool)))
        ]
        names = ("masks", "levels", "uncertainty")
        parts = zip(*found, strict=True)
        save_tensors(path, {n: torch.cat(part) for n, part in zip(names, parts, strict=True)})
    return Labels(**load_file(path))


def class_shares(masks: torch.Tensor, classes: int) -> torch.Tensor:
    """Shares of the classes among the labelled pixels of masks uint8 `[N, H, W]`, float32 `[K]`."""
    counts = class_pixels(masks, classes).double()
    return (counts / counts.sum()).float()


def align_shares(levels: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Levels uint8 `[N, K, H, W]` whose mean probabilities over all pixels approach `shares`.

    `levels` are integers in proportion to the probabilities, `shares` float32 `[K]`.
    A network with few labels finds too little of the rare classes, and what learns from it finds
    less. Probabilities are multiplied by a factor per class and normalised, a few times:
    distribution alignment (Berthelot et al. 2020, ReMixMatch), over the whole pool.
    """
    factors = torch.ones_like(shares)
    for _ in range(ALIGN_ITERATIONS):
        sums = torch.stack([p.sum((0, 2, 3)) for p in _scaled(levels, factors)]).sum(0)
        found = sums / levels[:, 0].numel()
        factors = factors * shares.clamp(min=MIN_SHARE) / found.clamp(min=MIN_SHARE)
    return torch.cat([levels_of(p) for p in _scaled(levels, factors)])


def _scaled(levels: torch.Tensor, factors: torch.Tensor) -> Iterator[torch.Tensor]:
    """Probabilities in proportion to levels times a factor per class, a few images at a time."""
    for some in levels.split(AT_ONCE):
        p = some.float() * factors.view(1, -1, 1, 1)
        yield p / p.sum(1, keepdim=True)


def save_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """A safetensors file, complete or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        save_file(tensors, temporary)


def levels_of(probabilities: torch.Tensor | None) -> torch.Tensor:
    """Levels uint8 `[N, K, H, W]` of class probabilities, which need not sum to 1."""
    assert probabilities is not None  # asked for
    return torch.from_numpy(probability_levels(probabilities.float().numpy()))
