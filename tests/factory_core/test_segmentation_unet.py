"""A diffusion U-Net as a segmentation network."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DModel

from factory_core.segmentation_unet import (
    TIMESTEP,
    SegmentationUNet,
    UNetDescription,
    small_unet,
)


def _unet(**settings) -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(**{**small_unet(16).config, "block_out_channels": (8, 16), **settings})


TINY = {
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 8,
}


def test_the_small_unet_has_2_7_million_parameters() -> None:
    net = SegmentationUNet(small_unet(64), classes=3)
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 1) == 2.7
    assert net(torch.zeros(2, 3, 64, 64)).shape == (2, 3, 64, 64)
    assert net.stride == 8


def test_all_layers_but_the_last_come_from_the_generator() -> None:
    unet = _unet(**TINY)
    net = SegmentationUNet(UNetDescription(dict(unet.config), unet.state_dict()), classes=5)
    net.unet.conv_out = unet.conv_out
    x = torch.randn(2, 3, 16, 16)
    expected = unet(x, TIMESTEP).sample
    torch.testing.assert_close(net(x), expected)


def test_classes_of_the_generator_enter_as_their_mean() -> None:
    unet = _unet(**TINY, num_class_embeds=4)
    net = SegmentationUNet(UNetDescription(dict(unet.config), unet.state_dict()), classes=5)
    net.unet.conv_out = unet.conv_out
    with torch.no_grad():
        mean = unet.class_embedding.weight.mean(0)
        unet.class_embedding.weight[:] = mean
    x = torch.randn(2, 3, 16, 16)
    expected = unet(x, TIMESTEP, class_labels=torch.tensor([1, 2])).sample
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-5)


def test_weights_that_do_not_fit_are_refused_in_one_line() -> None:
    unet = _unet(**TINY)
    weights = {**unet.state_dict(), "conv_in.weight": torch.zeros(3, 3, 3, 3)}
    with pytest.raises(ValueError, match=r"do not fit its config.*conv_in\.weight") as error:
        SegmentationUNet(UNetDescription(dict(unet.config), weights), classes=5)
    assert "\n" not in str(error.value)
