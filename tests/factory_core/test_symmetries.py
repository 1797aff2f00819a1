"""Flips and quarter turns."""

from __future__ import annotations

import torch

from factory_core.symmetries import augment


def test_augmentation_only_moves_pixels() -> None:
    x = torch.rand(8, 3, 4, 4)
    rng = torch.Generator().manual_seed(0)
    moved = augment(x, flips=True, quarter_turns=True, rng=rng)
    assert not torch.equal(moved, x)
    torch.testing.assert_close(moved.flatten(2).sort().values, x.flatten(2).sort().values)
    assert augment(x, False, False, rng) is x
