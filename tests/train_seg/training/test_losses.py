"""Losses by hand, and the Dice loss against segmentation-models-pytorch."""

from __future__ import annotations

import pytest
import segmentation_models_pytorch as smp
import torch
from torch.nn import functional as F

from train_seg.config import SegmenterConfig
from train_seg.training.losses import dice_loss, objective, pixel_loss


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 5, 7, generator=generator)
    masks = torch.randint(0, 3, (2, 5, 7), generator=generator).byte()
    masks[0, :2] = 255
    return logits, masks


def test_pixel_loss_ignores_255():
    logits = torch.randn(1, 3, 2, 2)
    masks = torch.tensor([[[0, 255], [2, 255]]], dtype=torch.uint8)
    labelled = pixel_loss(logits[..., :1], masks[..., :1])
    assert pixel_loss(logits, masks) == pytest.approx(labelled.item())
    assert pixel_loss(logits, torch.full_like(masks, 255)) == 0


def test_dice_equals_smp_if_all_classes_occur(batch):
    logits, masks = batch
    reference = smp.losses.DiceLoss("multiclass", ignore_index=255)(logits, masks.long())
    assert float(dice_loss(logits, masks)) == pytest.approx(float(reference), abs=1e-6)


def test_dice_by_hand():
    masks = torch.tensor([[[0, 0, 1, 255]]], dtype=torch.uint8)
    sure = 50.0 * F.one_hot(torch.tensor([[[0, 0, 1, 2]]]), 3).permute(0, 3, 1, 2).float()
    assert float(dice_loss(sure, masks)) == pytest.approx(0)  # class 2 is not in the truth
    wrong = 50.0 * F.one_hot(torch.tensor([[[0, 1, 1, 1]]]), 3).permute(0, 3, 1, 2).float()
    # One pixel of each class is right: 2 * 1 / (1 + 2) each.
    assert float(dice_loss(wrong, masks)) == pytest.approx(1 / 3)
    assert dice_loss(wrong, torch.full_like(masks, 255)) == 0


def test_objective_is_the_weighted_sum(batch):
    logits, masks = batch
    config = SegmenterConfig(dice=0.5, label_smoothing=0.1)
    expected = pixel_loss(logits, masks, 0.1) + 0.5 * dice_loss(logits, masks)
    assert objective(logits, masks, config) == expected
    assert objective(logits, masks, SegmenterConfig()) == pixel_loss(logits, masks)
