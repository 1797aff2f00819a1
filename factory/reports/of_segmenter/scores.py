"""Scores of a segmenter, from wherever they were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from factory.reports.page import Tile
from factory_core.models import read_model
from train_seg.evaluation.evaluate import Evaluation

Share = float | None


@dataclass(frozen=True)
class Measured:
    """Scores of one model on annotated images, 0-1; None where one was not measured.

    `on` says what the `images` are, as in "24 images of DIR".
    `iou` and `boundary` are per class; `confusion` is pixels `[K, K]` by true (row) and predicted
    class; `corruptions` is as `Robustness.to_dict` gives it.
    """

    on: str
    images: int
    headline: Mapping[str, Share]
    iou: Sequence[Share]
    boundary: Sequence[Share] | None = None
    confusion: np.ndarray | None = None
    corruptions: Mapping[str, Any] | None = None

    @classmethod
    def now(cls, evaluation: Evaluation, on: str) -> Measured:
        """What was just measured."""
        found = evaluation.scores
        return cls(
            on,
            found.images,
            evaluation.headline,
            found.iou,
            evaluation.boundary.classes,
            np.array(evaluation.confusion),
        )

    @classmethod
    def in_training(cls, scores: Mapping[str, Any], classes: Sequence[str]) -> Measured | None:
        """Of model.json: on the validation images, if there were any."""
        if not scores:
            return None
        headline = {name: scores.get(name) for name in ("miou", "pixel_accuracy")}
        iou = [scores["iou"].get(name) for name in classes]
        return cls("validation images", scores.get("images", 0), headline, iou)

    @classmethod
    def recorded(cls, file: Path, classes: Sequence[str]) -> Measured:
        """From the JSON file of `factory evaluate`.

        Raises ValueError if it is damaged or of other classes, FileNotFoundError if there is none.
        """
        if not file.is_file():
            raise FileNotFoundError(f"--evaluation {file}: no such file: `factory evaluate --json`")
        found = read_model(file, _Recorded, "write it again with `factory evaluate --json`")
        if list(found.iou) != list(classes):
            raise ValueError(
                f"{file} has the classes {', '.join(found.iou)}, the model {', '.join(classes)}: "
                "give the evaluation of this model"
            )
        headline = {
            name: getattr(found, name) for name in ("miou", "pixel_accuracy", "boundary_f1")
        }
        return cls(
            "images of the evaluation",
            found.images,
            headline,
            list(found.iou.values()),
            list(found.boundary_f1_of_class.values()),
            np.array(found.confusion),
            found.corruptions,
        )


class _Recorded(BaseModel):
    """The parts of the JSON of `factory evaluate` that a report shows."""

    model_config = ConfigDict(frozen=True)

    images: int
    miou: Share
    pixel_accuracy: Share
    boundary_f1: Share
    iou: dict[str, Share]
    boundary_f1_of_class: dict[str, Share]
    confusion: list[list[int]]
    corruptions: dict[str, Any] | None = None


@dataclass(frozen=True)
class Shown:
    """A test image with its true and its predicted mask, and the mIoU over its true classes."""

    truth: Tile
    prediction: Tile
    score: float
