"""The training objective: cross-entropy over labelled pixels, and the Dice loss over classes.

Logits are float `[N, K, H, W]`, masks uint8 `[N, H, W]`, 255 = ignore. If several processes train
together, each passes its part of the batch and gets the loss of the whole batch; see
`parallel.whole`.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from factory_core.dataset import IGNORE
from factory_core.dice import dice_sums, loss_of_sums
from train_seg.config import SegmenterConfig
from train_seg.training.parallel import whole


def objective(logits: torch.Tensor, masks: torch.Tensor, config: SegmenterConfig) -> torch.Tensor:
    """Cross-entropy plus `config.dice` times the Dice loss."""
    loss = pixel_loss(logits, masks, config.label_smoothing)
    if config.dice:
        loss = loss + config.dice * dice_loss(logits, masks)
    return loss


def pixel_loss(
    logits: torch.Tensor, masks: torch.Tensor, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Mean cross-entropy over the pixels that are not 255; 0 if there are none."""
    total = F.cross_entropy(
        logits.float(),
        masks.long(),
        ignore_index=IGNORE,
        label_smoothing=label_smoothing,
        reduction="sum",
    )
    return whole(total) / whole((masks != IGNORE).sum()).clamp(min=1)


def dice_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Mean of 1 - Dice over the classes in `masks`; 0 if there are none (see `factory_core.dice`).

    The loss of segmentation-models-pytorch divides by the number of all classes and cannot be
    summed over processes; the two agree if all classes occur.
    """
    return loss_of_sums(whole(dice_sums(logits, masks)))
