"""The discriminator."""

import torch

from generators.stylegan2.config import NetworkConfig
from generators.stylegan2.discriminator import Discriminator, with_spread


def test_one_logit_per_image(tiny_config: NetworkConfig) -> None:
    for resolution in (8, 32):
        torch.manual_seed(0)
        network = Discriminator(tiny_config.model_copy(update={"resolution": resolution}))
        x = torch.randn(8, 3, resolution, resolution)
        network.requires_grad_(False)
        logits = network(x)
        assert logits.shape == (8,)
        assert float(logits.std()) > 0
        low = network(x, torch.bfloat16)
        assert low.dtype == torch.float32
        torch.testing.assert_close(low, logits, rtol=0, atol=0.05 * float(logits.abs().max()))


def test_every_parameter_and_pixel_matters(tiny_config: NetworkConfig) -> None:
    torch.manual_seed(0)
    network = Discriminator(tiny_config)
    x = torch.randn(4, 3, 16, 16, requires_grad=True)
    network(x).sum().backward()
    assert x.grad is not None
    assert bool((x.grad.abs().sum(dim=1) > 0).all())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_activations_keep_their_scale(tiny_config: NetworkConfig) -> None:
    """Equalised learning rates: unit variance in, about unit variance out, at any depth."""
    torch.manual_seed(0)
    config = tiny_config.model_copy(
        update={"resolution": 64, "channel_base": 4096, "channel_max": 64}
    )
    network = Discriminator(config)
    x = network.from_rgb(torch.randn(4, 3, 64, 64))
    for block in network.blocks:
        x = block(x)
        assert 0.1 < float(x.detach().square().mean()) < 3


def test_the_spread_is_taken_over_a_group_of_samples() -> None:
    x = torch.randn(8, 5, 4, 4)
    x[4:] = x[:4]
    # Samples k, k + 2, k + 4 and k + 6 form a group.
    x[[1, 3, 5, 7]] = x[1].clone()
    spread = with_spread(x)
    assert spread.shape == (8, 6, 4, 4)
    assert torch.equal(spread[:, :5], x)
    assert float(spread[1::2, 5].max()) < 1e-3
    expected = x[::2].var(dim=0, unbiased=False).sqrt().mean()
    torch.testing.assert_close(spread[::2, 5], expected.expand(4, 4, 4))
