"""The pixels to learn from, and the order in which members see them."""

from __future__ import annotations

import pytest
import torch

from labelers.training.pixel_order import PixelOrders, training_pixels


def test_small_classes_and_ignored_pixels_are_left_out():
    masks = torch.zeros(2, 8, 8, dtype=torch.uint8)
    masks[0, 0, :4] = 1  # 4 pixels here: too few
    masks[1, :3] = 1  # 24 there
    masks[1, 7] = 255
    pixels = training_pixels(masks, classes=2, min_class_pixels=20)
    kept = torch.zeros(2 * 64, dtype=torch.bool)
    kept[pixels] = True
    expected = torch.ones(2, 8, 8, dtype=torch.bool)
    expected[0, 0, :4] = expected[1, 7] = False
    assert torch.equal(kept.view(2, 8, 8), expected)


def test_masks_without_two_classes_are_refused():
    masks = torch.full((1, 8, 8), 255, dtype=torch.uint8)
    masks[0, :4] = 0  # a 0/255 mask: 255 is not a class
    with pytest.raises(ValueError, match=r"hold 1 class to learn \(ids \[0\]; 255 is ignored"):
        training_pixels(masks, classes=2, min_class_pixels=0)


def test_ids_beyond_the_classes_are_refused():
    masks = torch.arange(64, dtype=torch.uint8).view(1, 8, 8)
    with pytest.raises(ValueError, match="class id 63, expected 5 classes"):
        training_pixels(masks, classes=5, min_class_pixels=0)


def test_every_pass_shows_every_pixel_once_in_its_own_order():
    pixels = torch.arange(100, 130)
    orders = PixelOrders(pixels, members=2, batch_pixels=10, seed=0)
    assert orders.per_epoch == 3
    passes = [torch.cat([orders(3 * e + i) for i in range(3)], 1) for e in range(2)]
    seen = torch.cat(passes)  # pass and member
    assert all(torch.equal(row.sort().values, pixels) for row in seen)
    assert len({tuple(row.tolist()) for row in seen}) == 4


def test_training_can_start_at_any_step():
    def orders() -> PixelOrders:
        return PixelOrders(torch.arange(33), members=3, batch_pixels=8, seed=5)

    first = orders()
    for step in range(10):
        assert torch.equal(orders()(step), first(step)), step


def test_batches_larger_than_the_data():
    orders = PixelOrders(torch.arange(7), members=2, batch_pixels=64, seed=0)
    assert (orders.batch, orders.per_epoch) == (7, 1)
    assert orders(3).shape == (2, 7)
