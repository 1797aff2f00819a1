"""Augmentation: masks follow, seeds determine the result, every key has an effect."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from train_seg.config import AugmentConfig, SegmenterConfig
from train_seg.data.augment import Augment


@pytest.fixture
def pair(make_labeled):
    data = make_labeled(1)
    return data.images[0], data.masks[0]


def test_default_changes_nothing(pair):
    image, mask = Augment(AugmentConfig(), (32, 32))(*pair, seed=0)
    assert image is pair[0]
    assert mask is pair[1]


@pytest.mark.parametrize(
    "settings",
    [{"horizontal_flip": True}, {"vertical_flip": True}, {"quarter_turns": True}],
)
def test_masks_follow_the_image(settings, pair):
    image, mask = pair
    image = mask.expand(3, -1, -1).clone()  # an image of its own mask
    augment = Augment(AugmentConfig(**settings), (32, 32))
    results = [augment(image, mask, seed) for seed in range(16)]
    assert all(torch.equal(i[0], m) for i, m in results)
    assert {tuple(m.flatten().tolist()) for _, m in results} > {tuple(mask.flatten().tolist())}
    assert type(results[0][0]) is torch.Tensor


def test_crop_keeps_size_and_classes(pair):
    image, mask = Augment(AugmentConfig(scale=(0.2, 0.5)), (32, 32))(*pair, seed=3)
    assert image.shape == (3, 32, 32)
    assert set(mask.unique().tolist()) <= {0, 1, 2}
    assert not torch.equal(mask, pair[1])


def test_zoom_crops_enlarged_images_and_pads_shrunk_ones(pair):
    image, mask = pair
    image = mask.expand(3, -1, -1).clone()  # an image of its own mask
    large, small = (Augment(AugmentConfig(zoom=(z, z)), (32, 32)) for z in (2, 0.5))
    enlarged = [large(image, mask, seed) for seed in range(4)]
    shrunk = [small(image, mask, seed) for seed in range(4)]
    assert {i.shape for i, _ in enlarged + shrunk} == {(3, 32, 32)}
    assert len({tuple(m.flatten().tolist()) for _, m in enlarged}) > 1
    assert all((m != 255).all() and set(m.unique().tolist()) <= {0, 1, 2} for _, m in enlarged)
    for moved, ids in shrunk:
        assert int((ids != 255).sum()) == 16 * 16
        assert (moved[:, ids == 255] == 128).all()
        assert (moved[:, ids != 255] <= 2).all()
    assert len({tuple((m == 255).flatten().tolist()) for _, m in shrunk}) > 1  # at different places


@pytest.mark.parametrize(
    "settings",
    [
        {"brightness": 0.5},
        {"contrast": 0.5},
        {"saturation": 0.9},
        {"hue": 0.4},
        {"blur": 2.0},
        {"noise": 0.02},
    ],
)
def test_colours_change_but_masks_do_not(settings, pair):
    augment = Augment(AugmentConfig(**settings), (32, 32))
    results = [augment(*pair, seed) for seed in range(4)]
    assert any(not torch.equal(i, pair[0]) for i, _ in results)
    assert all(torch.equal(m, pair[1]) for _, m in results)


def test_noise_has_the_standard_deviation_asked_for():
    grey = torch.full((3, 64, 64), 128, dtype=torch.uint8)
    noisy, _ = Augment(AugmentConfig(noise=0.1), (64, 64))(grey, grey[0], seed=1)
    assert noisy.float().std().item() == pytest.approx(25.5, rel=0.05)
    black, _ = Augment(AugmentConfig(noise=0.1), (64, 64))(0 * grey, grey[0], seed=1)
    assert black.max() < 128  # not wrapped around


def test_seed_determines_the_result_and_the_callers_random_state_is_kept(pair):
    augment = Augment(AugmentConfig(quarter_turns=True, hue=0.3, scale=(0.3, 1)), (32, 32))
    before = torch.get_rng_state()
    first, second = augment(*pair, seed=5), augment(*pair, seed=5)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], augment(*pair, seed=6)[0])


def test_quarter_turns_need_square_images():
    with pytest.raises(ValueError, match="needs square images, found 32x48"):
        Augment(AugmentConfig(quarter_turns=True), (32, 48))


def test_invalid_settings_are_refused():
    for wrong in ({"scale": (0.8, 0.5)}, {"zoom": (0, 2)}, {"hue": 0.7}, {"flip": True}):
        with pytest.raises(ValidationError):
            AugmentConfig(**wrong)
    for wrong in (
        {"atrous_rates": (0, 1, 2)},
        {"input_scale": 9},
        {"encoder_depth": 6},
        {"encoder_depth": 3, "output_stride": 16},
        {"image_size": (4, 64)},
        {"batch_size": 1},
        {"learning_rate": 1},
        {"lr": float("inf")},
    ):
        with pytest.raises(ValidationError):
            SegmenterConfig(**wrong)
