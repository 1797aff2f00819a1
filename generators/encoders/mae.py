"""Masked autoencoders (He et al. 2022): the encoder, on whole images."""

from __future__ import annotations

from functools import partial

import torch
from timm.models.vision_transformer import VisionTransformer as Transformer
from torch import nn

from generators.encoders.config import EncoderConfig
from generators.encoders.network import Checkpoint, load_strictly
from generators.encoders.vit import BLOCK, VisionTransformer, count_heads, grid_size, read_shape

WHAT = "a MAE"
NORM_EPS = 1e-6
# The other half of the network, which features do not need.
DECODER = ("decoder_", "mask_token")


def build(checkpoint: Checkpoint, config: EncoderConfig) -> VisionTransformer:
    """The encoder of a MAE; by default, the later half of its blocks (the paper: 12 of 24)."""
    tensors = {n: t for n, t in checkpoint.tensors.items() if not n.startswith(DECODER)}
    shape = read_shape(tensors, WHAT)
    grid = grid_size(tensors.get("pos_embed"), 1, WHAT)
    side = grid * shape["patch_size"]
    if config.heads is None:  # ours say it
        config = config.model_copy(update={"heads": checkpoint.settings.get("heads")})
    heads = count_heads(shape["embed_dim"], config)
    with torch.device("meta"):
        transformer = encoder(side, shape["patch_size"], shape["embed_dim"], shape["depth"], heads)
    load_strictly(transformer, tensors, f"{WHAT} of width {shape['embed_dim']}")
    return VisionTransformer(transformer, config, BLOCK, -(-shape["depth"] // 2), native_size=side)


def encoder(
    image_size: int, patch_size: int, width: int, depth: int, heads: int, mlp_ratio: float = 4
) -> Transformer:
    """The encoder's transformer, for images of `image_size` pixels per side."""
    return Transformer(
        img_size=image_size,
        patch_size=patch_size,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        mlp_ratio=mlp_ratio,
        num_classes=0,
        global_pool="",
        norm_layer=partial(nn.LayerNorm, eps=NORM_EPS),
    )
