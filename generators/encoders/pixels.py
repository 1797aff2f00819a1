"""The pixels themselves as features: what a labeler reaches without a representation."""

from __future__ import annotations

from torch import Tensor, nn

from generators.encoders.config import EncoderConfig
from generators.encoders.network import Checkpoint, choose_layers

RGB = "rgb"


class Pixels(nn.Module):
    """An `EncoderNetwork` without weights: one map, the image."""

    layer_names = default_layers = (RGB,)
    native_size: int | None = None
    multiple = 1

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.layers = choose_layers(config.layers, self.layer_names, self.default_layers)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The image in [-1, 1], float32 `[N, 3, H, W]`."""
        return {RGB: images.float() / 127.5 - 1}


def build(checkpoint: Checkpoint, config: EncoderConfig) -> Pixels:
    """The network; `checkpoint` is empty."""
    return Pixels(config)
