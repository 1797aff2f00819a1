"""Vision transformers of timm as encoders: the outputs of their blocks, as maps."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from generators.encoders.config import EncoderConfig
from generators.encoders.network import choose_layers

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HEAD_WIDTH = 64  # of every published network, but for those in HEADS
SMALLEST_WIDTH = 192  # of a published one
HEADS = {1280: 16, 1408: 16}  # width to heads: MAE's ViT-H, and ViT-g
BLOCK, NORM = "blocks", "norm"


class Normalise(nn.Module):
    """uint8 images `[N, 3, H, W]` to float32, (x / 255 - mean) / std for each channel."""

    def __init__(
        self, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD
    ):
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images.float() / 255 - self.mean) / self.std


class VisionTransformer(nn.Module):
    """An `EncoderNetwork` over a transformer of timm.

    `blocks.N` is the residual stream after block N, the class token and registers dropped, the
    patches as a map; `norm.N` is the same after the final layer norm.
    """

    def __init__(
        self,
        transformer: Any,
        config: EncoderConfig,
        default: str,
        count: int,
        native_size: int | None,
        normalise: Normalise | None = None,
    ):
        """`default` layers are the last `count` of `default`: BLOCK or NORM.

        `native_size` is the only size in pixels that the network takes, None if it takes any.
        """
        super().__init__()
        self.normalise = normalise or Normalise()
        self.transformer = transformer
        depth = len(transformer.blocks)
        self.layer_names = tuple(f"{kind}.{n}" for n in range(depth) for kind in (BLOCK, NORM))
        self.default_layers = tuple(f"{default}.{n}" for n in range(depth))[-count:]
        self.layers = choose_layers(config.layers, self.layer_names, self.default_layers)
        self.native_size = native_size
        self.multiple = transformer.patch_embed.patch_size[0]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The maps `layers`, each `[N, width, H / patch, W / patch]`."""
        wanted = [(kind, int(n)) for kind, n in (name.split(".") for name in self.layers)]
        blocks = sorted({n for _, n in wanted})
        maps = self.transformer.forward_intermediates(
            self.normalise(images), indices=blocks, stop_early=True, intermediates_only=True
        )
        found = dict(zip(blocks, maps, strict=True))
        return {
            name: found[n] if kind == BLOCK else self._normed(found[n])
            for name, (kind, n) in zip(self.layers, wanted, strict=True)
        }

    def _normed(self, x: Tensor) -> Tensor:
        normed: Tensor = self.transformer.norm(x.permute(0, 2, 3, 1))
        return normed.permute(0, 3, 1, 2).contiguous()


def read_shape(tensors: Mapping[str, Tensor], what: str) -> dict[str, int]:
    """Patch, width, depth and width of the MLP of the transformer that `tensors` belong to.

    Raises ValueError if they are of no transformer; `what` names the expected one.
    """
    patch, fc1 = tensors.get("patch_embed.proj.weight"), tensors.get("blocks.0.mlp.fc1.weight")
    if patch is None or fc1 is None or patch.ndim != 4 or fc1.ndim != 2 or 0 in patch.shape:
        missing = "patch_embed.proj.weight and blocks.0.mlp.fc1.weight"
        raise ValueError(f"not the weights of {what}: expected {missing}")
    width, _, size, _ = patch.shape
    return {
        "patch_size": size,
        "embed_dim": width,
        "depth": count_blocks(tensors, "blocks."),
        "hidden": fc1.shape[0],
    }


def count_blocks(names: Collection[str], prefix: str) -> int:
    """1 + the largest N of names that begin with `prefix` and N, at most their number."""
    starts = (name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix))
    numbers = [int(start) for start in starts if start.isdecimal() and len(start) < 5]
    return min(1 + max(numbers, default=-1), len(names))


def count_heads(width: int, config: EncoderConfig) -> int:
    """The number of attention heads, which no tensor shows.

    It is the given one, or that of the published networks of this width. Raises ValueError if
    neither is known.
    """
    published = HEADS.get(width) or (width // HEAD_WIDTH if width >= SMALLEST_WIDTH else 0)
    heads = config.heads or published
    if not heads or width % heads:
        found = (
            f"generator.heads={config.heads}"
            if config.heads
            else "not its number of attention heads"
        )
        divisor = min((n for n in range(1, 17) if width % n == 0), key=lambda n: abs(n - 6))
        raise ValueError(
            f"found a transformer of width {width}, but {found}: give a divisor of the width, such "
            f"as --set generator.heads={divisor}"
        )
    return heads


def grid_size(positions: Tensor | None, prefix: int, what: str) -> int:
    """Patches per side of a table of positions `[1, prefix + G * G, D]`; else ValueError."""
    tokens = 0 if positions is None or positions.ndim != 3 else positions.shape[1] - prefix
    side = round(max(tokens, 0) ** 0.5)
    if side < 1 or side * side != tokens:
        raise ValueError(
            f"not the weights of {what}: expected pos_embed with positions of a square image"
        )
    return side
