"""Class probabilities of each pixel in eight bits: KEY.prob.png.

A probability becomes a level from 0 to 255, its 255th part. The levels of a pixel sum to 255, so
class 0 needs no space: the picture holds classes 1 to K-1 only, one below the other.
"""

from __future__ import annotations

import numpy as np

LEVEL_SUM = 255  # of the levels of a pixel


def probability_levels(probabilities: np.ndarray) -> np.ndarray:
    """Levels uint8 `[N, K, H, W]` that sum to 255 over the K classes, by largest remainders.

    `probabilities` are float32 `[N, K, H, W]`, and positive somewhere in each pixel; they are
    divided by their sum. The levels differ from 255 times these by less than 1. Of equal
    remainders, the smaller class id is rounded up.
    """
    exact = probabilities * (LEVEL_SUM / probabilities.sum(axis=1, keepdims=True))
    levels = np.floor(exact + 0.5)
    off = levels.sum(axis=1) != LEVEL_SUM  # rounding is right everywhere else
    rest = np.moveaxis(exact, 1, -1)[off]  # [pixels, K]
    lower = np.floor(rest)
    largest_first = np.argsort(lower - rest, axis=1, kind="stable")
    rank = np.argsort(largest_first, axis=1)
    missing = LEVEL_SUM - lower.sum(axis=1, keepdims=True)
    np.moveaxis(levels, 1, -1)[off] = lower + (rank < missing)
    return levels.astype(np.uint8)


def stacked(levels: np.ndarray) -> np.ndarray:
    """The picture uint8 `[(K-1) H, W]` of the levels uint8 `[K, H, W]`, for K >= 2."""
    return levels[1:].reshape(-1, levels.shape[-1])


def unstacked(picture: np.ndarray, height: int) -> np.ndarray:
    """The inverse of `stacked`, for images of this height.

    Raises ValueError if the picture does not have a multiple of this height, or if the levels of a
    pixel sum to more than 255.
    """
    if not len(picture) or len(picture) % height:
        raise ValueError(f"found {len(picture)} rows, expected a multiple of {height}")
    others = picture.reshape(-1, height, picture.shape[-1])
    sums = others.sum(axis=0, dtype=np.int64)
    if sums.max() > LEVEL_SUM:
        raise ValueError(f"found levels that sum to {sums.max()}, expected at most {LEVEL_SUM}")
    first = (LEVEL_SUM - sums).astype(np.uint8)
    return np.concatenate([first[None], others])
