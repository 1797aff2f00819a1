"""factory.reports.calibration: by hand on a few pixels, and at its limits."""

from __future__ import annotations

import numpy as np
import pytest

from factory.reports.calibration import Calibration, Counted, Tally, edges, joined

CLASSES = 3


def counted(name: str, maps: np.ndarray, wrong: np.ndarray, ignored: int = 0) -> Counted:
    """A row of pixels with these uncertainties; `ignored` more at its end are not to be counted."""
    mask = np.concatenate([wrong.astype(np.uint8), np.ones(ignored, np.uint8)])[None]
    truth = np.concatenate([np.zeros(len(wrong), np.uint8), np.full(ignored, 255, np.uint8)])[None]
    maps = np.concatenate([maps, np.full(ignored, 1.0)])[None].astype(np.float32)
    return Counted(name, maps, float(maps.max()), mask, truth)


def of(*images: Counted) -> Calibration:
    tally = Tally(CLASSES)
    for image in images:
        tally.update(image)
    return tally.result()


def test_bins_cover_every_uncertainty():
    ends = edges(CLASSES)
    assert ends[0] == 0
    assert ends[-1] == pytest.approx(np.log(CLASSES))
    found = of(counted("a", np.array([0, 1e-9, 0.3, np.log(CLASSES), 5.0]), np.zeros(5, bool)))
    assert sum(found.pixels) == 5
    assert found.pixels[0] == 2


def test_ignored_pixels_do_not_count():
    found = of(counted("a", np.full(10, 0.2), np.arange(10) < 3, ignored=7))
    assert sum(found.pixels) == 10
    assert found.error == pytest.approx(0.3)
    assert found.images[0].error == pytest.approx(0.3)
    assert of(counted("b", np.empty(0), np.empty(0, bool), ignored=4)).images == []


def test_perfect_uncertainty_has_the_least_area():
    """Each wrong pixel is more uncertain than all right ones."""
    maps = np.geomspace(1e-5, 1, 20_000)
    found = of(counted("a", maps, np.arange(20_000) >= 16_000))
    assert found.error == pytest.approx(0.2)
    assert found.area == pytest.approx(found.least_area, abs=2e-3)
    assert found.least_area == pytest.approx(0.2 + 0.8 * np.log(0.8))


def test_useless_uncertainty_has_the_area_of_the_error_rate():
    rng = np.random.default_rng(0)
    found = of(counted("a", rng.uniform(0, 1, 50_000), rng.uniform(size=50_000) < 0.25))
    assert found.area == pytest.approx(0.25, abs=0.01)
    coverage, risk = found.risk_coverage()
    assert coverage[-1] == 1
    assert risk[-1] == pytest.approx(found.error)


def test_reliability_rises_if_uncertain_pixels_are_wrong_more_often():
    rng = np.random.default_rng(0)
    maps = rng.uniform(0, 1, 50_000)
    found = of(counted("a", maps, rng.uniform(size=50_000) < maps))
    x, y = found.reliability()
    assert len(x) >= 10
    assert x == sorted(x)
    assert np.abs(np.array(x) - y).max() < 0.03


def test_the_dropped_tenth_are_the_most_uncertain_images():
    images = [counted(str(i), np.array([i / 20]), np.array([True])) for i in (3, 19, 5, *range(17))]
    found = of(*images)
    assert [found.images[i].name for i in found.dropped()] == ["19", "16"]
    assert len(of(images[0]).dropped()) == 1


def test_parts_join():
    a = of(counted("a", np.array([0.1, 0.2]), np.array([True, False])))
    b = of(counted("b", np.array([0.3]), np.array([True])))
    both = joined([a, b])
    assert both == of(
        counted("a", np.array([0.1, 0.2]), np.array([True, False])),
        counted("b", np.array([0.3]), np.array([True])),
    )
    assert Calibration.model_validate(both.model_dump(mode="json")) == both
