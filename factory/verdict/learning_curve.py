"""What more annotated images would buy: scores over label budgets, extrapolated with an interval.

Over the range of a few doublings, the scores of segmenters rise about linearly with the logarithm
of the number of images (Sun et al. 2017 find the same far beyond it). Each split gives one slope,
and the slopes of all splits give an interval, as differences between contenders do. A straight line
flatters the gain near saturation, so it is an upper estimate there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from factory.verdict.statistics import Interval, interval

MORE_IMAGES = 8
MIN_BUDGET = 2


@dataclass(frozen=True)
class Curve:
    """Mean mIoU by number of training images, and the gain to expect from MORE_IMAGES further ones.

    `gain` is None if there are fewer than two budgets.
    """

    means: dict[int, float]
    gain: Interval | None


def budgets(images: int) -> list[int]:
    """A quarter, a half and all of `images`, at least MIN_BUDGET, ascending and distinct."""
    parts = {max(MIN_BUDGET, math.ceil(images * share)) for share in (0.25, 0.5, 1)}
    return sorted(part for part in parts if part <= images)


def fit_curve(scores: Mapping[int, Mapping[int, float]], labeled: int, test_share: float) -> Curve:
    """The curve of `scores`, by split and number of training images.

    `labeled` is how many annotated images there are: the gain is that from `labeled` to
    `labeled + MORE_IMAGES`. Splits whose whole training sets differ by an image count as one point,
    of their mean size: their test images differ, so apart they could not be compared. For the same
    reason, the means are over the splits with the most budgets.
    """
    shares = {split: _shares(row) for split, row in scores.items()}
    most = max(shares.values(), key=len, default=())
    rows = [sorted(scores[split].items()) for split, found in shares.items() if found == most]
    by_share = np.mean(rows, axis=0) if rows else ()
    means = {round(float(size)): float(score) for size, score in by_share}
    slopes = [_slope(row) for row in scores.values() if len(row) > 1]
    if not slopes:
        return Curve(means, None)
    doublings = math.log2((labeled + MORE_IMAGES) / labeled)
    return Curve(means, interval([slope * doublings for slope in slopes], test_share))


def _shares(row: Mapping[int, float]) -> tuple[int, ...]:
    """Which parts of its training images a split has scores of: -1 all, -2 a half, -3 a quarter."""
    sizes = budgets(max(row))
    return tuple(sizes.index(size) - len(sizes) for size in sorted(row))


def _slope(row: Mapping[int, float]) -> float:
    """mIoU per doubling of the number of images, by least squares."""
    x = np.log2(list(row))
    return float(np.polyfit(x, list(row.values()), 1)[0])


def rows_by_split(
    cells: Sequence[tuple[int, int, float]],
) -> dict[int, dict[int, float]]:
    """(split, images, score) triples as `fit_curve` takes them."""
    rows: dict[int, dict[int, float]] = {}
    for split, images, score in cells:
        rows.setdefault(split, {})[images] = score
    return rows
