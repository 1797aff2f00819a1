"""Resampling with StyleGAN2's low-pass filter [1, 3, 3, 1], differentiable any number of times.

The three operations are linear, and the gradient of each is one of the three; autograd uses these
gradients here. PyTorch's own gradient of a depthwise convolution is 5 to 30 times slower on a CPU,
and its second derivative, which R1 and path-length regularisation need, goes channel by channel.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

FIR = (1.0, 3.0, 3.0, 1.0)
BINOMIAL = (1.0, 2.0, 1.0)  # FIR is this, convolved with [1, 1]


def fir_filter() -> Tensor:
    """The low-pass filter `[4, 4]`, of sum 1."""
    return torch.outer(torch.tensor(FIR), torch.tensor(FIR)) / 64


@functools.lru_cache(maxsize=256)
def _weight(
    taps: tuple[float, ...], gain: float, channels: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Taps of sum `gain` in each direction as the weight of a depthwise convolution."""
    row = torch.tensor(taps) * (gain / sum(taps))
    weight = torch.outer(row, row).to(device, dtype)
    return weight.expand(channels, 1, -1, -1).contiguous()


def _filter(x: Tensor, taps: tuple[float, ...], padding: int, stride: int = 1) -> Tensor:
    weight = _weight(taps, 1.0, x.shape[1], x.dtype, x.device)
    return F.conv2d(x, weight, stride=stride, padding=padding, groups=x.shape[1])


class _Blur(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, padding: int) -> Tensor:
        ctx.padding = padding
        return _filter(x, FIR, padding)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Blur.apply(gradient, len(FIR) - 1 - ctx.padding), None


class _Downsample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _filter(x, FIR, padding=1, stride=2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Upsample.apply(gradient) / 4


class _Upsample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        if x.dtype is torch.float32:
            weight = _weight(FIR, 2.0, x.shape[1], x.dtype, x.device)
            return F.conv_transpose2d(x, weight, stride=2, padding=1, groups=x.shape[1])
        # The same, because [1, 1] after inserted zeros repeats pixels. CPUs have no kernel for
        # transposed depthwise convolutions in bfloat16: those take 30 times as long.
        return _filter(F.interpolate(x, scale_factor=2), BINOMIAL, padding=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Downsample.apply(gradient) * 4


def blur(x: Tensor, padding: int) -> Tensor:
    """Low-pass filtered, `[N, C, H + 2·padding - 3, W + 2·padding - 3]`."""
    return _Blur.apply(x, padding)


def downsample(x: Tensor) -> Tensor:
    """Low-pass filtered, then every second pixel: `[N, C, H / 2, W / 2]` (H and W even)."""
    return _Downsample.apply(x)


def upsample(x: Tensor) -> Tensor:
    """Zeros inserted between pixels, then low-pass filtered: `[N, C, 2H, 2W]`."""
    return _Upsample.apply(x)
