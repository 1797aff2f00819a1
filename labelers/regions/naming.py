"""Naming the regions of a factorized generator: which class each of them is.

The masks m are learned by denoising alone (Yuan & Maire 2023). What region k shows is found by
counting: on annotated images, the one assignment of regions to classes that explains most pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def match_regions(confusion: Tensor) -> tuple[int, ...]:
    """The class of each region, from the pixels `[K, C]` that regions and classes share.

    One class per region, and no class twice, such that most pixels agree (Hungarian matching); if
    there are more regions than classes, the others get the class of most of their pixels.
    """
    from scipy.optimize import linear_sum_assignment  # not needed to label

    class_of = confusion.argmax(1).tolist()
    for region, class_id in zip(*linear_sum_assignment(confusion, maximize=True), strict=True):
        class_of[region] = int(class_id)
    return tuple(class_of)


def resized(m: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks `[N, K, H, W]`, float32, of masks `[N, K, h, w]`."""
    m = m.float()
    return m if tuple(m.shape[-2:]) == size else F.interpolate(m, size, mode="bilinear")


def class_probabilities(m: Tensor, class_of: Sequence[int], classes: int) -> Tensor:
    """Probabilities `[N, C, H, W]` of the classes: the sums of their regions `[N, K, H, W]`."""
    p = m.new_zeros(len(m), classes, *m.shape[-2:])
    return p.index_add_(1, torch.tensor(class_of, device=m.device), m)
