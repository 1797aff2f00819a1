"""Exactly floor(fraction * N) candidates are dropped; ties are broken by key."""

from __future__ import annotations

import numpy as np
import pytest

from factory.pipeline.select import UNCERTAIN, drop_count, select


@pytest.mark.parametrize(
    ("n", "fraction", "dropped"),
    [(1, 0.1, 0), (9, 0.1, 0), (10, 0.1, 1), (64, 0.1, 6), (100, 0.29, 29), (30, 0.0, 0)],
)
def test_drop_count_is_exact(n: int, fraction: float, dropped: int) -> None:
    assert drop_count(n, fraction) == dropped
    kept = select(range(n), np.random.default_rng(0).random(n, np.float32), fraction).kept
    assert n - kept.sum() == dropped


def test_the_most_uncertain_are_dropped_with_a_reason() -> None:
    selection = select(range(5), np.array([0.1, 0.9, 0.3, 0.8, 0.2], np.float32), 0.4)
    assert selection.kept.tolist() == [True, False, True, False, True]
    assert selection.reasons(slice(5)) == [None, UNCERTAIN, None, UNCERTAIN, None]
    assert selection.reasons(slice(1, 3)) == [UNCERTAIN, None]
    assert selection.threshold == pytest.approx(0.3)


def test_of_equals_the_later_key_is_dropped_first_in_any_order() -> None:
    values = np.zeros(10, np.float32)
    assert select(range(10), values, 0.3).kept.tolist() == [True] * 7 + [False] * 3
    assert select(range(9, -1, -1), values, 0.3).kept.tolist() == [False] * 3 + [True] * 7


def test_an_uncertainty_of_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="sample 7 has uncertainty nan"):
        select([6, 7], np.array([0.1, np.nan], np.float32), 0.1)
