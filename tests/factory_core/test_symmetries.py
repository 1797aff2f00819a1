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
    ("square", "mirrored", "turns"),
    [(True, True, (0, 1, 2, 3)), (False, True, (0, 2)), (True, True, (0,)), (True, False, (0, 1))],
)
def test_all_changes_differ_and_are_undone(
    square: bool, mirrored: bool, turns: tuple[int, ...]
) -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4) if square else torch.arange(12.0).view(1, 1, 3, 4)
    found = symmetries(mirrored, turns)
    seen = {tuple(change(x).flatten().tolist()) for change, _ in found}
    assert len(seen) == len(found) == len(turns) * (1 + mirrored)
    for change, back in found:
        assert change(x).shape == x.shape
        assert torch.equal(back(change(x)), x)
