"""Which candidates are dropped, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from factory.recipe.schema import SelectionPolicy

UNCERTAIN = "uncertain"


@dataclass(frozen=True)
class Selection:
    """`kept` bool `[N]` of N candidates; `threshold` is the largest uncertainty kept, in nats."""

    kept: np.ndarray
    threshold: float

    def reasons(self, rows: slice) -> list[str | None]:
        """Why each of these candidates is dropped; None if it is kept."""
        return [None if keep else UNCERTAIN for keep in self.kept[rows].tolist()]


def drop_count(n: int, drop_fraction: float, policy: SelectionPolicy = "uncertain") -> int:
    """Exactly floor(drop_fraction * n), for the fraction as written in decimal; 0 with `none`.

    In binary floating point floor(0.29 * 100) would be 28.
    """
    return 0 if policy == "none" else int(Fraction(str(drop_fraction)) * n)


def select(
    indices: Sequence[int] | np.ndarray,
    uncertainty: np.ndarray,
    drop_fraction: float,
    policy: SelectionPolicy = "uncertain",
    class_pixels: np.ndarray | None = None,
) -> Selection:
    """Drop `drop_count` of N >= 1 candidates: the most uncertain of all, or of each group.

    `uncertainty` is float32 `[N]` in nats. Of equally uncertain candidates, the one with the larger
    index is dropped first, so the result does not depend on the order of the candidates.

    With `per_class`, candidates compete only with those of the same `characteristic_class`, and
    each of these groups loses its proportional part. It needs `class_pixels`, integers `[N, K]`.

    Raises:
        ValueError: an uncertainty is not a finite number.
    """
    values = np.asarray(uncertainty)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise ValueError(
            f"sample {indices[bad[0]]} has uncertainty {values[bad[0]]}, expected a finite number"
            f" ({len(bad)} of {len(values)} are not): the labeler or its features are broken"
        )
    groups = np.zeros(len(values), np.int64)
    if policy == "per_class":
        assert class_pixels is not None
        groups = characteristic_class(class_pixels)
    sizes = np.bincount(groups)
    quotas = proportional(drop_count(len(values), drop_fraction, policy), sizes)
    order = np.lexsort((np.asarray(indices), values, groups))  # group, uncertainty, index
    kept = np.ones(len(values), bool)
    for end, quota in zip(np.cumsum(sizes), quotas, strict=True):
        kept[order[end - quota : end]] = False
    return Selection(kept, float(values[kept].max()))


def characteristic_class(class_pixels: np.ndarray) -> np.ndarray:
    """The class of which each candidate has the largest part of all pixels, int64 `[N]`.

    `class_pixels` are integers `[N, K]`. A class counts relative to how common it is: a candidate
    with much of a rare class belongs to that class, even if most of it is background. Of equal
    parts, the class with the smaller id counts.
    """
    parts = class_pixels / np.maximum(class_pixels.sum(axis=0), 1)
    return np.argmax(parts, axis=1)


def proportional(total: int, sizes: np.ndarray) -> list[int]:
    """`total` divided among groups in proportion to their sizes, by largest remainders.

    The parts sum to `total`; each is its exact share rounded down or up. Of equal remainders, the
    first group gets more.
    """
    shares = [divmod(total * size, sum(sizes.tolist())) for size in sizes.tolist()]
    parts = [whole for whole, _ in shares]
    by_remainder = sorted(range(len(shares)), key=lambda group: -shares[group][1])
    for group in by_remainder[: total - sum(parts)]:
        parts[group] += 1
    return parts
