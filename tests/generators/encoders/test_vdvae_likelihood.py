"""The mixture of discretised logistics."""

import torch

from generators.encoders.vdvae_likelihood import MIN_LOG_SCALE, Mixture

LEVELS = torch.arange(256) / 127.5 - 1


def parameters(K: int) -> torch.Tensor:
    return torch.randn(1, 10 * K, 1, 1, generator=torch.Generator().manual_seed(0))


def test_the_levels_of_blue_have_probabilities_that_sum_to_that_of_red_and_green() -> None:
    """So the sum does not depend on what is said about blue."""
    K = 3
    one = parameters(K)
    other = one.clone()
    other.view(-1)[K + 2 * 3 * K : K + 2 * 3 * K + 2 * K] += 1.0  # means and scales of blue
    for red, green in ((0, 200), (255, 31)):
        x = torch.stack([LEVELS[red].expand(256), LEVELS[green].expand(256), LEVELS], dim=1)
        sums = []
        for values in (one, other):
            mixture = Mixture.of(values.expand(256, -1, -1, -1))
            sums.append(mixture.log_likelihood(x[:, :, None, None]).double().exp().sum())
        assert torch.allclose(sums[0], sums[1], rtol=1e-5)
        assert 0 < sums[0] < 1


def test_by_hand_on_one_logistic() -> None:
    mean, log_scale, red_to_green = 0.1, -2.0, 0.7
    values = torch.zeros(10)
    values[1::3], values[2::3] = mean, log_scale
    values[3] = torch.atanh(torch.tensor(red_to_green))
    x = torch.tensor([LEVELS[40], LEVELS[0], LEVELS[255]])
    expected = 0.0
    for colour, shift in enumerate((0.0, red_to_green * x[0], 0.0)):
        upper = (x[colour] + 1 / 255 - mean - shift) * torch.exp(torch.tensor(-log_scale))
        lower = (x[colour] - 1 / 255 - mean - shift) * torch.exp(torch.tensor(-log_scale))
        above = torch.tensor(1.0) if colour == 2 else torch.sigmoid(upper)
        below = torch.tensor(0.0) if colour == 1 else torch.sigmoid(lower)
        expected += (above - below).log()
    found = Mixture.of(values[None, :, None, None]).log_likelihood(x[None, :, None, None])
    assert torch.allclose(found, expected, atol=1e-4)


def test_it_is_finite_with_a_gradient_far_from_the_mean() -> None:
    for log_scale in (-100.0, 20.0):
        values = torch.full((1, 10, 1, 1), 50.0)
        values[:, 2::3] = log_scale
        tensor = values.requires_grad_()
        loss = Mixture.of(tensor).log_likelihood(torch.full((1, 3, 1, 1), -0.9)).sum()
        loss.backward()
        assert loss.isfinite()
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert Mixture.of(tensor).log_scales.min() == max(log_scale, MIN_LOG_SCALE)


def test_the_likeliest_image_follows_the_heaviest_logistic() -> None:
    K = 3
    flat = torch.zeros(10 * K)
    flat[1] = 5.0  # the second logistic is the heaviest
    rest = flat[K:].view(3, 3, K)
    rest[:, 0, 1] = torch.tensor([0.5, 0.1, -0.2])
    rest[:, 0, 0] = 9.0  # of another one: of no effect
    coefficients = torch.atanh(torch.tensor([0.4, 0.2, -0.6]))
    rest[:, 2, 1] = coefficients
    image = Mixture.of(flat[None, :, None, None].expand(2, -1, 1, 1)).likeliest()
    green = 0.1 + 0.4 * 0.5
    blue = -0.2 + 0.2 * 0.5 - 0.6 * green
    assert torch.allclose(image[1, :, 0, 0], torch.tensor([0.5, green, blue]))
