"""The plain loops compute the same as our network."""

import pytest
import torch

from benchmarks.plain_stylegan2 import Modulated, modulate_activations, modulate_weights, synthesise
from generators.stylegan2.config import NetworkConfig
from generators.stylegan2.network import StyleGAN2


@pytest.mark.parametrize("modulated", [modulate_weights, modulate_activations])
def test_plain_code_gives_the_same_images_and_activations(modulated: Modulated) -> None:
    torch.manual_seed(0)
    network = StyleGAN2(NetworkConfig(resolution=16, w_dim=8, channel_base=64, channel_max=8))
    for name, parameter in network.named_parameters():
        if "noise_strength" in name or name.endswith("bias"):
            parameter.data.normal_()
    network.requires_grad_(False)
    ws = torch.randn(3, network.config.num_ws, 8)
    images, kept = network.synthesis(ws, keep=network.synthesis.layers)
    found, activations = synthesise(network, ws, modulated)
    torch.testing.assert_close(found, images, rtol=1e-4, atol=1e-4)
    assert list(activations) == list(kept)
    for name, activation in kept.items():
        torch.testing.assert_close(activations[name], activation, rtol=1e-4, atol=1e-4)
