"""One pass over a diffusers U-Net for its output and decoder activations, with early exit.

Decoder blocks are the resnets of `up_blocks`, numbered deep to shallow from 0; a block's output
includes its attention, and its upsampler when it is the last of its level (as the hooks of
Baranchuk et al. see it).

The walk calls the network's layers, not its `forward`, which can neither stop early nor save the
passes over memory that `_resnet` saves. A small network spends most of its time on those.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

# Blocks of the DDPM paper, for the 18 decoder resnets of the LSUN network.
PAPER_BLOCKS = (5, 6, 7, 8, 12)
PAPER_DEPTH = 18

# Below this many pixels, PyTorch's CPU kernel for group normalisation takes a path that is not
# vectorised in bfloat16: measured five times slower than a detour through float32.
SMALL_MAP = 1024

# The parts that the walk supports.
DOWN_BLOCKS = ("DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D")
UP_BLOCKS = ("UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D")
WALKABLE = {
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "time_embedding_type": ("positional", "learned"),
    "class_embed_type": (None,),
}


def num_decoder_blocks(unet: UNet2DModel) -> int:
    """Number of decoder resnets, i.e. of blocks that can be recorded."""
    return sum(len(up.resnets) for up in unet.up_blocks)


def default_blocks(unet: UNet2DModel) -> tuple[int, ...]:
    """The blocks at the relative depths of the paper's; for its network, exactly those."""
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


def check_walkable(unet: UNet2DModel) -> None:
    """Raise ValueError if the network has parts that the walk does not support."""
    for levels, known in ((unet.down_blocks, DOWN_BLOCKS), (unet.up_blocks, UP_BLOCKS)):
        for name in (type(level).__name__ for level in levels):
            if name not in known:
                raise ValueError(f"found a U-Net with {name}, expected {', '.join(known)}")
    for key, expected in WALKABLE.items():
        if (found := unet.config[key]) not in expected:
            raise ValueError(f"found a U-Net with {key} {found}, expected {_either(expected)}")


def _either(values: Sequence[str | None]) -> str:
    return " or ".join("none" if value is None else value for value in values)


def embed(unet: UNet2DModel, t: Tensor, classes: Tensor | None = None) -> Tensor:
    """Embedding of timesteps `t` `[1]` or `[N]` and class vectors `[1, E]` or `[N, E]`, float32."""
    emb = unet.time_embedding(unet.time_proj(t).float())
    return emb if classes is None else emb + classes


def cast_weights(unet: nn.Module, dtype: torch.dtype) -> None:
    """Convert the weights to `dtype`, in place, except those of time and class embeddings.

    Those run on one row per timestep, so their full precision costs nothing.
    """
    for name, module in unet.named_modules():
        if "_emb" not in name and name != "time_proj":
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(dtype)


def walk(
    unet: UNet2DModel,
    x: Tensor,
    emb: Tensor,
    blocks: Sequence[int] = (),
    to_output: bool = True,
) -> tuple[Tensor | None, dict[int, Tensor]]:
    """One pass over noisy images `x` `[N, 3, H, W]` in the weights' dtype, `emb` as from `embed`.

    Returns the network's output, and block -> activations `[N, C, h, w]` of the decoder `blocks`.
    With `to_output=False` nothing after the last of them is computed, and the output is None.
    """
    h, skips = encode(unet, x, emb)
    return decode(unet, h, skips, emb, blocks, to_output)


def decode(
    half: Any,
    h: Tensor,
    skips: Sequence[Tensor],
    emb: Tensor,
    blocks: Sequence[int] = (),
    to_output: bool = True,
) -> tuple[Tensor | None, dict[int, Tensor]]:
    """The second half of a pass: decoder and last convolution of `half`, a U-Net or a part of one.

    `h` and `skips` are from `encode`; `skips` are not changed. Results as from `walk`.
    """
    recorded: dict[int, Tensor] = {}
    rest, block = list(skips), 0
    for up in half.up_blocks:
        for i, (resnet, attention) in enumerate(_layers(up)):
            h = _resnet(resnet, torch.cat([h, rest.pop()], dim=1), emb)
            h = h if attention is None else attention(h)
            if i == len(up.resnets) - 1:
                for upsample in up.upsamplers or ():
                    h = _resample(upsample, h, emb)
            if block in blocks:
                recorded[block] = h
            if not to_output and block == max(blocks):
                return None, recorded
            block += 1
    h = _activated(half.conv_act, _normed(half.conv_norm_out, h))
    return half.conv_out(h), recorded


def encode(unet: UNet2DModel, x: Tensor, emb: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The first half of a pass: input convolution, down blocks, middle: h and the skips."""
    h = unet.conv_in(2 * x - 1 if unet.config.center_input_sample else x)
    skips = [h]
    for down in unet.down_blocks:
        for resnet, attention in _layers(down):
            h = _resnet(resnet, h, emb)
            h = h if attention is None else attention(h)
            skips.append(h)
        for downsample in down.downsamplers or ():
            h = _resample(downsample, h, emb)
            skips.append(h)
    if (middle := unet.mid_block) is not None:
        h = _resnet(middle.resnets[0], h, emb)
        for attention, resnet in zip(middle.attentions, middle.resnets[1:], strict=True):
            h = h if attention is None else attention(h)
            h = _resnet(resnet, h, emb)
    return h, skips


def _layers(level: Any) -> Iterator[tuple[ResnetBlock2D, nn.Module | None]]:
    """The resnets of a level, each with the attention that follows it."""
    attentions = getattr(level, "attentions", None) or [None] * len(level.resnets)
    return zip(level.resnets, attentions, strict=True)


def _resample(layer: nn.Module, h: Tensor, emb: Tensor) -> Tensor:
    return _resnet(layer, h, emb) if isinstance(layer, ResnetBlock2D) else layer(h)


def _resnet(block: ResnetBlock2D, x: Tensor, emb: Tensor) -> Tensor:
    """What the block's own `forward` computes, in fewer passes over memory.

    Activations and sums are in place, and if all samples share a timestep (`emb` has one row), time
    enters through a bias or the normalisation's scale, which costs nothing. Measured on the demo
    network in bfloat16: a sixth more passes per second.
    """
    h = _activated(block.nonlinearity, _normed(block.norm1, x))
    resample = block.downsample if block.upsample is None else block.upsample
    if resample is not None:
        x, h = resample(x), resample(h)
    time = block.time_emb_proj(block.nonlinearity(emb))
    if block.time_embedding_norm == "scale_shift":
        scale, shift = time.chunk(2, dim=1)
        h = _scaled_norm(block.norm2, block.conv1(h), 1 + scale, shift)
    else:
        h = _normed(block.norm2, _shifted_conv(block.conv1, h, time))
    h = block.conv2(_activated(block.nonlinearity, h))
    h += x if block.conv_shortcut is None else block.conv_shortcut(x)
    return h if block.output_scale_factor == 1 else h.div_(block.output_scale_factor)


def _activated(activation: nn.Module, h: Tensor) -> Tensor:
    """`activation(h)`, overwriting `h` where it can."""
    return F.silu(h, inplace=True) if isinstance(activation, nn.SiLU) else activation(h)


def _shifted_conv(conv: nn.Conv2d, h: Tensor, shift: Tensor) -> Tensor:
    """`conv(h) + shift`, `shift` float32 `[1, C]` or `[N, C]`."""
    if len(shift) == 1 and conv.bias is not None:
        bias = (conv.bias + shift[0]).to(h.dtype)
        return conv._conv_forward(h, conv.weight, bias)  # with the padding that it has
    return conv(h).add_(shift[:, :, None, None].to(h.dtype))


def _normed(norm: nn.GroupNorm, h: Tensor) -> Tensor:
    return _group_norm(h, norm, norm.weight, norm.bias)


def _scaled_norm(norm: nn.GroupNorm, h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """`norm(h) * scale + shift`, both float32 `[1, C]` or `[N, C]`."""
    if len(scale) == 1:
        return _group_norm(h, norm, norm.weight * scale[0], norm.bias * scale[0] + shift[0])
    scale, shift = (v[:, :, None, None].to(h.dtype) for v in (scale, shift))
    return _normed(norm, h).mul_(scale).add_(shift)


def _group_norm(h: Tensor, norm: nn.GroupNorm, weight: Tensor, bias: Tensor) -> Tensor:
    dtype = h.dtype
    if h.device.type == "cpu" and h.shape[2] * h.shape[3] < SMALL_MAP:
        h = h.float()
    weight, bias = weight.to(h.dtype), bias.to(h.dtype)
    return F.group_norm(h, norm.num_groups, weight, bias, norm.eps).to(dtype)
