"""One training sample: an image and its mask."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tvf

from train_seg.metrics import IGNORE

Size = tuple[int, int]
Pair = tuple[torch.Tensor, torch.Tensor]  # image uint8 [3, H, W], mask uint8 [H, W]


def check_ids(mask: torch.Tensor, classes: int, where: str) -> None:
    """Refuse class ids beyond the list; `where` names the mask in the error."""
    ids = mask[mask != IGNORE]
    if ids.numel() and int(ids.max()) >= classes:
        raise ValueError(
            f"{where}: found class id {int(ids.max())}, expected ids below {classes} "
            "(255 = ignore): correct the mask or the list of classes"
        )


def resize(image: torch.Tensor, mask: torch.Tensor, size: Size) -> Pair:
    """Image uint8 `[..., 3, H, W]` (bilinear, antialiased) and mask `[..., H, W]` (nearest)."""
    if tuple(image.shape[-2:]) == size:
        return image, mask
    image = tvf.resize(image, list(size), antialias=True)
    mask = tvf.resize(mask.unsqueeze(-3), list(size), InterpolationMode.NEAREST_EXACT)
    return image, mask.squeeze(-3)


def stack(pairs: Sequence[Pair]) -> Pair:
    return torch.stack([p[0] for p in pairs]), torch.stack([p[1] for p in pairs])


def sample_seed(seed: int, epoch: int, key: str) -> int:
    """Seed of a sample's augmentation: of the sample and epoch alone, never of the order."""
    words = [seed, epoch, zlib.crc32(key.encode())]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint32)[0])
