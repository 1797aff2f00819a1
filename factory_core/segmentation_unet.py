"""A diffusion U-Net as a segmentation network: one fixed timestep, a new last convolution.

A labeler and a segmenter may both start from a generator this way (Baranchuk et al. 2022 read its
activations instead); it stands here because neither may import the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

TIMESTEP = 10  # of about 1000: the network expects nearly clean images
WIDTH = 16  # channels of the finest level; each coarser one has twice as many
LEVELS = 4
NORM_GROUPS = 8

Padding = Literal["zeros", "reflect", "replicate", "circular"]  # PyTorch's


@dataclass(frozen=True)
class UNetDescription:
    """What builds a U-Net of diffusers, and its weights: empty for a random start.

    `config` holds the arguments of `UNet2DModel` and, if it is not `zeros`, the `padding_mode` of
    its convolutions; `weights` are its tensors by name, float32.
    """

    config: Mapping[str, Any]
    weights: Mapping[str, Tensor] = field(default_factory=dict)


def small_unet(image_size: int, width: int = WIDTH) -> UNetDescription:
    """A U-Net with group norm, as `factory train-generator` might build it.

    It has 2.7 M parameters. `width`, a multiple of NORM_GROUPS, changes their number with its
    square.
    """
    config = {
        "sample_size": image_size,
        "block_out_channels": tuple(width * 2**level for level in range(LEVELS)),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D",) * (LEVELS - 1) + ("AttnDownBlock2D",),
        "up_block_types": ("AttnUpBlock2D",) + ("UpBlock2D",) * (LEVELS - 1),
        "attention_head_dim": 32,
        "norm_num_groups": NORM_GROUPS,
    }
    return UNetDescription(config)


def set_padding(net: nn.Module, mode: Padding) -> None:
    """Give all convolutions that look beyond a pixel this padding at the border."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1):
            layer.padding_mode = mode


def training_format(device: torch.device) -> torch.memory_format:
    """The memory format in which a U-Net trains fastest.

    On a CPU the backward pass of group norm takes 14 times as long in channels_last, which makes a
    step a third slower; prediction has none, and is faster in channels_last.
    """
    return torch.contiguous_format if device.type == "cpu" else torch.channels_last


class SegmentationUNet(nn.Module):
    """Logits `[N, K, H, W]` of images float `[N, 3, H, W]` in [-1, 1], at the timestep `TIMESTEP`.

    Height and width must be multiples of `stride`.
    """

    def __init__(self, start: UNetDescription, classes: int):
        """All layers but the last convolution take the weights of `start`, if it has any.

        A class-conditional U-Net becomes unconditional with the mean class vector, which enters
        exactly through the bias of the time embedding. Raises ValueError if the weights do not fit
        the config.
        """
        super().__init__()
        from diffusers import UNet2DModel

        config = {k: v for k, v in start.config.items() if not k.startswith("_")}
        config |= {"out_channels": classes, "class_embed_type": None, "num_class_embeds": None}
        self.config = dict(config)
        padding = config.pop("padding_mode", "zeros")
        self.unet = UNet2DModel(**config)
        set_padding(self.unet, padding)
        if start.weights:
            self._take(start.weights)
        self.register_buffer("timestep", torch.tensor(TIMESTEP), persistent=False)

    @property
    def stride(self) -> int:
        """Image pixels per pixel of the coarsest level."""
        return 2 ** (len(self.unet.config.block_out_channels) - 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.unet(x, self.timestep, return_dict=False)[0]

    def _take(self, weights: Mapping[str, Tensor]) -> None:
        state = {k: v for k, v in weights.items() if not k.startswith("conv_out.")}
        table = state.pop("class_embedding.weight", None)
        if table is not None:
            bias = "time_embedding.linear_2.bias"
            state[bias] = state[bias] + table.mean(0)
        own = {k: v for k, v in self.unet.state_dict().items() if k.startswith("conv_out.")}
        try:
            self.unet.load_state_dict({**state, **own})
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"the U-Net's weights do not fit its config: {reason}") from None
