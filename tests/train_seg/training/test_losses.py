"""Losses by hand, and the Dice loss against segmentation-models-pytorch."""

from __future__ import annotations

import math

import pytest
import segmentation_models_pytorch as smp
import torch
from torch.nn import functional as F

from train_seg.config import SegmenterConfig
from train_seg.data.soft_labels import certain
from train_seg.training.losses import (
    certainty,
    dice_loss,
    objective,
    pixel_loss,
    soft_dice_loss,
    soft_pixel_loss,
)


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


# --- soft labels -----------------------------------------------------------------------------


def as_levels(probabilities: list[list[float]]) -> torch.Tensor:
    """Levels `[1, K, 1, W]` of the probabilities of W pixels."""
    return (255 * torch.tensor(probabilities).T[None, :, None]).round().byte()


def test_certain_labels_give_the_losses_of_masks(batch):
    logits, masks = batch
    levels = torch.stack([certain(mask, 3) for mask in masks])
    smooth = soft_pixel_loss(logits, levels, 0.1)
    assert float(smooth) == pytest.approx(float(pixel_loss(logits, masks, 0.1)), abs=1e-6)
    assert float(soft_dice_loss(logits, levels)) == pytest.approx(
        float(dice_loss(logits, masks)), abs=1e-6
    )
    config = SegmenterConfig(dice=0.5, label_smoothing=0.1)
    expected = float(objective(logits, masks, config))
    assert float(objective(logits, levels, config)) == pytest.approx(expected, abs=1e-6)


def test_certainty_by_hand():
    levels = as_levels([[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0, 0, 0], [0.6, 0.4, 0]])
    entropy = -(0.6 * math.log(0.6) + 0.4 * math.log(0.4))
    expected = [1, 0, 0, 1 - entropy / math.log(3)]
    assert certainty(levels).flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_soft_cross_entropy_by_hand():
    levels = as_levels([[1, 0], [0.2, 0.8], [0, 0]])
    logits = torch.randn(1, 2, 1, 3, generator=torch.Generator().manual_seed(1))
    p = logits.softmax(1)[0, :, 0].T.tolist()
    weight = 1 + (0.2 * math.log(0.2) + 0.8 * math.log(0.8)) / math.log(2)
    unsure = -(0.2 * math.log(p[1][0]) + 0.8 * math.log(p[1][1]))
    expected = (-math.log(p[0][0]) + weight * unsure) / (1 + weight)
    assert float(soft_pixel_loss(logits, levels)) == pytest.approx(expected, abs=1e-4)


def test_soft_dice_is_smallest_at_the_labels_themselves():
    levels = as_levels([[0.8, 0.2], [0.6, 0.4], [0.2, 0.8], [0, 0]])
    exact = (levels.float() / 255).clamp(min=1e-6).log()
    assert float(soft_dice_loss(exact, levels)) == pytest.approx(0, abs=1e-6)
    assert float(soft_dice_loss(10 * exact, levels)) > 0.05  # surer than the labels
    hard = torch.tensor([[[0, 0, 1, 255]]], dtype=torch.uint8)
    assert float(dice_loss(exact, hard)) > 0.05


def test_a_class_that_is_never_the_most_probable_has_no_dice():
    levels = as_levels([[0.9, 0.1, 0], [0.2, 0.8, 0], [0.7, 0, 0.3]])
    logits = torch.randn(1, 3, 1, 3, generator=torch.Generator().manual_seed(2))
    w, p, g = certainty(levels)[:, None], logits.softmax(1), levels / 255
    dice = (
        2 * (w * torch.minimum(p, g)).sum((0, 2, 3)) / (w * (p + g)).sum((0, 2, 3)).clamp(min=1e-6)
    )
    assert float(soft_dice_loss(logits, levels)) == pytest.approx(float(1 - dice[:2].mean()))


def test_no_labelled_pixel_gives_no_loss():
    logits, levels = torch.randn(1, 3, 2, 2), torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    assert soft_pixel_loss(logits, levels, 0.1) == 0
    assert soft_dice_loss(logits, levels) == 0
