"""The walk over a diffusers U-Net that records decoder activations and stops early.

Decoder blocks are the resnets of `up_blocks`, numbered deep to shallow from 0; a block's output
includes its attention, and its upsampler when it is the last of its level (as the hooks of
Baranchuk et al. see it).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import UNet2DModel
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor


def num_decoder_blocks(unet: UNet2DModel) -> int:
    """Number of decoder resnets, i.e. of blocks that can be recorded."""
    return sum(len(up.resnets) for up in unet.up_blocks)


# Blocks of the DDPM paper, for the 18 decoder resnets of the LSUN network.
PAPER_BLOCKS = (5, 6, 7, 8, 12)
PAPER_DEPTH = 18


def default_blocks(unet: UNet2DModel) -> tuple[int, ...]:
    """The blocks at the relative depths of the paper's; exactly those for its network."""
    last = num_decoder_blocks(unet) - 1
    return tuple(sorted({round(b * last / (PAPER_DEPTH - 1)) for b in PAPER_BLOCKS}))


def check_blocks(unet: UNet2DModel, blocks: Sequence[int]) -> None:
    """Raise ValueError if `blocks` names a decoder block this network does not have."""
    total = num_decoder_blocks(unet)
    if missing := [b for b in blocks if b >= total]:
        raise ValueError(
            f"decoder blocks {missing} do not exist: this U-Net has blocks 0 to {total - 1} "
            f"(deep to shallow); set generator.features.blocks"
        )


def _encode(unet: UNet2DModel, x: Tensor, emb: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Input convolution, down blocks and middle: (h, skip connections)."""
    h = unet.conv_in(x)
    skips: tuple[Tensor, ...] = (h,)
    for down in unet.down_blocks:
        h, residuals = down(hidden_states=h, temb=emb)
        skips += residuals
    if unet.mid_block is not None:
        h = unet.mid_block(h, emb)
    return h, skips


def decoder_features(
    unet: UNet2DModel, x: Tensor, t: Tensor, blocks: Sequence[int]
) -> dict[int, Tensor]:
    """Activations of decoder `blocks` for noisy images `x` `[N, 3, H, W]` at timesteps `t` `[N]`.

    Returns block -> `[N, C, h, w]`. Nothing after the last block asked for is computed.
    """
    check_blocks(unet, blocks)
    last = max(blocks)
    recorded: dict[int, Tensor] = {}
    emb = unet.time_embedding(unet.time_proj(t).to(x.dtype))
    h, skips = _encode(unet, x, emb)
    block = 0
    for up in unet.up_blocks:
        attentions = getattr(up, "attentions", None) or [None] * len(up.resnets)
        for i, (resnet, attention) in enumerate(zip(up.resnets, attentions, strict=True)):
            h = resnet(torch.cat([h, skips[-1]], dim=1), emb)
            skips = skips[:-1]
            if attention is not None:
                h = attention(h)
            if i == len(up.resnets) - 1 and up.upsamplers is not None:
                for upsample in up.upsamplers:
                    h = upsample(h, emb) if isinstance(upsample, ResnetBlock2D) else upsample(h)
            if block in blocks:
                recorded[block] = h
            if block == last:
                return recorded
            block += 1
    raise AssertionError("unreachable: check_blocks bounds the walk")
