"""The Dice loss over classes."""

from __future__ import annotations

import pytest
import torch

from factory_core.dice import dice_sums, loss_of_sums


def test_by_hand() -> None:
    """Two classes of three; p is 1 or 0. The last pixel is ignored."""
    masks = torch.tensor([[[0, 0, 1, 255]]], dtype=torch.uint8)
    logits = torch.zeros(1, 3, 1, 4)
    for pixel, chosen in enumerate((0, 1, 1, 2)):
        logits[0, chosen, 0, pixel] = 100
    sums = dice_sums(logits, masks)
    torch.testing.assert_close(sums, torch.tensor([[1.0, 1, 0], [1, 2, 0], [2, 1, 0]]))
    assert float(loss_of_sums(sums)) == pytest.approx(1 - 2 / 3)
    assert loss_of_sums(torch.zeros(3, 3)) == 0


def test_batches_add_up() -> None:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, 5, 5, generator=rng)
    masks = torch.randint(0, 3, (4, 5, 5), generator=rng, dtype=torch.uint8)
    parts = dice_sums(logits[:1], masks[:1]) + dice_sums(logits[1:], masks[1:])
    torch.testing.assert_close(parts, dice_sums(logits, masks))
