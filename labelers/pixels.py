"""Feature vectors of single pixels, gathered from maps that stay at native size."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from generators.base import FeatureMaps
from labelers.ensemble import channel_last, group_by_size


def bilinear_taps(
    native: tuple[int, int], size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where bilinear resizing (`align_corners=False`) reads each output pixel from, and how much.

    Positions int64 and weights float32 `[H·W, taps]` in a flattened map of `native` size; taps is
    4, or 1 where the sizes are equal. The weights of a pixel sum to 1.
    """
    if native == size:
        return torch.arange(size[0] * size[1])[:, None], torch.ones(size[0] * size[1], 1)
    (y, wy), (x, wx) = (_axis_taps(n, s) for n, s in zip(native, size, strict=True))
    positions = y[:, None, :, None] * native[1] + x[None, :, None, :]
    weights = wy[:, None, :, None] * wx[None, :, None, :]
    return positions.reshape(-1, 4), weights.reshape(-1, 4)


def _axis_taps(native: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The two source positions of each of `size` outputs and their weights, `[size, 2]` each."""
    source = ((torch.arange(size) + 0.5) * (native / size) - 0.5).clamp_(min=0)
    low = source.long().clamp_(max=native - 1)
    fraction = (source - low).clamp_(max=1)
    return (
        torch.stack([low, (low + 1).clamp_(max=native - 1)], 1),
        torch.stack([1 - fraction, fraction], 1),
    )


class PixelStore:
    """Feature maps of N images, channel-last, that give the vectors of pixels of size (H, W).

    Costs one copy of the features at native size. Pixel p of image n has the number n·H·W + p.
    """

    def __init__(self, features: FeatureMaps, size: tuple[int, int]):
        self.size = size
        self._groups = []
        for native, table in channel_last(features, group_by_size(features.spec)).items():
            taps, weights = bilinear_taps(native, size)
            rows = table.flatten(0, 1)
            self._groups.append((rows, table.shape[1], taps.to(rows.device), weights.to(rows)))

    def gather(self, pixels: torch.Tensor) -> torch.Tensor:
        """Float vectors `[*pixels.shape, C]` of numbered pixels, channels as `group_by_size`."""
        flat = pixels.flatten().long()
        area = self.size[0] * self.size[1]
        image, position = flat // area, flat % area
        parts = []
        for rows, native_area, taps, weights in self._groups:
            read = taps[position] + (image * native_area)[:, None]
            # One fused gather and weighted sum a size, instead of four gathers and three sums.
            parts.append(
                F.embedding_bag(read, rows, mode="sum", per_sample_weights=weights[position])
            )
        return torch.cat(parts, 1).unflatten(0, pixels.shape)
