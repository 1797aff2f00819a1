"""The training objective: cross-entropy over labelled pixels, and the Dice loss over classes.

Logits are float `[N, K, H, W]`, masks uint8 `[N, H, W]`, 255 = ignore, and soft labels the levels
uint8 `[N, K, H, W]` of the class probabilities (see `data.soft_labels`). If several processes train
together, each passes its part of the batch and gets the loss of the whole batch; see
`parallel.whole`.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from factory_core.dataset import IGNORE, LEVEL_SUM
from factory_core.dice import dice_sums, loss_of_sums
from train_seg.config import SegmenterConfig
from train_seg.training.parallel import whole


def objective(logits: torch.Tensor, labels: torch.Tensor, config: SegmenterConfig) -> torch.Tensor:
    """Cross-entropy plus `config.dice` times the Dice loss; `labels` are masks or soft labels."""
    is_soft = labels.ndim == 4
    pixels, dice = (soft_pixel_loss, soft_dice_loss) if is_soft else (pixel_loss, dice_loss)
    loss = pixels(logits, labels, config.label_smoothing)
    if config.dice:
        loss = loss + config.dice * dice(logits, labels)
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


# --- soft labels -----------------------------------------------------------------------------


def certainty(levels: torch.Tensor) -> torch.Tensor:
    """The weight of each pixel, float32 `[N, H, W]`: w = 1 - H(g) / ln K, 0 where ignored.

    H(g) is the entropy of the K class probabilities g in nats: w is 1 if one class is certain and
    0 if all are equally likely.
    """
    entropy = torch.special.entr(levels.float() / LEVEL_SUM).sum(1)
    return (1 - entropy / math.log(levels.shape[1])).clamp(min=0) * (levels.amax(1) > 0)


def soft_pixel_loss(
    logits: torch.Tensor, levels: torch.Tensor, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Mean cross-entropy -Σ g ln p over the pixels, weighted by `certainty`.

    Equals `pixel_loss` if all labels are certain.
    """
    weights = certainty(levels)
    truth = levels.float() / LEVEL_SUM
    losses = F.cross_entropy(
        logits.float(), truth, label_smoothing=label_smoothing, reduction="none"
    )
    return whole((losses * weights).sum()) / whole(weights.sum()).clamp(min=1)


def soft_dice_loss(logits: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Mean of 1 - Dice over the classes that are the most probable ones of some pixel.

    The Dice of a class is 2 Σ w min(p, g) / Σ w (p + g), with the weights w of `certainty`, the
    predicted probability p and the label's g. With min(p, g) in place of p g, the largest Dice is
    at p = g also for soft labels (Wang et al., "Dice Semimetric Losses", 2023). Equals `dice_loss`
    if all labels are certain.
    """
    weights = certainty(levels)[:, None]
    truth = levels.float() / LEVEL_SUM
    p = logits.float().softmax(1)
    top = torch.zeros_like(truth).scatter_(1, levels.argmax(1, keepdim=True), 1.0)
    terms = (torch.minimum(p, truth), p, truth, top)
    overlap, predicted, true, most = whole(
        torch.stack([(weights * term).sum((0, 2, 3)) for term in terms])
    )
    present = most > 0
    dice = 2 * overlap / (predicted + true).clamp(min=1e-6)  # positive if present
    return ((1 - dice) * present).sum() / present.sum().clamp(min=1)
