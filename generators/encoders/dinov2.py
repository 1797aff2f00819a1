"""DINOv2 (Oquab et al. 2023), with and without registers, at any multiple of its patches."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from timm.layers import SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer as Transformer
from torch import Tensor, nn
from torch.nn import functional as F

from generators.encoders.config import EncoderConfig
from generators.encoders.network import Checkpoint, load_strictly
from generators.encoders.vit import NORM, VisionTransformer, count_heads, grid_size, read_shape

WHAT = "a DINOv2"
LAST = 4  # blocks of the linear protocol
OFFSET = 0.1  # added to the number of patches before their positions are resampled


class Resampling(Transformer):
    """timm's transformer, with the positions of other image sizes as the original resamples them.

    Without registers, that is bicubic without antialiasing, by the factor (patches + 0.1) / G; with
    registers, antialiased and to the size.
    """

    def _pos_embed(self, x: Tensor) -> Tensor:
        batch, height, width, _ = x.shape
        has_registers = self.num_reg_tokens > 0
        of_class = 0 if has_registers else 1
        assert self.pos_embed is not None
        assert self.cls_token is not None
        positions = resample(self.pos_embed[:, of_class:], height, width, has_registers)
        patches = x.flatten(1, 2) + positions
        first: Tensor = self.cls_token
        if not has_registers:
            first = first + self.pos_embed[:, :1]
        prefix = [first] if self.reg_token is None else [first, self.reg_token]
        return torch.cat([*(token.expand(batch, -1, -1) for token in prefix), patches], dim=1)


def resample(positions: Tensor, height: int, width: int, has_registers: bool) -> Tensor:
    """Positions `[1, G * G, D]` for a grid of height x width patches."""
    side = round(positions.shape[1] ** 0.5)
    if (height, width) == (side, side):
        return positions
    grid = positions.view(1, side, side, -1).permute(0, 3, 1, 2).float()
    if has_registers:
        found = F.interpolate(grid, size=(height, width), mode="bicubic", antialias=True)
    else:
        factors = ((height + OFFSET) / side, (width + OFFSET) / side)
        found = F.interpolate(grid, scale_factor=factors, mode="bicubic")
    return found.flatten(2).transpose(1, 2).to(positions.dtype)


def build(checkpoint: Checkpoint, config: EncoderConfig) -> VisionTransformer:
    """A DINOv2; by default, its last four blocks after the final norm."""
    tensors = convert(checkpoint.tensors)
    is_gated = "blocks.0.mlp.fc2.weight" in tensors and _is_gated(checkpoint.tensors)
    shape = read_shape(tensors, WHAT)
    registers = tensors.get("reg_token")
    grid = grid_size(tensors.get("pos_embed"), 0 if registers is not None else 1, WHAT)
    gated: dict[str, Any] = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU} if is_gated else {}
    with torch.device("meta"):
        transformer = Resampling(
            img_size=grid * shape["patch_size"],
            patch_size=shape["patch_size"],
            embed_dim=shape["embed_dim"],
            depth=shape["depth"],
            num_heads=count_heads(shape["embed_dim"], config),
            mlp_ratio=(shape["hidden"] + 0.5) / shape["embed_dim"],  # rounded down again
            num_classes=0,
            global_pool="",
            init_values=1e-5,
            reg_tokens=0 if registers is None else registers.shape[1],
            no_embed_class=registers is not None,
            dynamic_img_size=True,
            **gated,
        )
    load_strictly(transformer, tensors, f"{WHAT} of width {shape['embed_dim']}")
    return VisionTransformer(transformer, config, NORM, LAST, native_size=None)


def convert(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by timm's names; the mask token, which only training needs, is dropped."""
    found = {_renamed(name): t for name, t in tensors.items() if name != "mask_token"}
    if (registers := found.pop("register_tokens", None)) is None:
        return found
    positions, first = found.get("pos_embed"), found.get("cls_token")
    if registers.ndim != 3 or positions is None or positions.ndim != 3 or first is None:
        raise ValueError(f"not the weights of {WHAT}: expected cls_token, pos_embed and registers")
    found["cls_token"] = first + positions[:, :1]
    return {**found, "reg_token": registers, "pos_embed": positions[:, 1:]}


def _renamed(name: str) -> str:
    name = re.sub(r"^blocks\.\d+\.(\d+\.)", r"blocks.\1", name)  # in chunks, as for FSDP
    return name.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2.")


def _is_gated(tensors: Mapping[str, Tensor]) -> bool:
    return any(".mlp.w12." in name for name in tensors)
