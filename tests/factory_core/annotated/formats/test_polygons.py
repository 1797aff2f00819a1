"""Polygons to pixels and back."""

from __future__ import annotations

import numpy as np
import pytest

from factory_core.annotated.formats.polygons import area, fill, joined, outlines
from factory_core.annotated.formats.regions import Region, draw, regions_of


@pytest.mark.parametrize("seed", range(5))
def test_outlines_give_back_every_pixel(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = np.kron(rng.integers(0, 3, (9, 7)), np.ones((2, 3))).astype(np.uint8)
    ids[rng.random(ids.shape) < 0.2] = 1  # specks, holes, pixels that touch by a corner
    regions = list(regions_of(ids, ["background", "a", "b"]))
    for region in regions:
        rings = outlines(region)
        assert sum(area(ring) for ring in rings) == region.inside.sum()
        assert sum(area(ring) > 0 for ring in rings) == 1
        filled, crossed = fill(region.label, joined(rings), ids.shape)
        assert not crossed
        assert filled is not None
        assert filled.window == region.window
        assert np.array_equal(filled.inside, region.inside)
    drawn, overlapped = draw(regions, ids.shape, {"a": 1, "b": 2}, 0)
    assert np.array_equal(drawn, ids)
    assert overlapped == 0


def test_centres_decide() -> None:
    region, _ = fill("a", np.array([[0.4, 0.4], [2.6, 0.4], [2.6, 1.6], [0.4, 1.6]]), (4, 4))
    assert region is not None
    assert (region.top, region.left, region.inside.shape) == (0, 0, (2, 3))
    region, _ = fill("a", np.array([[0.6, 0.6], [2.4, 0.6], [2.4, 1.45], [0.6, 1.45]]), (4, 4))
    assert region is not None
    assert (region.top, region.left, region.inside.shape) == (1, 1, (1, 1))  # no centre


def test_a_region_smaller_than_a_pixel_survives() -> None:
    small = np.array([[2.1, 3.1], [2.3, 3.1], [2.2, 3.3]])
    region, _ = fill("a", small, (5, 5))
    assert region is not None
    assert (region.top, region.left, region.inside.tolist()) == (3, 2, [[True]])
    assert fill("a", small + 10, (5, 5)) == (None, False)  # outside the picture


def test_polygons_that_cross_themselves_are_filled_by_the_even_odd_rule() -> None:
    bow = np.array([[0, 0], [6, 6], [6, 0], [0, 6]])
    region, crossed = fill("a", bow, (6, 6))
    assert crossed
    assert region is not None
    star = np.array([[0, 0], [6, 0], [6, 6], [0, 6], [0, 0], [4, 0], [4, 4], [0, 4]])
    region, crossed = fill("a", star, (6, 6))
    assert crossed
    assert region is not None
    assert not region.inside[:4, :4].any()
    assert region.inside.sum() == 20


def test_large_fills_are_cut_into_bands() -> None:
    whole = np.array([[-5, -5], [3000, -5], [3000, 2500], [-5, 2500]])
    region, crossed = fill("a", whole, (2100, 2500))
    assert region is not None
    assert region.inside.all()
    assert region.inside.shape == (2100, 2500)
    assert not crossed


def test_overlaps_are_counted_once() -> None:
    pixels = np.ones((2, 2), bool)
    regions = [Region("a", pixels), Region("b", pixels, 1, 1), Region("a", pixels, 1, 1)]
    ids, overlapped = draw(regions, (3, 3), {"a": 1, "b": 2}, 0)
    assert ids.tolist() == [[1, 1, 0], [1, 1, 1], [0, 1, 1]]
    assert overlapped == 4
