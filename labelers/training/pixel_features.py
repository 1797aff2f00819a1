"""Feature vectors of single pixels, gathered from maps that stay at native size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from labelers.ensemble.bilinear import bilinear_taps
from labelers.ensemble.classifiers import Tables

# Vectors gathered at a time on a CPU: about what stays in cache throughout interpolation,
# normalisation and the cast (64 pixels of 8448 channels; of few channels, more pixels per call).
CHUNK_BYTES = 2**21

CONSTANT = 1e-5  # a channel counts as constant if its std is below this fraction of its mean


@dataclass(frozen=True)
class Normalisation:
    """scale·x + shift, float32 `[C]` each, which gives every channel mean 0 and variance 1."""

    scale: torch.Tensor
    shift: torch.Tensor


class PixelReader:
    """The vectors of the pixels of N images of `size` (H, W), interpolated on demand.

    `tables` hold the features as `labelers.ensemble.classifiers.channel_last` arranges them, in
    memory or memory-mapped. Pixel p of image n has the number n·H·W + p.
    """

    def __init__(self, tables: Tables, size: tuple[int, int]):
        self.area = size[0] * size[1]
        self.channels = [table.shape[2] for table in tables.values()]
        self.device = next(iter(tables.values())).device
        self._groups = []
        for native, table in tables.items():
            taps, weights = bilinear_taps(native, size)
            rows = table.flatten(0, 1)
            self._groups.append((rows, table.shape[1], taps.to(rows.device), weights.to(rows)))

    def gather(
        self,
        pixels: torch.Tensor,
        out: torch.Tensor | None = None,
        normalisation: Normalisation | None = None,
    ) -> torch.Tensor:
        """Vectors `[*pixels.shape, C]` of numbered pixels, channels as `group_by_size`.

        They are float32, or in the dtype of `out`, which lets a caller reuse its memory;
        `normalisation` is applied before they are rounded to that dtype.
        """
        if out is None:
            out = torch.empty(*pixels.shape, sum(self.channels), device=self.device)
        flat, rows = pixels.flatten(), out.view(-1, out.shape[-1])
        step = len(flat)
        if self.device.type == "cpu":
            step = max(1, CHUNK_BYTES // (4 * out.shape[-1]))
        scratch = torch.empty(step if normalisation else 0, out.shape[-1], device=self.device)
        for start in range(0, len(flat), step):
            chunk = rows[start : start + step]
            vectors = chunk if normalisation is None else scratch[: len(chunk)]
            self._interpolate(flat[start : start + step], vectors)
            if normalisation is not None:
                chunk.copy_(torch.addcmul(normalisation.shift, vectors, normalisation.scale))
        return out

    def _interpolate(self, pixels: torch.Tensor, out: torch.Tensor) -> None:
        image, position = pixels // self.area, pixels % self.area
        parts = out.split(self.channels, 1)
        for part, (rows, native_area, taps, weights) in zip(parts, self._groups, strict=True):
            read = taps[position] + (image * native_area)[:, None]
            # One fused gather and weighted sum per size, instead of four gathers and three sums.
            part.copy_(
                F.embedding_bag(read, rows, mode="sum", per_sample_weights=weights[position])
            )

    def normalisation(self, pixels: torch.Tensor) -> Normalisation:
        """The normalisation over numbered pixels `[P]`; constant channels are not scaled."""
        variance, mean = torch.var_mean(self.gather(pixels), 0, correction=0)
        std = variance.sqrt()
        scale = torch.where(std > CONSTANT * mean.abs(), std, 1.0).reciprocal()
        return Normalisation(scale, -mean * scale)
