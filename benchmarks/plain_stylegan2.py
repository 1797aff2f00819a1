"""StyleGAN2's synthesis in plain code, written from the papers: the baseline of ours.

Two ways in float32, with the weights of our network and the same output (architecture `skip`,
learned noise). `modulate_weights` scales the weights for each sample and runs a grouped
convolution, as in StyleGAN2 (Karras et al. 2020a, Fig. 2c). `modulate_activations` scales the input
and the output of the convolution. Both insert zeros and filter with an ordinary convolution.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from generators.stylegan2.network import EPS, StyleGAN2, SynthesisLayer, ToRGB
from generators.stylegan2.resample import fir_filter

Modulated = Callable[..., Tensor]


def upfirdn(x: Tensor, padding: list[int]) -> Tensor:
    """Insert zeros after every pixel, pad, and filter with a low-pass."""
    n, c, h, w = x.shape
    x = F.pad(x.reshape(n, c, h, 1, w, 1), [0, 1, 0, 0, 0, 1]).reshape(n, c, 2 * h, 2 * w)
    return low_pass(F.pad(x, padding))


def low_pass(x: Tensor) -> Tensor:
    """Filter with [1, 3, 3, 1], times 4 for the inserted zeros."""
    weight = (fir_filter().to(x.device) * 4).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(x, weight, groups=x.shape[1])


def modulate_weights(x: Tensor, weight: Tensor, s: Tensor, up: bool, demodulate: bool) -> Tensor:
    """x `[N, I, H, W]` convolved by `weight` `[O, I, k, k]`, scaled by s `[N, I]`."""
    n, channels, height, width = x.shape
    out, _, k, _ = weight.shape
    w = weight[None] * s[:, None, :, None, None]
    if demodulate:
        w = w * (w.square().sum(dim=(2, 3, 4), keepdim=True) + EPS).rsqrt()
    x = x.reshape(1, n * channels, height, width)
    if up:
        w = w.transpose(1, 2).reshape(n * channels, out, k, k)
        y = F.conv_transpose2d(x, w, stride=2, groups=n)
    else:
        y = F.conv2d(x, w.reshape(n * out, channels, k, k), padding=k // 2, groups=n)
    return y.reshape(n, out, *y.shape[2:])


def modulate_activations(
    x: Tensor, weight: Tensor, s: Tensor, up: bool, demodulate: bool
) -> Tensor:
    """The same, by scaling x before and the result after."""
    x = x * s[:, :, None, None]
    if up:
        y = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    else:
        y = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    if demodulate:
        w = weight[None] * s[:, None, :, None, None]
        y = y * (w.square().sum(dim=(2, 3, 4)) + EPS).rsqrt()[:, :, None, None]
    return y


def layer(modulated: Modulated, net: SynthesisLayer, x: Tensor, w: Tensor) -> Tensor:
    """3x3 convolution, noise, bias, leaky ReLU."""
    y = modulated(x, net.weight, net.affine(w), net.up, demodulate=True)
    if net.up:
        y = low_pass(F.pad(y, [1, 1, 1, 1]))
    y = y + net.noise_const * net.noise_strength
    y = y + net.bias[None, :, None, None]
    return F.leaky_relu(y, 0.2) * math.sqrt(2)


def to_rgb(modulated: Modulated, net: ToRGB, x: Tensor, w: Tensor) -> Tensor:
    """1x1 convolution to colours."""
    s = net.affine(w) / math.sqrt(x.shape[1])
    y = modulated(x, net.weight, s, up=False, demodulate=False)
    return y + net.bias[None, :, None, None]


@torch.no_grad()
def synthesise(
    network: StyleGAN2, ws: Tensor, modulated: Modulated
) -> tuple[Tensor, dict[str, Tensor]]:
    """Images `[N, 3, R, R]` and the outputs of all convolutions by name."""
    synthesis, kept, image, i = network.synthesis, {}, None, 0
    x = synthesis.block(4).const.expand(len(ws), -1, -1, -1)
    for resolution in network.config.block_resolutions:
        block = synthesis.block(resolution)
        for name in ("conv0", "conv1") if resolution > 4 else ("conv1",):
            x = kept[f"b{resolution}.{name}"] = layer(modulated, getattr(block, name), x, ws[:, i])
            i += 1
        colours = to_rgb(modulated, block.torgb, x, ws[:, i])
        image = colours if image is None else upfirdn(image, [2, 1, 2, 1]) + colours
    assert image is not None
    return image, kept
