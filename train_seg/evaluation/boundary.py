"""Boundary F1: how closely the contours of a segmentation follow those of the ground truth.

After Csurka, Larlus and Perronnin, "What is a good evaluation measure for semantic segmentation?"
(BMVC 2013). In each image, the precision P of a class is the share of its predicted contour that
lies within θ of its true contour; the recall R is the reverse; F1 = 2 P R / (P + R). The score of a
class is the mean over the images with its contour in truth or prediction. The score of the set is
the mean over the classes with a contour in the truth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from factory_core.dataset import IGNORE

TOLERANCE = 0.0075  # θ as a fraction of the image diagonal, from the paper
POLICY_BOUNDARY = (
    f"F1 of contours within max(1 px, {100 * TOLERANCE:g} % of the diagonal), per class and image, "
    "then averaged"
)
_NONE = IGNORE  # in a contour map: no contour here


@dataclass(frozen=True)
class BoundaryScores:
    """F1 in 0-1: per class (None: it has no contour anywhere), and of the set."""

    classes: list[float | None]
    mean: float | None


class BoundaryF1:
    """Sums of the F1 of each class over images."""

    def __init__(self, classes: int):
        self.f1 = torch.zeros(classes, dtype=torch.float64)
        self.images = torch.zeros(classes, dtype=torch.int64)  # with a contour on either side
        self.in_truth = torch.zeros(classes, dtype=torch.bool)

    def update(self, predictions: torch.Tensor, masks: torch.Tensor) -> None:
        """Add a batch: class ids `[N, H, W]` below the number of classes; 255 in `masks` = ignore.

        Contours next to or inside ignored pixels count neither in truth nor in prediction.
        """
        masks, predictions = masks.cpu(), predictions.cpu().to(masks.dtype)
        counted = masks != IGNORE
        truth, guess = contours(masks, counted), contours(predictions, counted)
        k, theta = len(self.f1), tolerance_px(masks.shape[1:])
        precision, guessed = _matched(guess, truth, k, theta)
        recall, true = _matched(truth, guess, k, theta)
        f1 = 2 * precision * recall / (precision + recall).clamp(min=1e-12)
        self.f1 += f1.sum(0)
        self.images += (guessed | true).sum(0)
        self.in_truth |= true.any(0)

    def add(self, other: BoundaryF1) -> None:
        """Add the images counted by `other`."""
        self.f1 += other.f1
        self.images += other.images
        self.in_truth |= other.in_truth

    def scores(self) -> BoundaryScores:
        """The scores of the images so far."""
        f1 = self.f1 / self.images  # 0/0 = NaN: no contour anywhere
        mean = float(f1[self.in_truth].mean()) if self.in_truth.any() else None
        return BoundaryScores([None if v != v else v for v in f1.tolist()], mean)


def tolerance_px(size: tuple[int, ...] | torch.Size) -> float:
    """θ for images of `size` (height, width); at least 1, since below that few contours match."""
    return max(1.0, TOLERANCE * math.hypot(*size))


def contours(ids: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """The class of each pixel with a 4-neighbour of a different class, 255 elsewhere.

    `ids` is uint8 `[N, H, W]`; `counted` is bool of the same shape and must be true for both
    neighbours. The edge of the image is not a contour.
    """
    edge = torch.zeros_like(counted)
    for axis in (1, 2):
        n = ids.shape[axis] - 1
        a, b = (ids.narrow(axis, start, n) for start in (0, 1))
        differ = (a != b) & counted.narrow(axis, 0, n) & counted.narrow(axis, 1, n)
        edge.narrow(axis, 0, n).logical_or_(differ)
        edge.narrow(axis, 1, n).logical_or_(differ)
    return torch.where(edge, ids, _NONE)


def _matched(
    found: torch.Tensor, wanted: torch.Tensor, k: int, theta: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Share of each contour in `found` that lies within `theta` of one of its class in `wanted`.

    Both are contour maps `[N, H, W]`. Returns shares float64 `[N, K]` (0 without a contour), and
    whether `found` has a contour, bool `[N, K]`. Only the neighbours of contour pixels are looked
    up, which is exact and costs the same for any number of classes.
    """
    reach = int(theta)
    padded = torch.nn.functional.pad(wanted, (reach,) * 4, value=_NONE)
    n, y, x = torch.where(found != _NONE)
    label = found[n, y, x]
    hit = torch.zeros(len(label), dtype=torch.bool)
    for dy, dx in _disk(theta):
        hit |= padded[n, y + dy + reach, x + dx + reach] == label
    cell = n * k + label
    total = torch.bincount(cell, minlength=len(found) * k).view(-1, k)
    hits = torch.bincount(cell[hit], minlength=len(found) * k).view(-1, k)
    return hits.double() / total.clamp(min=1), total > 0


def _disk(radius: float) -> Iterator[tuple[int, int]]:
    """Offsets no longer than `radius`."""
    reach = range(-int(radius), int(radius) + 1)
    return ((y, x) for y in reach for x in reach if math.hypot(y, x) <= radius)
