"""Bilinear resizing as a weighted sum of a few source positions per pixel."""

from __future__ import annotations

import torch


def bilinear_taps(
    native: tuple[int, int], size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sources of each output pixel in bilinear resizing (`align_corners=False`).

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
