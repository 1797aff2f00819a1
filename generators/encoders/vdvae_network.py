"""VDVAE (Child 2021): the activations of encoder and decoder, with every latent at its mean.

Names of modules and parameters are those of the published state dicts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.encoders.network import choose_layers, take
from generators.encoders.vdvae_config import VDVAEShape

SMALL_PX = 2  # up to this, a 3x3 kernel would see mostly padding
Noise = Callable[[int, torch.Size], Tensor]  # of a block: its number and shape -> eps


class Bottleneck(nn.Module):
    """Four convolutions, GELU before each."""

    def __init__(self, before: int, inner: int, after: int, resolution: int):
        super().__init__()
        kernel = 3 if resolution > SMALL_PX else 1
        self.c1 = nn.Conv2d(before, inner, 1)
        self.c2 = nn.Conv2d(inner, inner, kernel, padding=kernel // 2)
        self.c3 = nn.Conv2d(inner, inner, kernel, padding=kernel // 2)
        self.c4 = nn.Conv2d(inner, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, before, R, R]` -> `[N, after, R, R]`."""
        for convolution in (self.c1, self.c2, self.c3, self.c4):
            x = convolution(F.gelu(x))
        return x


class Latent(NamedTuple):
    """Means and log standard deviations `[N, zdim, R, R]` of a block: posterior q, prior p."""

    q_mean: Tensor
    q_log: Tensor
    p_mean: Tensor
    p_log: Tensor

    def kl(self) -> Tensor:
        """KL(q || p) in nats, elementwise, float32."""
        q_mean, q_log, p_mean, p_log = (x.float() for x in self)
        square = (2 * q_log).exp() + (q_mean - p_mean).square()
        return p_log - q_log + 0.5 * square * (-2 * p_log).exp() - 0.5


class TopDownBlock(nn.Module):
    """One latent of the decoder."""

    def __init__(self, width: int, inner: int, zdim: int, resolution: int):
        super().__init__()
        self.zdim, self.width = zdim, width
        self.enc = Bottleneck(2 * width, inner, 2 * zdim, resolution)
        self.prior = Bottleneck(width, inner, 2 * zdim + width, resolution)
        self.z_proj = nn.Conv2d(zdim, width, 1)
        self.resnet = Bottleneck(width, inner, width, resolution)

    def forward(
        self, x: Tensor, a: Tensor | None, eps: Callable[[torch.Size], Tensor] | None = None
    ) -> tuple[Tensor, Latent]:
        """x `[N, width, R, R]` after the block, and its latent z = μ + σ eps; None: z = μ.

        `a` `[N, width, R, R]` is the encoder's map; without one, z follows the prior.
        """
        p_mean, p_log, more = self.prior(x).split([self.zdim, self.zdim, self.width], dim=1)
        q_mean, q_log = p_mean, p_log
        if a is not None:
            q_mean, q_log = self.enc(torch.cat([x, a], dim=1)).chunk(2, dim=1)
        z = q_mean if eps is None else q_mean + q_log.exp() * eps(q_mean.shape).to(q_mean)
        x = x + more + self.z_proj(z)
        return x + self.resnet(x), Latent(q_mean, q_log, p_mean, p_log)


class Encoder(nn.Module):
    """Image -> maps at ever coarser resolutions."""

    def __init__(self, shape: VDVAEShape):
        super().__init__()
        self.shape = shape
        self.in_conv = nn.Conv2d(3, shape.widths[shape.image_size], 3, padding=1)
        self.enc_blocks = nn.ModuleList(
            Bottleneck(w := shape.widths[b.resolution], shape.inner(b.resolution), w, b.resolution)
            for b in shape.encoder
        )

    def walk(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Names and maps in order, from a normalised image `[N, 3, H, W]`."""
        x = self.in_conv(x)
        blocks = self.shape.encoder
        if blocks[0].down:  # no other map has the resolution of the image
            yield f"at{blocks[0].resolution}", x
        for number, (block, layer) in enumerate(zip(blocks, self.enc_blocks, strict=True)):
            x = x + layer(x)
            if block.down:
                x = F.avg_pool2d(x, block.down)
            yield f"enc_blocks.{number}", x
            resolution = x.shape[-1]
            wider = self.shape.widths[resolution] - x.shape[1]
            x = F.pad(x, (0, 0, 0, 0, 0, wider)) if wider else x
            if number + 1 == len(blocks) or blocks[number + 1].down:
                yield f"at{resolution}", x


class OutNet(nn.Module):
    """The distribution of the pixels."""

    def __init__(self, width: int, mixtures: int):
        super().__init__()
        self.out_conv = nn.Conv2d(width, 10 * mixtures, 1)


class Decoder(nn.Module):
    """The encoder's maps -> latents, from coarse to fine, and the distribution of the image."""

    def __init__(self, shape: VDVAEShape):
        super().__init__()
        self.shape = shape
        width = shape.widths[shape.image_size]
        self.dec_blocks = nn.ModuleList(
            TopDownBlock(
                shape.widths[b.resolution], shape.inner(b.resolution), shape.zdim, b.resolution
            )
            for b in shape.decoder
        )
        self.bias_xs = nn.ParameterList(
            nn.Parameter(torch.zeros(1, shape.widths[r], r, r)) for r in shape.biased
        )
        self.gain = nn.Parameter(torch.ones(1, width, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.out_net = OutNet(width, shape.mixtures)

    def walk(
        self, maps: Mapping[int, Tensor] | None, n: int, noise: Noise | None = None
    ) -> Iterator[tuple[str, Tensor, Latent]]:
        """Name, map and latent of each block, for `n` images.

        `maps` are the encoder's by resolution (None: latents follow the prior); `noise` draws the
        eps of a block.
        """
        starts = dict(zip(self.shape.biased, self.bias_xs, strict=True))
        xs: dict[int, Tensor] = {}
        for number, (block, layer) in enumerate(
            zip(self.shape.decoder, self.dec_blocks, strict=True)
        ):
            r, width = block.resolution, self.shape.widths[block.resolution]
            if (x := xs.get(r)) is None:
                start = starts.get(r)
                x = self.gain.new_zeros(1, width, r, r) if start is None else start
                x = x.expand(n, -1, -1, -1)
            if block.source:
                above = xs[block.source][:, :width]
                x = x + F.interpolate(above, scale_factor=r // block.source)
            eps = None if noise is None else lambda shape, i=number: noise(i, shape)
            xs[r], latent = layer(x, None if maps is None else maps[r], eps)
            yield f"dec_blocks.{number}", xs[r], latent

    def pixels(self, x: Tensor) -> Tensor:
        """Parameters of the pixels' distribution `[N, 10 mixtures, H, W]` from the last map."""
        return self.out_net.out_conv(self.gain * x + self.bias)


class VDVAE(nn.Module):
    """Features of images; see `generators.encoders.network.EncoderNetwork`."""

    multiple = 1

    def __init__(self, shape: VDVAEShape, layers: Sequence[str] | None = None):
        """Raises ValueError for `layers` that the network does not have."""
        super().__init__()
        self.shape, self.native_size = shape, shape.image_size
        self.layer_names, self.default_layers = layer_names(shape)
        self.layers = choose_layers(layers, self.layer_names, self.default_layers)
        self.encoder, self.decoder = Encoder(shape), Decoder(shape)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 `[N, 3, H, W]` -> what the network sees."""
        x = images.float() + self.shape.shift
        return (x * self.shape.scale).to(self.decoder.gain.dtype)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The maps `layers` of images uint8 `[N, 3, H, W]`, with eps = 0."""
        return take(self._walk(images), self.layers)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Parameters `[N, 10 mixtures, H, W]` of the pixels of images uint8, with eps = 0."""
        *_, (_, x) = self._walk(images)
        return self.decoder.pixels(x)

    def _walk(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        maps: dict[int, Tensor] = {}
        for name, x in self.encoder.walk(self.normalise(images)):
            if name.startswith("at"):
                maps[x.shape[-1]] = x
            yield f"encoder.{name}", x
        for name, x, _ in self.decoder.walk(maps, len(images)):
            yield f"decoder.{name}", x


def layer_names(shape: VDVAEShape) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """All maps in order, and the default: the last of each resolution, in encoder and decoder."""
    names: list[str] = []
    encoder, decoder = shape.encoder, shape.decoder
    if encoder[0].down:
        names.append(f"encoder.at{encoder[0].resolution}")
    for number, block in enumerate(encoder):
        names.append(f"encoder.enc_blocks.{number}")
        if number + 1 == len(encoder) or encoder[number + 1].down:
            names.append(f"encoder.at{block.resolution // (block.down or 1)}")
    last = {block.resolution: f"decoder.dec_blocks.{n}" for n, block in enumerate(decoder)}
    default = (*(name for name in names if name.startswith("encoder.at")), *last.values())
    return (*names, *(f"decoder.dec_blocks.{n}" for n in range(len(decoder)))), default
