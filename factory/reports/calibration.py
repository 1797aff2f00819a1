"""Whether the uncertainty of a labeler predicts its errors, on images that it was not trained on.

Two questions: are pixels of higher uncertainty wrong more often (the reliability curve), and how
few errors remain if the uncertain ones are set aside (the risk-coverage curve; Geifman and El-Yaniv
2017, "Selective Classification for Deep Neural Networks")? The area under the latter is the error
rate averaged over all coverages: the lower, the better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from factory_core.dataset import IGNORE

if TYPE_CHECKING:
    import torch

    from labelers.labeler import Prediction

BINS = 200  # of the uncertainty; logarithmic, since most pixels are nearly certain
LOWEST_NATS = 1e-6  # of the second bin; the first holds what is below
POINTS = 12  # of a reliability curve
DROPPED = 0.1  # share of the images that the method drops


class ImageError(BaseModel):
    """An image: its uncertainty (nats), and the share of its pixels that are wrong (0-1)."""

    model_config = ConfigDict(frozen=True)

    name: str
    uncertainty: float
    error: float


class Calibration(BaseModel):
    """Pixels, and wrong ones, in each bin of the uncertainty; and the images.

    Pixels marked "ignore" are left out. Bin i lies between `edges(classes)[i]` and `[i + 1]`.
    """

    model_config = ConfigDict(frozen=True)

    classes: int
    pixels: list[int]
    wrong: list[int]
    images: list[ImageError]

    @property
    def error(self) -> float:
        """Share of all pixels that are wrong."""
        return sum(self.wrong) / max(sum(self.pixels), 1)

    def reliability(self) -> tuple[list[float], list[float]]:
        """Mean uncertainty (nats) and error rate of about POINTS groups of equally many pixels."""
        middles, pixels = self._middles(), np.array(self.pixels)
        group = np.minimum((np.cumsum(pixels) - pixels / 2) * POINTS // pixels.sum(), POINTS - 1)
        x, y = [], []
        for k in range(POINTS):
            inside = (group == k) & (pixels > 0)
            if inside.any():
                count = pixels[inside].sum()
                x.append(float((middles * pixels)[inside].sum() / count))
                y.append(float(np.array(self.wrong)[inside].sum() / count))
        return x, y

    def risk_coverage(self) -> tuple[list[float], list[float]]:
        """Coverage (0-1), and the error rate of that share of the pixels, the most certain ones."""
        pixels, wrong = np.cumsum(self.pixels), np.cumsum(self.wrong)
        some = np.flatnonzero(self.pixels)
        return (pixels[some] / pixels[-1]).tolist(), (wrong[some] / pixels[some]).tolist()

    @property
    def area(self) -> float:
        """Area under the risk-coverage curve, 0-1."""
        coverage, risk = self.risk_coverage()
        x, y = [0.0, *coverage], [risk[0], *risk]
        return float(np.trapezoid(y, x))

    @property
    def least_area(self) -> float:
        """The area if every error were more uncertain than everything right: e + (1-e) ln(1-e)."""
        e = self.error
        return e + (1 - e) * math.log1p(-e) if e < 1 else 1.0

    def dropped(self) -> list[int]:
        """Numbers of the most uncertain tenth of the images, at least one."""
        order = sorted(range(len(self.images)), key=lambda i: -self.images[i].uncertainty)
        return order[: max(1, int(DROPPED * len(order)))]

    def _middles(self) -> np.ndarray:
        ends = edges(self.classes)
        return (ends[1:] + ends[:-1]) / 2


class Counted(NamedTuple):
    """A predicted image: its name, uncertainty per pixel and of the image (nats), ids and truth."""

    name: str
    map: np.ndarray
    uncertainty: float
    mask: np.ndarray
    truth: np.ndarray

    @classmethod
    def of(cls, name: str, found: Prediction, truth: torch.Tensor) -> Counted:
        """The one image of a labeler's prediction, and its true mask uint8 `[H, W]`."""
        maps, mask = found.pixel_uncertainty[0].numpy(), found.mask[0].numpy()
        return cls(name, maps, float(found.uncertainty[0]), mask, truth.numpy())


@dataclass
class Tally:
    """Counts over images, one after the other."""

    classes: int

    def __post_init__(self) -> None:
        self._pixels, self._wrong = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
        self._images: list[ImageError] = []

    def update(self, found: Counted) -> None:
        """Add an image; arrays are `[H, W]`. One of ignored pixels only is left out."""
        counted = found.truth != IGNORE
        if not counted.any():
            return
        wrong = (found.mask != found.truth)[counted]
        bins = np.digitize(found.map[counted], edges(self.classes)[1:-1])
        self._pixels += np.bincount(bins, minlength=BINS)
        self._wrong += np.bincount(bins[wrong], minlength=BINS)
        image = ImageError(
            name=found.name, uncertainty=found.uncertainty, error=float(wrong.mean())
        )
        self._images.append(image)

    def result(self) -> Calibration:
        """The calibration over the images so far."""
        return Calibration(
            classes=self.classes,
            pixels=self._pixels.tolist(),
            wrong=self._wrong.tolist(),
            images=self._images,
        )


def joined(parts: Sequence[Calibration]) -> Calibration:
    """Of several labelers of the same classes, each on its own images."""
    return Calibration(
        classes=parts[0].classes,
        pixels=np.sum([p.pixels for p in parts], axis=0).tolist(),
        wrong=np.sum([p.wrong for p in parts], axis=0).tolist(),
        images=[image for part in parts for image in part.images],
    )


def edges(classes: int) -> np.ndarray:
    """Edges of the bins in nats, float64 `[BINS + 1]`, from 0 to ln K."""
    return np.concatenate([[0.0], np.geomspace(LOWEST_NATS, math.log(max(classes, 2)), BINS)])
