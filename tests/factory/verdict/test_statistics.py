"""The corrected resampled t-test, against hand-computed and simulated values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from factory.verdict.statistics import interval, paired


def test_by_hand() -> None:
    found = interval([0.01, 0.02, 0.03], test_share=0.5)
    # Variance 1e-4, factor 1/3 + 1/2; the 0.975 quantile of t with 2 degrees of freedom is 4.3027.
    assert found.mean == pytest.approx(0.02)
    assert found.half_width == pytest.approx(4.30265 * math.sqrt(1e-4 * (1 / 3 + 1 / 2)), rel=1e-5)
    assert not found.is_positive


def test_without_correction_it_is_the_paired_t_test() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 8))
    found = interval((a - b).tolist(), test_share=0)
    wanted = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))


def test_the_correction_holds_the_level_where_the_plain_test_does_not() -> None:
    """Means of overlapping training sets: the truth is 0, and 5 % of the tests may miss it."""
    rng, folds, images, misses = np.random.default_rng(1), 4, 12, np.zeros(2)
    for _ in range(400):
        values = rng.normal(size=images)
        differences = []
        for _seed in range(2):
            for test in np.array_split(rng.permutation(images), folds):
                differences.append(np.delete(values, test).mean() + rng.normal() / 100)
        for i, share in enumerate((0, 1 / (folds - 1))):
            found = interval(differences, share)
            misses[i] += found.is_positive or found.is_negative
    assert misses[1] < misses[0]


def test_one_pair_proves_nothing() -> None:
    found = interval([0.3], 0.5)
    assert found.half_width == math.inf
    assert not found.is_positive
    assert not found.is_negative


def test_only_common_splits_count() -> None:
    found = paired({0: 0.5, 1: 0.7, 3: 0.9}, {0: 0.4, 1: 0.5, 2: 0.0}, 0.5)
    assert found is not None
    assert found.cells == 2
    assert found.mean == pytest.approx(0.15)
    assert paired({0: 0.5}, {1: 0.5}, 0.5) is None
