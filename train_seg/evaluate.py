"""Scoring any segmenter - a trained network or a labeler - on annotated images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from rich.table import Table

from train_seg.metrics import POLICY_MIOU, POLICY_REFERENCE, Confusion, Scores, scores

PredictFn = Callable[[torch.Tensor], torch.Tensor]


def evaluate(
    predict_fn: PredictFn,
    images: torch.Tensor,
    masks: torch.Tensor,
    classes: Sequence[str],
    batch_size: int = 16,
) -> Scores:
    """Scores of `predict_fn` (images uint8 `[N, 3, H, W]` -> class ids `[N, H, W]`).

    `masks` is uint8 `[N, H, W]`, 255 = ignore. Errors as `Confusion.update` and `scores`.
    """
    confusion = Confusion(len(classes))
    for i in range(0, len(images), batch_size):
        rows = slice(i, i + batch_size)
        confusion.update(predict_fn(images[rows]), masks[rows])
    return scores(confusion, classes, images=len(images))


def scores_table(result: Scores, title: str | None = None) -> Table:
    """A rich table: IoU and share of the pixels per class, then the totals with their policies."""
    table = Table(title=title)
    table.add_column("class")
    table.add_column("IoU", justify="right")
    table.add_column("of the pixels", justify="right")
    total = sum(result.class_pixels)
    for name, iou, pixels in zip(result.classes, result.iou, result.class_pixels, strict=True):
        table.add_row(name, "-" if iou is None else f"{iou:.4f}", f"{100 * pixels / total:.2f} %")
    table.add_section()
    table.add_row("mIoU", f"{result.miou:.4f}", POLICY_MIOU)
    table.add_row("mIoU (reference)", f"{result.miou_reference:.4f}", POLICY_REFERENCE)
    table.add_row("pixel accuracy", f"{result.pixel_accuracy:.4f}", f"{result.images} images")
    return table
