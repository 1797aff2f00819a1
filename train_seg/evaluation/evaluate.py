"""Scoring a segmenter (a trained network or a labeler) on annotated images."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch

from train_seg.config import INFERENCE_BATCH_SIZE
from train_seg.evaluation.boundary import BoundaryF1, BoundaryScores
from train_seg.evaluation.metrics import Confusion, Scores, scores

PredictFn = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Evaluation:
    """Scores of one model on an annotated set, and on each part if the set was split."""

    scores: Scores
    boundary: BoundaryScores
    confusion: list[list[int]]
    """pixels by true class (row) and predicted class (column), without ignored pixels"""
    splits: list[Evaluation] = field(default_factory=list)

    @property
    def headline(self) -> dict[str, float | None]:
        """Scores of the whole set, 0-1; boundary F1 is None if the masks have no contour."""
        return {
            "miou": self.scores.miou,
            "miou_reference": self.scores.miou_reference,
            "pixel_accuracy": self.scores.pixel_accuracy,
            "boundary_f1": self.boundary.mean,
        }


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n - 1; None for a single value)."""

    mean: float | None
    std: float | None
    values: list[float]

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Self:
        """The spread of the values that are not None."""
        known = [v for v in values if v is not None]
        return cls(
            statistics.fmean(known) if known else None,
            statistics.stdev(known) if len(known) > 1 else None,
            known,
        )


class _Tally:
    """Counts over some of the images."""

    def __init__(self, classes: int):
        self.confusion, self.boundary, self.images = Confusion(classes), BoundaryF1(classes), 0

    def update(self, predictions: torch.Tensor, masks: torch.Tensor) -> None:
        self.confusion.update(predictions, masks)
        self.boundary.update(predictions, masks)
        self.images += len(masks)

    def add(self, other: _Tally) -> None:
        self.confusion.add(other.confusion)
        self.boundary.add(other.boundary)
        self.images += other.images

    def evaluation(self, classes: Sequence[str], splits: Sequence[_Tally] = ()) -> Evaluation:
        return Evaluation(
            scores(self.confusion, classes, self.images),
            self.boundary.scores(),
            self.confusion.counts[:-1].tolist(),
            [part.evaluation(classes) for part in splits],
        )


def evaluate(
    predict_fn: PredictFn,
    images: torch.Tensor,
    masks: torch.Tensor,
    classes: Sequence[str],
    batch_size: int = INFERENCE_BATCH_SIZE,
    splits: int = 1,
    seed: int = 0,
) -> Evaluation:
    """Scores of `predict_fn` (images uint8 `[N, 3, H, W]` -> class ids `[N, H, W]`).

    `masks` is uint8 `[N, H, W]`, 255 = ignore. With `splits` above 1, the images are also divided
    at random, by `seed`, into that many disjoint parts, and each part is scored as a separate
    set. The spread shows how far the result depends on the test images.

    Raises:
        ValueError: fewer images than splits, or as `Confusion.update` and `scores`.
    """
    if splits > len(images):
        raise ValueError(f"found {len(images)} images, expected at least {splits}, one per split")
    order = np.random.default_rng(seed).permutation(len(images))
    part_of = np.empty(len(images), int)
    for part, members in enumerate(np.array_split(order, splits)):
        part_of[members] = part
    parts = [_Tally(len(classes)) for _ in range(splits)]
    for i in range(0, len(images), batch_size):
        rows = slice(i, i + batch_size)
        predictions = predict_fn(images[rows])
        for part in np.unique(part_of[rows]):
            chosen = torch.from_numpy(part_of[rows] == part)
            parts[part].update(predictions[chosen], masks[rows][chosen])
    total = _Tally(len(classes))
    for tally in parts:
        total.add(tally)
    return total.evaluation(classes, parts if splits > 1 else ())
