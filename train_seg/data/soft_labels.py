"""Soft labels: levels of the class probabilities in place of a mask.

Levels are uint8 `[K, H, W]`; those of a pixel sum to 255, or are all 0 if it is ignored. A pixel
that a person annotated is certain: 255 for its class.
"""

from __future__ import annotations

import torch

from factory_core.dataset import IGNORE, LEVEL_SUM
from train_seg.data.augment import Augment


def certain(mask: torch.Tensor, classes: int) -> torch.Tensor:
    """Levels uint8 `[K, H, W]` of a mask uint8 `[H, W]`."""
    ids = torch.arange(classes, dtype=torch.uint8)[:, None, None]
    return (mask == ids).byte() * LEVEL_SUM


def most_probable(labels: torch.Tensor) -> torch.Tensor:
    """Masks uint8 `[N, H, W]` of levels uint8 `[N, K, H, W]`; masks are returned unchanged."""
    if labels.ndim == 3:
        return labels
    return labels.argmax(1).byte().masked_fill(labels.amax(1) == 0, IGNORE)


def augmented(
    augment: Augment,
    image: torch.Tensor,
    mask: torch.Tensor,
    levels: torch.Tensor | None,
    seed: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The image uint8 `[3, H, W]` and its labels after `augment`: `mask` if there are no `levels`.

    The levels move with the mask, without interpolation, and are 0 where it ignores.
    """
    if levels is None:
        return augment(image, mask, seed)
    image, moved = augment(image, torch.cat([mask[None], levels]), seed)
    return image, moved[1:] * (moved[0] != IGNORE)
