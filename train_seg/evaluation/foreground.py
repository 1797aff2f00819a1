"""Scores of regions that have no names: which of them, together, are the foreground?

The protocol is that of IEM (Savarese et al. 2021) and ReDO (Chen et al. 2019): for two regions,
each image and each metric takes the better of a mask and its inverse, and the score is the mean
over images. With K regions there are 2^K - 2 ways to group them into foreground and background:

- `oracle` takes the best of them for each image and metric, which is IEM's protocol for K = 2;
- `dataset` takes one grouping for all images and metrics.

Everything is computed from `counts` int64 `[N, K, C]`: the pixels of image n that are in region k
and have the true class c. Ignored pixels are in none.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from train_seg.evaluation.metrics import Confusion

METRICS = ("accuracy", "iou", "dice")


@dataclass(frozen=True)
class ForegroundScores:
    """Means over images, 0-1: accuracy of pixels, IoU and DICE of the foreground.

    DICE is 2 |F̂ ∩ F| / (|F̂| + |F|). In an image where neither the truth nor the prediction has any
    foreground, IoU and DICE are 1.
    """

    accuracy: float
    iou: float
    dice: float

    @classmethod
    def of(cls, values: Tensor) -> ForegroundScores:
        """From `[3]` in the order of METRICS."""
        return cls(*values.tolist())


def count_pairs(regions: Tensor, masks: Tensor, k: int, classes: int) -> Tensor:
    """`counts` of region ids `[N, H, W]` below `k` and class ids `[N, H, W]`, 255 = ignore.

    Raises ValueError if the shapes differ or an id is too large.
    """
    if regions.shape != masks.shape:
        raise ValueError(f"regions have shape {list(regions.shape)}, masks {list(masks.shape)}")
    counts = []
    for found, truth in zip(regions, masks, strict=True):
        confusion = Confusion(max(k, classes))
        confusion.update(found[None], truth[None])
        pairs = confusion.counts[:-1].T
        if pairs[k:].any() or pairs[:, classes:].any():
            raise ValueError(f"found ids beyond {k} regions and {classes} classes")
        counts.append(pairs[:k, :classes])
    return torch.stack(counts)


def groupings(k: int) -> Tensor:
    """The ways to call some of K regions foreground, but neither none nor all: bool `[2^K-2, K]`.

    Raises ValueError for fewer than two regions.
    """
    if k < 2:
        raise ValueError(f"found {k} region, expected two or more: one region has no foreground")
    numbers = torch.arange(1, 2**k - 1)
    return (numbers[:, None] >> torch.arange(k)) % 2 == 1


def score_groupings(counts: Tensor, foreground: Collection[int]) -> Tensor:
    """METRICS of every grouping and image, float64 `[G, N, 3]`; `foreground` are class ids."""
    is_foreground = torch.zeros(counts.shape[2], dtype=torch.bool)
    is_foreground[list(foreground)] = True
    inside = counts[..., is_foreground].sum(-1).double()  # [N, K]
    outside = counts[..., ~is_foreground].sum(-1).double()
    chosen = groupings(counts.shape[1]).double()  # [G, K]
    tp, fp = chosen @ inside.T, chosen @ outside.T  # [G, N]
    fn = inside.sum(1) - tp
    total = (inside + outside).sum(1)
    accuracy = (total - fp - fn) / total.clamp(min=1)
    iou, dice = _ratio(tp, tp + fp + fn), _ratio(2 * tp, 2 * tp + fp + fn)
    return torch.stack([accuracy, iou, dice], -1)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole.clamp(min=1), 1.0)


def oracle(counts: Tensor, foreground: Collection[int]) -> ForegroundScores:
    """The best grouping of each image, for each metric separately."""
    return ForegroundScores.of(score_groupings(counts, foreground).amax(0).mean(0))


def choose_grouping(counts: Tensor, foreground: Collection[int]) -> tuple[int, ...]:
    """The regions that are foreground in the grouping with the highest mean IoU."""
    best = int(score_groupings(counts, foreground)[..., METRICS.index("iou")].mean(1).argmax())
    return tuple(groupings(counts.shape[1])[best].nonzero().flatten().tolist())


def of_grouping(
    counts: Tensor, foreground: Collection[int], regions: Sequence[int]
) -> ForegroundScores:
    """The scores of one grouping, in which `regions` are foreground, on all images."""
    wanted = torch.zeros(counts.shape[1], dtype=torch.bool)
    wanted[list(regions)] = True
    number = int((groupings(counts.shape[1]) == wanted).all(1).nonzero())
    return ForegroundScores.of(score_groupings(counts, foreground)[number].mean(0))


def two_classes(counts: Tensor, foreground: Collection[int]) -> Tensor:
    """`counts` with the classes background and foreground, `[N, K, 2]`."""
    chosen = sorted(foreground)
    others = [c for c in range(counts.shape[2]) if c not in chosen]
    return torch.stack([counts[..., others].sum(-1), counts[..., chosen].sum(-1)], -1)


def named_confusion(counts: Tensor, class_of: Sequence[int]) -> Confusion:
    """The pixels of true and predicted classes if region k is class `class_of[k]`."""
    pairs = counts.sum(0)  # [K, C]
    confusion = Confusion(pairs.shape[1])
    confusion.counts[:-1].index_add_(1, torch.tensor(class_of), pairs.T)
    return confusion
