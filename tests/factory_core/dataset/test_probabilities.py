"""Class probabilities in eight bits: levels by largest remainders, and their picture."""

from __future__ import annotations

import io
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from factory_core.dataset import (
    decode_sample,
    default_palette,
    encode_sample,
    probability_levels,
    unstacked,
)
from factory_core.dataset.probabilities import stacked


def random_probabilities(seed: int) -> np.ndarray:
    """`[2, K, 5, 7]`, from nearly certain to nearly uniform."""
    rng = np.random.default_rng(seed)
    classes, sharpness = int(rng.integers(2, 40)), 10 ** rng.uniform(-2, 1)
    p = rng.dirichlet(np.full(classes, sharpness), (2, 5, 7)).astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(p, -1, 1))


def by_largest_remainders(pixel: np.ndarray) -> list[int]:
    """The levels of one pixel in exact arithmetic."""
    values = [Fraction(float(p)) for p in pixel]
    exact = [255 * value / sum(values) for value in values]
    levels = [int(value) for value in exact]
    order = sorted(range(len(levels)), key=lambda k: (levels[k] - exact[k], k))
    for k in order[: 255 - sum(levels)]:
        levels[k] += 1
    return levels


@pytest.mark.parametrize("seed", range(20))
def test_levels_sum_to_255_and_are_exact_to_one_level(seed: int) -> None:
    p = random_probabilities(seed)
    levels = probability_levels(p)
    assert levels.dtype == np.uint8
    assert (levels.sum(1) == 255).all()
    assert np.abs(levels / 255 - p).max() < 1 / 255
    for n, row, column in ((0, 0, 0), (1, 4, 6), (0, 2, 3)):
        expected = by_largest_remainders(p[n, :, row, column])
        assert levels[n, :, row, column].tolist() == expected


@pytest.mark.parametrize(
    ("pixel", "expected"),
    [
        ([1, 0, 0], [255, 0, 0]),
        ([1 / 3, 1 / 3, 1 / 3], [85, 85, 85]),
        ([0.5, 0.5, 0], [128, 127, 0]),  # of equal remainders, the first
        ([0, 3, 3], [0, 128, 127]),  # not yet divided by their sum
        ([0.998, 0.001, 0.001], [255, 0, 0]),
    ],
)
def test_levels_by_hand(pixel: list[float], expected: list[int]) -> None:
    p = np.array(pixel, np.float32).reshape(1, -1, 1, 1)
    assert probability_levels(p).ravel().tolist() == expected


@pytest.mark.parametrize("seed", range(5))
def test_the_picture_is_lossless(seed: int) -> None:
    for levels in probability_levels(random_probabilities(seed)):
        picture = stacked(levels)
        assert picture.shape == (5 * (len(levels) - 1), 7)
        np.testing.assert_array_equal(unstacked(picture, 5), levels)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((7, 4), np.uint8), "found 7 rows, expected a multiple of 3"),
        (np.zeros((0, 4), np.uint8), "found 0 rows"),
        (np.full((6, 4), 128, np.uint8), "levels that sum to 256, expected at most 255"),
    ],
)
def test_an_impossible_picture_is_refused(picture: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unstacked(picture, 3)


def test_a_sample_with_probabilities() -> None:
    p = random_probabilities(3)[:1]
    levels = probability_levels(p)[0]
    classes = len(levels)
    image, mask = np.zeros((3, 5, 7), np.uint8), levels.argmax(0).astype(np.uint8)
    members = encode_sample(
        "000000001", image, mask, default_palette(classes), {}, probabilities=levels
    )
    assert [name for name, _ in members] == [
        f"000000001.{extension}" for extension in ("json", "png", "prob.png", "seg.png")
    ]
    picture = Image.open(io.BytesIO(members[2][1]))
    assert (picture.mode, picture.size) == ("L", (7, 5 * (classes - 1)))
    sample = decode_sample("000000001", members, classes)
    assert sample.uncertainty is None
    assert sample.probabilities is not None
    assert sample.probabilities.dtype == np.float32
    np.testing.assert_array_equal(np.rint(sample.probabilities * 255), levels)
    np.testing.assert_allclose(sample.probabilities, p[0], atol=1 / 255)
