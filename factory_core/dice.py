"""The Dice loss over classes (Milletari et al., 2016).

The Dice of a class is 2 Σ p g / (Σ p + Σ g) over the labelled pixels of a batch: p is the predicted
probability of the class, g is 1 where it is true.
"""

from __future__ import annotations

import torch

from factory_core.images import IGNORE


def dice_sums(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Σ p g, Σ p and Σ g, `[3, K]`, of logits `[N, K, H, W]` and masks uint8 `[N, H, W]`.

    Pixels of 255 are left out. The sums of two batches add up to those of both.
    """
    classes = torch.arange(logits.shape[1], device=logits.device)[:, None, None]
    truth = masks[:, None] == classes  # bool [N, K, H, W]
    p = logits.float().softmax(1) * (masks != IGNORE)[:, None]
    pixels = (0, 2, 3)
    return torch.stack([(p * truth).sum(pixels), p.sum(pixels), truth.sum(pixels).float()])


def loss_of_sums(sums: torch.Tensor) -> torch.Tensor:
    """Mean of 1 - Dice over the classes that are present, from `dice_sums`; 0 if there are none."""
    overlap, predicted, true = sums
    present = true > 0
    dice = 2 * overlap / (predicted + true).clamp(min=1)  # >= 1 pixel if present
    return ((1 - dice) * present).sum() / present.sum().clamp(min=1)
