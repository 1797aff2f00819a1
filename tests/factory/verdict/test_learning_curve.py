"""Extrapolation over label budgets, and the choice of images to annotate."""

from __future__ import annotations

import math

import numpy as np
import pytest

from factory.verdict.learning_curve import budgets, fit_curve, next_images, rows_by_split


@pytest.mark.parametrize(
    ("images", "wanted"), [(18, [5, 9, 18]), (9, [3, 5, 9]), (4, [2, 4]), (2, [2])]
)
def test_budgets(images: int, wanted: list[int]) -> None:
    assert budgets(images) == wanted


def test_an_exact_line_is_continued_exactly() -> None:
    rows = {split: {n: 0.5 + 0.1 * math.log2(n) for n in (2, 4, 8)} for split in range(3)}
    curve = fit_curve(rows, labeled=8, test_share=0.5)
    assert curve.means == pytest.approx({2: 0.6, 4: 0.7, 8: 0.8})
    assert curve.gain is not None
    assert curve.gain.mean == pytest.approx(0.1)  # 8 more are a doubling
    assert curve.gain.half_width == pytest.approx(0, abs=1e-9)


def test_noise_widens_the_interval() -> None:
    rows = {0: {2: 0.5, 8: 0.7}, 1: {2: 0.6, 8: 0.6}}
    gain = fit_curve(rows, 8, 0.5).gain
    assert gain is not None
    assert gain.mean == pytest.approx(0.05)
    assert gain.low < 0 < gain.high


def test_one_budget_gives_no_curve() -> None:
    assert fit_curve({0: {2: 0.5}}, 3, 0.5).gain is None


def test_rows_by_split() -> None:
    assert rows_by_split([(0, 2, 0.5), (0, 4, 0.6), (1, 2, 0.4)]) == {
        0: {2: 0.5, 4: 0.6},
        1: {2: 0.4},
    }


def test_the_next_images_are_uncertain_and_differ() -> None:
    uncertainty = np.array([0.9, 0.89, 0.88, 0.87, 0.86, 0.85, 0.84, 0.83, *[0.1] * 12])
    descriptors = np.zeros((20, 2))
    descriptors[3] = descriptors[4] = 5  # two equal images, far from the first
    descriptors[10] = 100  # far, but certain
    chosen = next_images(uncertainty, descriptors, 2)
    assert chosen == [0, 3]


def test_no_more_images_than_there_are() -> None:
    assert sorted(next_images(np.ones(3), np.eye(3), 8)) == [0, 1, 2]
    assert next_images(np.ones(0), np.ones((0, 2)), 8) == []
