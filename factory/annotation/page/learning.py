"""What proposals are made of: an ensemble trained in seconds on what has been drawn so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from factory.annotation.page.features import DrawnFeatures
from factory_core.images import IGNORE, mask_tensor
from generators.base import FeatureMaps
from labelers.config import FastTraining, LabelerConfig, Uncertainty
from labelers.labeler import GeneratorInfo, Labeler
from labelers.training.fit import fit

# Less than half of the members of `--fast`, and a tenth of its steps: a proposal has to be there
# when the next stroke begins.
QUICK = LabelerConfig(
    members=4,
    hidden=(64, 32),
    training=FastTraining(steps=60, batch_pixels=256, lr=1e-2),
    class_weights="balanced",
    min_class_pixels=1,
    vote="soft",
)
# Members that learn for a second differ little, but they know where classes are alike.
UNCERTAINTY: Uncertainty = "entropy"
LEARNT_PX = 256  # longest side at which masks are learnt from
PIXELS_OF_CLASS = 512  # of each class in an image: neighbours look alike
SHOWN_PX = 512  # longest side at which proposals are computed; they are enlarged to the picture
REGION_SHARE = 0.6  # of the clicked pixel's probability: what belongs to its region
REGION_LEAST = 0.1  # probability of the class at the clicked pixel


class Cancelled(Exception):
    """A newer stroke has made a training pointless."""


@dataclass(frozen=True)
class Proposal:
    """Proposed class ids uint8 `[H, W]` and how uncertain each is.

    `levels` uint8 `[H, W]`: 0 certain, 255 the most that is possible. `probabilities` float32
    `[K, h, w]` at the size of their computation.
    """

    ids: np.ndarray
    levels: np.ndarray
    probabilities: np.ndarray

    def region(self, x: int, y: int, class_id: int) -> np.ndarray | None:
        """The connected pixels, bool `[H, W]`, that are of that class as much as the one at x, y.

        None where that class is improbable.
        """
        p = self.probabilities[class_id]
        height, width = self.ids.shape
        at = y * p.shape[0] // height, x * p.shape[1] // width
        if p[at] < REGION_LEAST:
            return None
        parts, _ = ndimage.label(p >= min(0.5, REGION_SHARE * float(p[at])))
        inside = (parts == parts[at]).astype(np.uint8)
        return mask_tensor(inside, (height, width)).numpy().astype(bool)


def chosen_pixels(ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`ids` with at most PIXELS_OF_CLASS pixels of each class, the others 255."""
    flat, kept = ids.ravel(), np.full(ids.size, IGNORE, np.uint8)
    for class_id in np.unique(flat[flat != IGNORE]):
        pixels = np.flatnonzero(flat == class_id)
        if len(pixels) > PIXELS_OF_CLASS:
            pixels = rng.choice(pixels, PIXELS_OF_CLASS, replace=False)
        kept[pixels] = class_id
    return kept.reshape(ids.shape)


def learn(
    drawn: DrawnFeatures,
    masks: Mapping[str, np.ndarray],
    classes: Sequence[str],
    generator: GeneratorInfo,
    cancelled: Callable[[], bool] = lambda: False,
) -> Labeler:
    """Train on the masks uint8 `[H, W]` of the pictures in `drawn`; takes a second or two.

    Raises Cancelled, and ValueError if fewer than two classes are drawn.
    """
    heights, widths = zip(*(masks[name].shape for name in drawn.names), strict=True)
    size = min(max(heights), LEARNT_PX), min(max(widths), LEARNT_PX)
    rng = np.random.default_rng(0)
    stack = torch.stack(
        [
            torch.from_numpy(chosen_pixels(mask_tensor(masks[name], size).numpy(), rng))
            for name in drawn.names
        ]
    )

    def report(_: object) -> None:
        if cancelled():
            raise Cancelled

    report(None)
    return fit(
        *(drawn, stack, QUICK),
        classes=classes,
        generator=generator,
        data_digest="",
        progress=report,
    )


def propose(
    labeler: Labeler, images: torch.Tensor | None, features: FeatureMaps, size: tuple[int, int]
) -> Proposal:
    """What the labeler says about a picture of `size` (H, W), as `Labeler.predict`."""
    shrink = min(1.0, SHOWN_PX / max(size))
    at = (max(1, round(size[0] * shrink)), max(1, round(size[1] * shrink)))
    found = labeler.predict(images, features, at, uncertainty=UNCERTAINTY, probabilities=True)
    assert found.probabilities is not None
    most = math.log(len(labeler.classes))
    levels = (found.pixel_uncertainty[0] / most * 255).round().clamp(0, 255).to(torch.uint8)
    ids = mask_tensor(found.mask[0].numpy(), size).numpy()
    return Proposal(
        ids, mask_tensor(levels.numpy(), size).numpy(), found.probabilities[0].float().numpy()
    )
