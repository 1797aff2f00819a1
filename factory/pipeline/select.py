"""Which candidates are dropped, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

UNCERTAIN = "uncertain"


@dataclass(frozen=True)
class Selection:
    """`kept` bool `[N]` of N candidates; `threshold` is the largest uncertainty kept, in nats."""

    kept: np.ndarray
    threshold: float

    def reasons(self, rows: slice) -> list[str | None]:
        """Why each of these candidates is dropped; None if it is kept."""
        return [None if keep else UNCERTAIN for keep in self.kept[rows].tolist()]


def drop_count(n: int, drop_fraction: float) -> int:
    """Exactly floor(drop_fraction * n), for the fraction as written in decimal.

    In binary floating point floor(0.29 * 100) would be 28.
    """
    return int(Fraction(str(drop_fraction)) * n)


def select(
    indices: Sequence[int] | np.ndarray, uncertainty: np.ndarray, drop_fraction: float
) -> Selection:
    """Drop the floor(drop_fraction * N) most uncertain of N >= 1 candidates.

    `uncertainty` is float32 `[N]` in nats. Of equally uncertain candidates, the one with the larger
    index is dropped first, so the result does not depend on the order of the candidates.

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
    order = np.lexsort((np.asarray(indices), values))  # by uncertainty, then by index
    kept = np.ones(len(values), bool)
    kept[order[len(values) - drop_count(len(values), drop_fraction) :]] = False
    return Selection(kept, float(values[kept].max()))
