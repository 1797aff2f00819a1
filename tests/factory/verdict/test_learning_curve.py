"""Extrapolation over label budgets, and the choice of images to annotate."""

from __future__ import annotations

import math

import pytest

from factory.verdict.learning_curve import budgets, fit_curve, rows_by_split


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


def test_training_sets_that_differ_by_an_image_are_one_point() -> None:
    """With 10 images and 4 folds: apart, more images would look worse."""
    rows = {0: {4: 0.5, 8: 0.6}, 1: {4: 0.4, 7: 0.5}}
    assert fit_curve(rows, 10, 1 / 3).means == pytest.approx({4: 0.45, 8: 0.55})


def test_means_are_over_the_same_splits() -> None:
    """When time is up: a split that was only scored with all images is another task."""
    rows = {0: {2: 0.3, 4: 0.5, 8: 0.6}, 1: {2: 0.4, 8: 0.9}, 2: {8: 0.95}}
    curve = fit_curve(rows, 8, 1 / 3)
    assert curve.means == pytest.approx({2: 0.3, 4: 0.5, 8: 0.6})
    assert curve.gain is not None
    assert curve.gain.cells == 2


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
