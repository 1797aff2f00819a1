"""Rules on means and standard deviations."""

from __future__ import annotations

import pytest

from factory.analysis.judging import Gain, all_of, difference, is_above, is_equal, points
from train_seg.evaluation.evaluate import Spread


def test_differences_are_paired() -> None:
    gain = difference({0: 0.5, 1: 0.9, 2: 0.1}, {0: 0.4, 1: 0.8})
    assert gain.values == pytest.approx([0.1, 0.1])
    assert points(gain) == "+10.0 ± 0.0"
    assert points(Spread.of([0.494])) == "49.4"
    assert points(Spread.of([])) == "-"


@pytest.mark.parametrize(
    ("values", "above", "equal"),
    [
        ([0.1, 0.2], "holds", "does not hold"),
        ([-0.1, -0.2], "does not hold", "does not hold"),
        ([-0.1, 0.2], "undecided", "holds"),
        ([0.3], "undecided", "undecided"),
        ([], "undecided", "undecided"),
    ],
)
def test_outcomes(values: list[float], above: str, equal: str) -> None:
    assert is_above(Gain.of(values)) == above
    assert is_equal(Gain.of(values)) == equal


def test_all_of() -> None:
    assert all_of(["holds", "holds"]) == "holds"
    assert all_of(["holds", "undecided"]) == "undecided"
    assert all_of(["undecided", "does not hold"]) == "does not hold"
