"""Segmenting images too large for memory: overlapping tiles with blended logits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from train_seg.config import INFERENCE_BATCH_SIZE, MIN_SIDE_PX

MAX_OVERLAP = 0.9

LogitsFn = Callable[[torch.Tensor], torch.Tensor]
Size = tuple[int, int]


@dataclass(frozen=True)
class Tiling:
    """Tiles of `size` (height, width) in pixels; neighbours share the fraction `overlap`."""

    size: Size
    overlap: float = 0.25

    def __post_init__(self) -> None:
        if not 0 <= self.overlap <= MAX_OVERLAP:
            raise ValueError(f"expected an overlap from 0 to {MAX_OVERLAP}, found {self.overlap:g}")
        if min(self.size) < MIN_SIDE_PX:
            height, width = self.size
            raise ValueError(
                f"expected tiles of at least {MIN_SIDE_PX} pixels per side, found {height}x{width}"
            )

    @classmethod
    def of_height(cls, height: int, training_size: Size, overlap: float) -> Tiling:
        """Tiles of `height` pixels, in the proportions of the training images."""
        return cls((height, round(height * training_size[1] / training_size[0])), overlap)


def predict_tiled(
    logits_fn: LogitsFn, image: torch.Tensor, tiling: Tiling, batch_size: int = INFERENCE_BATCH_SIZE
) -> torch.Tensor:
    """Class ids uint8 `[H, W]` of an image uint8 `[3, H, W]`.

    `logits_fn` maps tiles uint8 `[N, 3, h, w]` to logits `[N, K, h, w]`. The weights of a tile fall
    off linearly over the overlap. The image is processed in bands from top to bottom: besides image
    and mask, memory holds the logits of one row of tiles, K x h x W floats, whatever the height of
    the image. An image smaller than a tile is padded with its edge pixels, which keeps its scale.
    """
    height, width = image.shape[1:]
    image = _at_least(image, tiling.size)
    (h, w), mask = tiling.size, torch.empty(image.shape[1:], dtype=torch.uint8)
    tops, lefts = (
        _starts(length, side, tiling.overlap)
        for length, side in zip(image.shape[1:], tiling.size, strict=True)
    )
    weights = torch.outer(_ramp(h, tiling.overlap), _ramp(w, tiling.overlap))
    band = torch.empty(0)
    for top, following in zip(tops, [*tops[1:], image.shape[1]], strict=True):
        for i in range(0, len(lefts), batch_size):
            columns = lefts[i : i + batch_size]
            tiles = torch.stack([image[:, top : top + h, x : x + w] for x in columns])
            logits = logits_fn(tiles).float()
            if not band.numel():
                band = logits.new_zeros(logits.shape[1], h, image.shape[2])
                weights = weights.to(logits.device)
            for x, tile in zip(columns, logits, strict=True):
                band[:, :, x : x + w] += tile * weights
        # These rows are final. The largest weighted sum is also the largest weighted mean: the
        # weights of a pixel have the same sum for all classes.
        done = following - top
        mask[top:following] = band[:, :done].argmax(0).to(torch.uint8).cpu()
        band = torch.cat([band[:, done:], torch.zeros_like(band[:, :done])], 1)
    return mask[:height, :width]


def _starts(length: int, side: int, overlap: float) -> list[int]:
    """Starts of the tiles: evenly spaced, overlapping by at least `overlap`."""
    step = max(1, int(side * (1 - overlap)))
    count = 1 + math.ceil((length - side) / step)
    return [round(i * (length - side) / max(1, count - 1)) for i in range(count)]


def _ramp(side: int, overlap: float) -> torch.Tensor:
    """Weights 0-1 along a side: rising over one overlap, falling over the other."""
    shared = max(1.0, side * overlap)
    distance = torch.arange(side) + 0.5
    return (torch.minimum(distance, side - distance) / shared).clamp(max=1)


def _at_least(image: torch.Tensor, size: Size) -> torch.Tensor:
    """`image`, padded with its last row and column up to `size`."""
    for axis, side in zip((1, 2), size, strict=True):
        length = image.shape[axis]
        if length < side:
            image = image.index_select(axis, torch.arange(side).clamp(max=length - 1))
    return image
