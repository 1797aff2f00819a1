"""Evenly spaced numbers."""

from __future__ import annotations

import pytest

from factory_core.spacing import spaced


@pytest.mark.parametrize(
    ("count", "most", "wanted"), [(3, 5, [0, 1, 2]), (10, 4, [0, 2, 5, 7]), (5, 5, [0, 1, 2, 3, 4])]
)
def test_spaced(count: int, most: int, wanted: list[int]) -> None:
    assert spaced(count, most) == wanted
