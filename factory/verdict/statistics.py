"""Whether a difference between two contenders is more than chance.

Contenders are trained and scored on the same splits, so their scores are compared pair by pair.
The training sets of different splits overlap, so the pairs are not independent, and their variance
is too small by an unknown amount. The corrected resampled t-test (Nadeau & Bengio 2003, Inference
for the Generalization Error, section 3) replaces the factor 1/n of the variance of the mean by
1/n + n_test/n_train.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """Mean ± half width of a confidence interval, over `cells` pairs.

    One pair gives no interval: `half_width` is infinite.
    """

    mean: float
    half_width: float
    cells: int

    @property
    def low(self) -> float:
        """Lower end."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """Upper end."""
        return self.mean + self.half_width

    @property
    def is_positive(self) -> bool:
        """Whether the whole interval is above 0: significantly better."""
        return self.low > 0

    @property
    def is_negative(self) -> bool:
        """Whether the whole interval is below 0: significantly worse."""
        return self.high < 0


def interval(differences: Sequence[float], test_share: float) -> Interval:
    """Corrected 95 % confidence interval of the mean of n >= 1 paired differences.

    `test_share` is n_test / n_train, the test images per training image.
    """
    from scipy.stats import t

    n = len(differences)
    mean = float(np.mean(differences))
    if n < 2:
        return Interval(mean, math.inf, n)
    variance = float(np.var(differences, ddof=1)) * (1 / n + test_share)
    half_width = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * math.sqrt(variance)
    return Interval(mean, half_width, n)


def paired(
    scores: Mapping[int, float], baseline: Mapping[int, float], test_share: float
) -> Interval | None:
    """The interval of `scores` minus `baseline`, both by split; None if they share no split."""
    common = sorted(scores.keys() & baseline.keys())
    if not common:
        return None
    return interval([scores[i] - baseline[i] for i in common], test_share)
