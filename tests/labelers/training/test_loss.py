"""The loss: class weights, and a regulariser that reaches the classifier's own hidden layer."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from generators.base import FeatureMapSpec
from labelers.ensemble.classifiers import Ensemble
from labelers.training.loss import PixelLoss, balanced_weights, simplex_etf


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def small(hidden: tuple[int, ...] = (12, 8), classes: int = 3) -> Ensemble:
    return Ensemble([FeatureMapSpec("a", 5, 4, 4)], classes, hidden, members=2, rng=rng())


def first(ensemble: Ensemble, pixels: torch.Tensor) -> torch.Tensor:
    """The output of the first linear layer for vectors `[M, B, C]`."""
    return ensemble.linears[0](pixels.transpose(1, 2))


@pytest.mark.parametrize(("width", "classes"), [(8, 3), (3, 3), (32, 28), (2, 2)])
def test_simplex(width, classes):
    etf = simplex_etf(width, classes, rng())
    assert etf.shape == (width, classes)
    expected = torch.full((classes, classes), -1 / (classes - 1)).fill_diagonal_(1)
    torch.testing.assert_close(etf.T @ etf, expected, rtol=0, atol=1e-6)


def test_simplex_needs_width():
    with pytest.raises(ValueError, match="found 4 units for 5 classes"):
        simplex_etf(4, 5, rng())


def test_balanced_weights():
    labels = torch.tensor([0] * 6 + [2] * 2, dtype=torch.uint8)
    assert balanced_weights(labels, 4).tolist() == pytest.approx([8 / 12, 0, 2, 0])


def test_plain_and_weighted_cross_entropy():
    ensemble, x = small(), torch.randn(2, 6, 5, generator=rng())
    target = torch.tensor([[0, 1, 2, 2, 1, 0], [1, 1, 1, 2, 2, 2]])
    losses, logits = PixelLoss()(ensemble, first(ensemble, x), target)
    torch.testing.assert_close(losses[0], F.cross_entropy(logits[0].T, target[0]))
    weights = torch.tensor([1.0, 2.0, 0.0])
    losses, logits = PixelLoss(weights)(ensemble, first(ensemble, x), target)
    single = F.cross_entropy(logits[1].T, target[1], reduction="none") * weights[target[1]]
    torch.testing.assert_close(losses[1], single.mean())


def test_the_regulariser_reaches_the_shared_hidden_layers():
    """With the classifier's own last layer at zero, all gradients below are the regulariser's."""
    ensemble, x = small(), torch.randn(2, 6, 5, generator=rng())
    target = torch.tensor([[0, 1, 2, 2, 1, 0]] * 2)
    torch.nn.init.zeros_(ensemble.linears[-1].weight)
    etf = torch.stack([simplex_etf(8, 3, rng()) for _ in range(2)])
    gradients = {}
    for weight in (0.0, 0.4):
        ensemble.zero_grad()
        PixelLoss(None, etf, weight)(ensemble, first(ensemble, x), target)[0].sum().backward()
        gradients[weight] = [linear.weight.grad.abs().max().item() for linear in ensemble.linears]
    assert gradients[0.0][:2] == [0.0, 0.0]
    assert all(g > 1e-6 for g in gradients[0.4][:2])
    assert gradients[0.4][2] == pytest.approx(gradients[0.0][2])


def test_the_regularised_loss_is_the_sum_of_both():
    ensemble, x = small().eval(), torch.randn(2, 6, 5, generator=rng())
    target = torch.tensor([[0, 1, 2, 2, 1, 0]] * 2)
    etf = torch.stack([simplex_etf(8, 3, rng()) for _ in range(2)])
    losses, logits = PixelLoss(None, etf, 0.4)(ensemble, first(ensemble, x), target)
    fixed = ensemble.hidden(first(ensemble, x))[0].T @ etf[0]
    expected = F.cross_entropy(logits[0].T, target[0]) + 0.4 * F.cross_entropy(fixed, target[0])
    torch.testing.assert_close(losses[0], expected)


@pytest.mark.parametrize(("weight", "aligned"), [(0.0, False), (2.0, True)])
def test_features_move_to_the_simplex(weight, aligned):
    """The mean feature of each class points to its vertex, but only with the regulariser."""
    ensemble, random, classes = small((16, 8), classes=4), rng(), torch.arange(4).repeat(2, 16)
    centres = torch.randn(4, 5, generator=random)
    etf = torch.stack([simplex_etf(8, 4, random) for _ in range(2)])
    loss, optimizer = PixelLoss(None, etf, weight), torch.optim.Adam(ensemble.parameters(), 1e-2)
    for _ in range(50):
        pixels = centres[classes] + 0.3 * torch.randn(2, 64, 5, generator=random)
        optimizer.zero_grad()
        loss(ensemble, first(ensemble, pixels), classes)[0].sum().backward()
        optimizer.step()
    hidden = (
        ensemble.eval().hidden(first(ensemble, centres.expand(2, -1, -1))).detach()
    )  # [M, d, K]
    cosines = F.normalize(hidden, dim=1).transpose(1, 2) @ etf
    own = cosines.diagonal(dim1=1, dim2=2)
    assert (own.min() > 0.4) == aligned
    assert (own.mean() > 0.6) == aligned
    if aligned:
        assert (cosines.argmax(2) == torch.arange(4)).all()
