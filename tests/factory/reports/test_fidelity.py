"""factory.reports.fidelity: analytic values, collapsed colours, small sets."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from rich.console import Console

from factory.reports import fidelity
from generators.base import FeatureMaps


def images(n: int, seed: int, blue_spread: float = 40.0) -> torch.Tensor:
    """uint8 [n, 3, 8, 8]: a random colour per image plus pixel noise."""
    random = np.random.default_rng(seed)
    colour = 128 + random.normal(size=(n, 3, 1, 1)) * np.array([20, 20, blue_spread])[:, None, None]
    pixels = colour + random.normal(size=(n, 3, 8, 8)) * 5
    return torch.from_numpy(pixels.clip(0, 255).astype(np.uint8))


def vectors(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)) * np.linspace(1, 3, d)


@pytest.mark.parametrize(("n", "d"), [(50, 4), (4, 50)])
def test_frechet_of_equal_sets_is_zero_and_of_a_shift_its_square(n: int, d: int):
    a = vectors(n, d, 0)
    assert fidelity.frechet_distance(a, a) == pytest.approx(0, abs=1e-10)
    shift = np.linspace(-1, 2, d)
    assert fidelity.frechet_distance(a, a + shift) == pytest.approx(shift @ shift)


def test_frechet_of_scaled_vectors_is_the_analytic_value():
    """Covariances C and 9C: Tr(C + 9C - 6C) = 4 Tr C."""
    a = vectors(60, 5, 0)
    a -= a.mean(axis=0)
    expected = 4 * np.trace(np.cov(a.T))
    assert fidelity.frechet_distance(a, 3 * a) == pytest.approx(expected)


def test_frechet_equals_the_root_by_eigenvalues():
    """Tr (C_a C_b)^½ is the sum of the square roots of the eigenvalues of C_a C_b."""
    a, b = vectors(40, 6, 1), vectors(70, 6, 2) @ vectors(6, 6, 3)
    ca, cb = np.cov(a.T), np.cov(b.T)
    shift = a.mean(axis=0) - b.mean(axis=0)
    root = np.sqrt(np.linalg.eigvals(ca @ cb).real).sum()
    expected = shift @ shift + np.trace(ca) + np.trace(cb) - 2 * root
    assert fidelity.frechet_distance(a, b) == pytest.approx(expected)


def test_kernel_distance_is_the_plain_sum_over_pairs():
    a, b = vectors(5, 3, 0), vectors(4, 3, 1)

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 3 + 1) ** 3)

    def within(v: np.ndarray) -> float:
        others = [kernel(x, y) for i, x in enumerate(v) for j, y in enumerate(v) if i != j]
        return float(np.mean(others))

    expected = within(a) + within(b) - 2 * np.mean([kernel(x, y) for x in a for y in b])
    assert fidelity.kernel_distance(a, b) == pytest.approx(expected)


def test_kernel_distance_is_unbiased_where_the_frechet_distance_is_not():
    """Sets of 20 images from one distribution, of 100 features."""
    pairs = [(vectors(20, 100, 2 * i), vectors(20, 100, 2 * i + 1)) for i in range(60)]
    found = [fidelity.kernel_distance(a, b) for a, b in pairs]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(len(found))
    assert min(fidelity.frechet_distance(a, b) for a, b in pairs[:5]) > 50
    assert fidelity.kernel_distance(pairs[0][0], pairs[0][1] + 1) > 10 * np.std(found)


@pytest.mark.parametrize("d", [3, 200])
def test_same_distribution_is_near_the_noise_floor_and_a_shift_is_not(d: int):
    """Also with far fewer images than dimensions."""
    real, fresh = vectors(80, d, 0), vectors(300, d, 1)
    pictures = images(80, 0), images(80, 1)
    same = fidelity.compare(*pictures, (fresh, real)).frechet
    moved = fidelity.compare(*pictures, (fresh + 2, real))
    assert same is not None
    assert moved.frechet is not None
    assert same.n == 40
    assert same.dimensions == d
    assert 0.5 < same.ratio < 2
    assert moved.frechet.ratio > fidelity.MAX_FRECHET_RATIO
    assert any("features are" in line for line in moved.verdict)


def test_units_of_a_feature_do_not_matter():
    """Also where a feature is constant on the real images."""
    real, fresh = vectors(40, 4, 0), vectors(40, 4, 1)
    real[:, 3] = fresh[:, 3] = 7.0
    scale = np.array([1e-3, 1.0, 1e3, 1.0])
    pictures = images(40, 0), images(40, 1)
    plain = fidelity.compare(*pictures, (fresh, real)).frechet
    scaled = fidelity.compare(*pictures, (fresh * scale, real * scale)).frechet
    assert plain is not None
    assert scaled is not None
    assert scaled.distance == pytest.approx(plain.distance)


def test_colour_statistics():
    flat = torch.zeros(4, 3, 2, 2, dtype=torch.uint8)
    flat[2:, 2] = 200
    stats = fidelity.colour_stats(flat)
    assert stats.mean == pytest.approx((0, 0, 100))
    assert stats.std == pytest.approx((0, 0, 100))
    assert stats.between == pytest.approx((0, 0, np.std([0, 0, 200, 200], ddof=1)))


def test_equal_sets_agree():
    real = images(60, 0)
    result = fidelity.compare(real, real)
    assert result.agrees
    assert result.synthetic == result.real
    assert "no domain gap" in result.verdict[0]
    assert fidelity.compare(images(100, 2), real).agrees


def test_collapsed_colours_are_flagged():
    result = fidelity.compare(images(200, 0, blue_spread=10), images(200, 1))
    assert not result.agrees
    assert result.verdict[0].startswith("between images, colour varies ")
    assert result.verdict[0].endswith("x less than in the real images (blue)")


def test_shifted_colours_are_flagged():
    real = images(100, 0)
    result = fidelity.compare(real // 2, real)
    assert any("mean colour is off by -6" in line for line in result.verdict)


def test_a_difference_that_may_be_chance_is_not_a_gap():
    assert fidelity.compare(images(4, 0, blue_spread=25), images(4, 1)).agrees


def test_table_and_json():
    result = fidelity.compare(images(30, 0), images(30, 1), (vectors(30, 5, 0), vectors(30, 5, 1)))
    console = Console(width=100, record=True, quiet=True)
    console.print(fidelity.render_table(result))
    parsed = json.loads(json.dumps(result.to_dict()))
    assert parsed["frechet"]["ratio"] > 0
    assert set(parsed["kernel"]) == {"distance", "noise_floor", "spread", "n"}
    assert parsed["real"]["n"] == 30
    assert len(parsed["synthetic"]["between"]) == 3


def test_pool_averages_space_and_joins_channels():
    maps = FeatureMaps({"a": torch.ones(2, 3, 4, 4), "b": torch.full((2, 1, 8, 8), 5.0)})
    assert maps.pooled().tolist() == [[1, 1, 1, 5]] * 2


@pytest.mark.parametrize(
    ("synthetic", "real", "features", "message"),
    [
        (1, 5, None, "found 1 synthetic image"),
        (5, 1, None, "found 1 real image"),
        (5, 5, (vectors(5, 2, 0), vectors(3, 2, 0)), "expected at least 2 and 4"),
        (5, 5, (vectors(5, 2, 0), vectors(5, 3, 0)), r"expected \[N, D\] and \[M, D\]"),
    ],
)
def test_bad_input_is_one_line(synthetic, real, features, message):
    with pytest.raises(ValueError, match=message) as error:
        fidelity.compare(images(synthetic, 0), images(real, 1), features)
    assert "\n" not in str(error.value)


def test_wrong_layout_is_refused():
    with pytest.raises(ValueError, match=r"expected \[N, 3, H, W\]"):
        fidelity.colour_stats(torch.zeros(4, 8, 8, 3, dtype=torch.uint8), "real")
