"""Adaptive discriminator augmentation."""

import sys

import pytest
import torch
from torch import Tensor

from generators.stylegan2.augment import P_MAX, AdaptiveAugment


def images(n: int = 64) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.rand(n, 3, 16, 16, generator=rng) * 1.6 - 0.8


def augmenter(p: float) -> AdaptiveAugment:
    augment = AdaptiveAugment(target=0.6, images_to_full=1000)
    augment.p.fill_(p)
    augment.apply_p()
    return augment


def test_images_are_unchanged_at_first() -> None:
    x = images()
    assert augmenter(0)(x) is x


def test_p_is_the_share_of_images_that_each_distortion_changes() -> None:
    augment, x = augmenter(0.3), images(400)
    for k, distortion in enumerate(augment.distortions):
        augment.distortions = [distortion]
        torch.manual_seed(k)
        changed = float(((augment(x) - x).abs().amax(dim=(1, 2, 3)) > 1e-3).float().mean())
        # A flip, or a rotation by quarters, may leave the image unchanged.
        assert 0.1 < changed < 0.38, type(distortion)


def test_augmentation_depends_only_on_torchs_seed() -> None:
    augment, x = augmenter(0.5), images()
    seeds = (1, 2, 1)
    first, other, again = (augment(x) for seed in seeds if torch.manual_seed(seed))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_gradients_reach_the_images() -> None:
    x = images().requires_grad_(True)
    torch.manual_seed(0)
    augmenter(P_MAX)(x).square().sum().backward()
    assert x.grad is not None
    assert bool((x.grad.abs().sum(dim=(1, 2, 3)) > 0).all())


@pytest.mark.parametrize(
    ("recognised", "before", "after"),
    [(64, 0.3, 0.364), (32, 0.3, 0.236), (0, 0.02, 0.0), (64, 0.79, P_MAX)],
)
def test_p_follows_the_confidence_of_the_discriminator(
    recognised: int, before: float, after: float
) -> None:
    augment = augmenter(before)
    logits = torch.ones(64)
    logits[recognised:] = -1
    augment.adapt(logits)  # 64 of the 1000 images from p = 0 to 1
    assert float(augment.p) == pytest.approx(after, abs=1e-6)


def test_a_target_of_zero_switches_augmentation_off() -> None:
    augment = AdaptiveAugment(target=0, images_to_full=10)
    augment.adapt(torch.ones(8))
    assert float(augment.p) == 0


def test_a_missing_kornia_is_reported_before_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kornia.augmentation", None)
    with pytest.raises(ImportError, match=r"pip install 'dataset-factory\[gan\]'"):
        AdaptiveAugment(target=0.6, images_to_full=10)
    AdaptiveAugment(target=0, images_to_full=10)
