"""Masked autoencoders in training (He et al. 2022): encoder, decoder, and the loss.

The encoder sees a quarter of the patches; the decoder, which is dropped afterwards, predicts the
pixels of the others.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from timm.layers import build_sincos2d_pos_embed
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from generators.encoders.mae import NORM_EPS, encoder
from generators.encoders.mae_config import MAETrainingConfig
from generators.encoders.vit import Normalise

PATCH_EPS = 1e-6  # of the variance of a patch
TOKEN_STD = 0.02


class Prediction(NamedTuple):
    """`pixels` `[N, L, P * P * 3]` of all patches; `hidden` `[N, L]`, 1 where they were masked."""

    pixels: Tensor
    hidden: Tensor


class MaskedAutoencoder(nn.Module):
    """Predicts the masked patches of images."""

    def __init__(self, config: MAETrainingConfig):
        super().__init__()
        self.config, self.normalise = config, Normalise()
        side, dim = config.image_size // config.patch_size, config.decoder_width
        self.encoder = encoder(
            config.image_size, config.patch_size, config.width, config.depth, config.heads
        )
        self.encoder.pos_embed = nn.Parameter(positions(side, config.width), requires_grad=False)
        self.embed = nn.Linear(config.width, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        nn.init.normal_(self.mask_token, std=TOKEN_STD)
        self.positions: Tensor
        self.register_buffer("positions", positions(side, dim))
        norm: Any = partial(nn.LayerNorm, eps=NORM_EPS)
        self.blocks = nn.Sequential(
            *(
                Block(dim, config.decoder_heads, qkv_bias=True, norm_layer=norm)
                for _ in range(config.decoder_depth)
            )
        )
        self.norm = norm(dim)
        self.predict = nn.Linear(dim, 3 * config.patch_size**2)

    def forward(self, images: Tensor, order: Tensor) -> Prediction:
        """Predict patches of normalised images `[N, 3, H, W]`.

        `order` `[N, L]` is a permutation of the patches of each; the encoder sees the first ones.
        """
        latent, visible = self._encode(images, order), self.config.visible
        x = self.embed(latent)
        masked = self.mask_token.expand(len(x), order.shape[1] - visible, -1)
        patches = torch.cat([x[:, 1:], masked], dim=1)
        restored = _take(patches, order.argsort(dim=1))
        x = torch.cat([x[:, :1], restored], dim=1) + self.positions
        pixels = self.predict(self.norm(self.blocks(x)))[:, 1:]
        hidden = torch.ones_like(order, dtype=pixels.dtype).scatter(1, order[:, :visible], 0)
        return Prediction(pixels, hidden)

    def _encode(self, images: Tensor, order: Tensor) -> Tensor:
        """The class token and the visible patches, in `order`, after the encoder's norm."""
        net: Any = self.encoder
        patches = net.patch_embed(images) + net.pos_embed[:, 1:]
        seen = _take(patches, order[:, : self.config.visible])
        first = (net.cls_token + net.pos_embed[:, :1]).expand(len(seen), -1, -1)
        encoded: Tensor = net.norm(net.blocks(torch.cat([first, seen], dim=1)))
        return encoded

    def loss(self, images: Tensor, order: Tensor) -> Tensor:
        """Mean squared error over the masked patches, of normalised images."""
        found, target = self(images, order), self.patchify(images)
        if self.config.norm_pix_loss:
            mean, std = statistics(target)
            target = (target - mean) / std
        error = (found.pixels.float() - target).square().mean(dim=2)
        return (error * found.hidden).sum() / found.hidden.sum()

    def patchify(self, images: Tensor) -> Tensor:
        """`[N, 3, H, W]` to patches `[N, L, P * P * 3]`, row by row."""
        n, size = len(images), self.config.patch_size
        side = images.shape[-1] // size
        parts = images.reshape(n, 3, side, size, side, size)
        return parts.permute(0, 2, 4, 3, 5, 1).reshape(n, side * side, size * size * 3)

    def unpatchify(self, patches: Tensor) -> Tensor:
        """The inverse of `patchify`."""
        n, size = len(patches), self.config.patch_size
        side = self.config.image_size // size
        parts = patches.reshape(n, side, side, size, size, 3)
        return parts.permute(0, 5, 1, 3, 2, 4).reshape(n, 3, side * size, side * size)


def statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the values of each patch, `[N, L, 1]`."""
    mean, var = patches.mean(dim=2, keepdim=True), patches.var(dim=2, keepdim=True)
    return mean, (var + PATCH_EPS).sqrt()


def positions(side: int, width: int) -> Tensor:
    """Sines and cosines of a grid, after zeros for the class token: `[1, 1 + side², width]`."""
    grid = build_sincos2d_pos_embed([side, side], width)
    return torch.cat([torch.zeros(1, width), grid])[None]


def _take(tokens: Tensor, order: Tensor) -> Tensor:
    """The tokens `[N, L, D]` in the `order` `[N, M]`."""
    return tokens.gather(1, order[:, :, None].expand(-1, -1, tokens.shape[2]))
