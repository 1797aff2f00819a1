"""The architecture of a guided-diffusion (ADM) U-Net, from names and shapes of its tensors.

Dhariwal & Nichol 2021; the networks of improved-diffusion are special cases.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from generators.ddpm.tensors import not_rgb, some

NORM_GROUPS = 32  # of every group normalisation in ADM
# Tensors that distinguish such a network from any other file.
LANDMARKS = (
    "time_embed.0.weight",
    "input_blocks.0.0.weight",
    "middle_block.1.qkv.weight",
    "output_blocks.0.0.in_layers.2.weight",
    "out.2.weight",
)
UPSAMPLER_WEIGHT = re.compile(r"output_blocks\.\d+\.[12]\.(conv|in_layers\.2)\.weight")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What names and shapes of tensors reveal. Levels run from fine to coarse."""

    time_channels: int  # of the sinusoidal time embedding: the base width of the network
    channels: tuple[int, ...]  # per level
    resnets_per_level: int  # of the encoder; the decoder has one more
    attends: tuple[bool, ...]  # per level; the middle block always does
    scale_shift: bool = True  # the time embedding scales activations, not only shifts them
    resnet_resampling: bool = True  # by residual blocks, else by convolutions
    learns_sigma: bool = True  # it predicts the variance too, in three more channels
    num_classes: int | None = None

    @property
    def attention_channels(self) -> list[int]:
        """Widths at which the network attends, ascending."""
        levels = zip(self.channels, self.attends, strict=True)
        return sorted({self.channels[-1], *(width for width, on in levels if on)})

    @classmethod
    def read(cls, state: Mapping[str, Tensor]) -> Architecture:
        """Read the architecture from the tensors of a file.

        Raises ValueError if they are not those of a guided-diffusion U-Net.
        """
        if absent := [name for name in LANDMARKS if name not in state]:
            raise ValueError(
                f"not a guided-diffusion U-Net: found {some(state)}, but no {some(absent)}"
            )
        # Each level has `stride` consecutive blocks in the encoder (the first convolution, or the
        # downsampler of the level before, and its resnets) and as many in the decoder, of which
        # the last ends in an upsampler.
        num_blocks = len({n.split(".")[1] for n in state if n.startswith("output_blocks.")})
        upsamplers = [m[1] for name in state if (m := UPSAMPLER_WEIGHT.fullmatch(name))]
        levels = 1 + len(upsamplers)
        stride, rest = divmod(num_blocks, levels)
        if rest or stride < 2:
            raise ValueError(
                f"damaged U-Net: found {num_blocks} output_blocks and {levels - 1} upsamplers, "
                f"expected a multiple of {levels} blocks"
            )

        def width(name: str, dim: int = 0) -> int:
            shape = state[name].shape if name in state else ()
            if len(shape) <= dim:
                raise ValueError(f"damaged U-Net: found no {name} of {dim + 1} or more dimensions")
            return shape[dim]

        firsts = [f"input_blocks.{level * stride + 1}" for level in range(levels)]
        channels = tuple(width(f"{first}.0.out_layers.3.weight") for first in firsts)
        if any(width < 1 or width % NORM_GROUPS for width in channels):
            raise ValueError(
                f"found levels of {channels} channels, expected multiples of {NORM_GROUPS}"
            )
        channels_in, channels_out = width("input_blocks.0.0.weight", 1), width("out.2.weight")
        if channels_in != 3 or channels_out not in (3, 6):
            raise ValueError(not_rgb(channels_in, channels_out))
        return cls(
            learns_sigma=channels_out == 6,
            time_channels=width("time_embed.0.weight", 1),
            channels=channels,
            resnets_per_level=stride - 1,
            attends=tuple(f"{first}.1.qkv.weight" in state for first in firsts),
            scale_shift=width(f"{firsts[0]}.0.emb_layers.1.weight") == 2 * channels[0],
            resnet_resampling="conv" not in upsamplers,
            num_classes=width("label_emb.weight") if "label_emb.weight" in state else None,
        )
