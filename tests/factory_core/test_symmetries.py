"""Flips and quarter turns."""

from __future__ import annotations

import pytest
import torch

from factory_core.symmetries import augment, symmetries


def test_augmentation_only_moves_pixels() -> None:
    x = torch.rand(8, 3, 4, 4)
    rng = torch.Generator().manual_seed(0)
    moved = augment(x, flips=True, quarter_turns=True, rng=rng)
    assert not torch.equal(moved, x)
    torch.testing.assert_close(moved.flatten(2).sort().values, x.flatten(2).sort().values)
    assert augment(x, False, False, rng) is x


@pytest.mark.parametrize(
    ("flips", "turns", "square", "count"),
    [
        ((True, True), True, True, 8),
        ((True, True), False, False, 4),
        ((True, False), False, True, 2),
        ((False, False), True, True, 4),
        ((False, True), False, True, 1),
    ],
)
def test_all_changes_differ_and_are_undone(
    flips: tuple[bool, bool], turns: bool, square: bool, count: int
) -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4) if square else torch.arange(12.0).view(1, 1, 3, 4)
    found = symmetries(*flips, turns)
    seen = {tuple(change(x).flatten().tolist()) for change, _ in found}
    assert len(seen) == len(found) == count
    assert torch.equal(found[0][0](x), x)
    for change, back in found:
        assert change(x).shape == x.shape
        assert torch.equal(back(change(x)), x)
