"""The StyleGAN2 discriminator (Karras et al. 2020a, Sec. 4): residual blocks down to 4 x 4.

It is used in training only; nothing else reads its weights.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.stylegan2.config import NetworkConfig
from generators.stylegan2.network import GAIN, SLOPE, Dense
from generators.stylegan2.resample import blur, downsample

GROUP = 4  # samples whose spread is shown to the discriminator (Karras et al. 2018, Sec. 3)


class Conv(nn.Module):
    """Convolution with an equalised learning rate; halves the resolution if `down`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        down: bool = False,
        activate: bool = True,
        gain: float = 1.0,
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if activate else None
        self.kernel, self.down = kernel, down
        # The gain of the leaky ReLU, which commutes with scaling, costs nothing here.
        self.gain = gain * (GAIN if activate else 1.0)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * (self.gain / math.sqrt(self.weight[0].numel()))
        stride, padding = 1, self.kernel // 2
        if self.down and self.kernel == 1:
            x = downsample(x)
        elif self.down:
            x, stride, padding = blur(x, padding=2), 2, 0
        bias = None if self.bias is None else (self.bias * self.gain).to(x.dtype)
        y = F.conv2d(x, weight.to(x.dtype), bias, stride, padding)
        return y if self.bias is None else F.leaky_relu_(y, SLOPE)


class DiscriminatorBlock(nn.Module):
    """`[N, C, R, R]` -> `[N, C', R/2, R/2]`."""

    def __init__(self, channels: int, after: int):
        super().__init__()
        self.conv0 = Conv(channels, channels, 3)
        self.conv1 = Conv(channels, after, 3, down=True, gain=math.sqrt(0.5))
        self.skip = Conv(channels, after, 1, down=True, activate=False, gain=math.sqrt(0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.conv1(self.conv0(x))


def with_spread(x: Tensor) -> Tensor:
    """`x` `[N, C, H, W]` and one more channel: how much the samples of a group differ."""
    n = len(x)
    group = GROUP if n % GROUP == 0 else n
    y = x.float().unflatten(0, (group, n // group))
    spread = (y.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))  # [N / group]
    return torch.cat([x, spread.repeat(group)[:, None, None, None].expand(-1, 1, *x.shape[2:])], 1)


class Discriminator(nn.Module):
    """Images -> logits: positive for what looks real."""

    def __init__(self, config: NetworkConfig):
        """`config` is that of the generator, whose widths it shares."""
        super().__init__()
        finest, *_ = resolutions = config.block_resolutions[:0:-1]  # R, ..., 8
        self.from_rgb = Conv(3, config.channels(finest), 1)
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(config.channels(r), config.channels(r // 2)) for r in resolutions
        )
        coarsest = config.channels(4)
        self.conv = Conv(coarsest + 1, coarsest, 3)
        self.fc = Dense(coarsest * 16, coarsest, activate=True)
        self.out = Dense(coarsest, 1)

    def forward(self, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Logits `[N]` of images `[N, 3, R, R]` in [-1, 1]; `dtype` is that of the blocks."""
        x = self.from_rgb(images.to(dtype, memory_format=torch.channels_last))
        for block in self.blocks:
            x = block(x)
        x = self.conv(with_spread(x.float()))
        return self.out(self.fc(x.flatten(1))).squeeze(1)
