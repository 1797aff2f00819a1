"""The labels that a teacher gives the images of a pool, kept in one file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from factory.pipeline.select import select
from factory.verdict.models import predictions
from factory.verdict.pools import Pool
from factory_core.storage import atomic_path
from labelers.labeler import Labeler

LEVELS = 255  # of a probability in a byte


@dataclass(frozen=True)
class Labels:
    """Labels of N images.

    `masks` uint8 `[N, H, W]`, `probabilities` uint8 `[N, K, H, W]` (255 is 1), `uncertainty`
    float32 `[N]`, nats.
    """

    masks: torch.Tensor
    probabilities: torch.Tensor
    uncertainty: torch.Tensor

    def kept(self, drop_fraction: float) -> torch.Tensor:
        """Which images remain when the most uncertain ones are dropped, bool `[N]`."""
        indices = np.arange(len(self.masks))
        return torch.from_numpy(select(indices, self.uncertainty.numpy(), drop_fraction).kept)


def label_pool(path: Path, pool: Pool, teacher: Labeler) -> Labels:
    """The labels in the file `path`, made by `teacher` if it does not exist."""
    if not path.is_file():
        found = list(predictions(teacher, pool, range(len(pool))))
        probabilities = []
        for part in found:
            assert part.probabilities is not None
            probabilities.append(quantise(part.probabilities))
        tensors = {
            "masks": torch.cat([part.mask for part in found]),
            "probabilities": torch.cat(probabilities),
            "uncertainty": torch.cat([part.uncertainty for part in found]),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            save_file(tensors, temporary)
    return Labels(**load_file(path))


def quantise(probabilities: torch.Tensor) -> torch.Tensor:
    """Probabilities 0-1 as uint8, to 1/255."""
    return (probabilities * LEVELS).round().to(torch.uint8)
