"""Flips and turns, and back."""

from __future__ import annotations

import pytest
import torch

from factory.verdict.symmetric import symmetries


@pytest.mark.parametrize(
    ("square", "upright", "count"), [(True, False, 8), (False, False, 4), (True, True, 2)]
)
def test_all_changes_differ_and_are_undone(square: bool, upright: bool, count: int) -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4) if square else torch.arange(12.0).view(1, 1, 3, 4)
    found = symmetries(square, upright)
    seen = {tuple(change(x).flatten().tolist()) for change, _ in found}
    assert len(seen) == count == len(found)
    for change, back in found:
        assert change(x).shape == x.shape
        assert torch.equal(back(change(x)), x)
