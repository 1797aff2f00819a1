"""A `SampleSet` as a torch dataset; in its own module because torch loads slowly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from factory_core.dataset.sample_set import SampleSet


@dataclass(frozen=True)
class Pairs(torch.utils.data.Dataset):
    """Map-style: image uint8 `[3, H, W]` and mask uint8 `[H, W]` (255 = ignore) at each place.

    `transform(image, mask)` replaces the pair by what it returns. A DataLoader can send the dataset
    to its processes. In a bucket, reading at random places costs a round trip per sample.
    """

    samples: SampleSet
    transform: Callable[[torch.Tensor, torch.Tensor], Any] | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, place: int) -> Any:
        sample = self.samples[place]
        # Copies: decoded arrays are read-only, and torch warns about them.
        image, mask = torch.from_numpy(sample.image.copy()), torch.from_numpy(sample.mask.copy())
        return (image, mask) if self.transform is None else self.transform(image, mask)
