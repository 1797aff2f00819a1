"""Scores of a segmentation over a whole set: IoU under two policies, and pixel accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from factory_core.dataset import IGNORE

POLICY_MIOU = "mean over the classes present in the ground truth; ignored pixels left out"
POLICY_REFERENCE = (
    "mean over all classes, one absent from truth and prediction counts 0; "
    "predictions on ignored pixels enter the unions"
)


class Confusion:
    """Counts of (true class, predicted class) over pixels, summed over images.

    `counts` is int64 `[K + 1, K]`. The last row holds predictions on ignored pixels (255), which
    one of the two policies needs.
    """

    def __init__(self, classes: int):
        self.counts = torch.zeros(classes + 1, classes, dtype=torch.int64)

    def update(self, predictions: torch.Tensor, masks: torch.Tensor) -> None:
        """Add a batch: class ids `[N, H, W]`, both of the same shape; 255 in `masks` = ignore.

        Raises:
            ValueError: the shapes differ or an id is beyond the list of classes.
        """
        if predictions.shape != masks.shape:
            raise ValueError(
                f"predictions have shape {tuple(predictions.shape)}, masks {tuple(masks.shape)}"
            )
        k = self.counts.shape[1]
        truth, guess = masks.flatten().long().cpu(), predictions.flatten().long().cpu()
        ids = torch.cat([truth[truth != IGNORE], guess])
        if ids.numel() and int(ids.max()) >= k:
            raise ValueError(f"found class id {int(ids.max())}, expected ids below {k}")
        truth = torch.where(truth == IGNORE, k, truth)
        self.counts += torch.bincount(truth * k + guess, minlength=(k + 1) * k).view(k + 1, k)

    def add(self, other: Confusion) -> None:
        """Add the pixels counted by `other`."""
        self.counts += other.counts


@dataclass(frozen=True)
class Scores:
    """IoUs and accuracies, 0-1; the IoU of a class in neither truth nor prediction is None."""

    classes: list[str]
    iou: list[float | None]
    class_pixels: list[int]
    miou: float
    miou_reference: float
    pixel_accuracy: float
    images: int = 0

    def to_dict(self) -> dict[str, Any]:
        """For JSON: each number with its policy."""
        return {
            "images": self.images,
            "miou": self.miou,
            "miou_policy": POLICY_MIOU,
            "miou_reference": self.miou_reference,
            "miou_reference_policy": POLICY_REFERENCE,
            "pixel_accuracy": self.pixel_accuracy,
            "iou": dict(zip(self.classes, self.iou, strict=True)),
            "class_pixels": dict(zip(self.classes, self.class_pixels, strict=True)),
        }


def scores(confusion: Confusion, classes: Sequence[str], images: int = 0) -> Scores:
    """Scores of the pixels counted by `confusion`, over `images` images.

    `miou` follows POLICY_MIOU, `miou_reference` POLICY_REFERENCE (the DDPM paper's code).

    Raises:
        ValueError: no pixel of the ground truth belongs to a class.
    """
    counted = confusion.counts[:-1].double()
    truth, predicted, hits = counted.sum(1), counted.sum(0), counted.diagonal()
    if not truth.sum():
        raise ValueError("every pixel of the masks is ignored (255): nothing to score")
    union = truth + predicted - hits
    iou = hits / union  # 0/0 = NaN: in neither
    ignored = confusion.counts[-1].double()
    reference = hits / (union + ignored).clamp(min=1)
    return Scores(
        classes=list(classes),
        iou=[None if v != v else v for v in iou.tolist()],
        class_pixels=[int(v) for v in truth],
        miou=float(iou[truth > 0].mean()),
        miou_reference=float(reference.mean()),
        pixel_accuracy=float(hits.sum() / truth.sum()),
        images=images,
    )
