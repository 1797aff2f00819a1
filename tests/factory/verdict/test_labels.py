"""Class shares, and labels that are aligned to them."""

from __future__ import annotations

import torch

from factory.verdict.labels import align_shares, class_shares, levels_of


def test_shares_leave_ignored_pixels_out() -> None:
    masks = torch.tensor([[[0, 0, 1, 255]], [[0, 255, 255, 255]]], dtype=torch.uint8)
    assert class_shares(masks, 3).tolist() == [0.75, 0.25, 0.0]


def test_a_rare_class_gets_its_share_where_it_is_most_likely() -> None:
    rng = torch.Generator().manual_seed(0)
    rare = 0.3 * torch.rand((4, 16, 16), generator=rng) ** 4  # never the most likely class
    levels = levels_of(torch.stack([1 - rare, rare], 1))
    assert (levels.argmax(1) == 1).sum() == 0
    shares = torch.tensor([0.75, 0.25])
    aligned = align_shares(levels, shares)
    means = aligned.double().mean((0, 2, 3)) / 255
    torch.testing.assert_close(means, shares.double(), atol=0.01, rtol=0)
    found = aligned.argmax(1) == 1
    assert 0 < found.double().mean() < 0.25
    assert rare[found].min() > rare[~found].max() - 0.01  # the order stays, but for rounding


def test_aligned_labels_stay() -> None:
    levels = levels_of(torch.tensor([[0.8, 0.2], [0.2, 0.8]]).view(2, 2, 1, 1))
    assert torch.equal(align_shares(levels, torch.tensor([0.5, 0.5])), levels)


def test_a_class_without_masks_disappears() -> None:
    levels = levels_of(torch.tensor([[0.5, 0.3, 0.2], [0.0, 0.0, 1.0]]).view(2, 3, 1, 1))
    aligned = align_shares(levels, torch.tensor([0.6, 0.4, 0.0]))
    assert aligned[:, 2].flatten().tolist() == [0, 255]  # nothing else is possible at the second


def test_levels_may_have_any_sum() -> None:
    levels = torch.tensor([[510, 0], [204, 306]], dtype=torch.int16).view(2, 2, 1, 1)
    assert align_shares(levels, torch.tensor([0.7, 0.3]))[1].flatten().tolist() == [102, 153]
