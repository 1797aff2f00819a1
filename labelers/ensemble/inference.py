"""Labelling whole images with an ensemble, without ever upsampling a feature map.

Bilinear upsampling is linear and acts per channel, so the first layer of the members commutes with
it: W·concat_l(up(f_l)) = Σ_l up(W_l·f_l). An image takes three steps:

1. Project. One matrix product applies the first layers of all members to the concatenated maps of
   one native size. The results of all sizes are the rows of one table: one row per native
   position, one column per hidden unit of a member.
2. Upsample and add. A pixel of the image is a weighted sum of rows of that table, four of each
   native size: an embedding bag, 25x faster on a CPU than upsampling each size and adding.
3. ReLU and the other layers, with the normalisation, which is affine, folded into them.

On a CPU, steps 2 and 3 run in tiles of pixels that stay in cache. On a GPU, all steps take several
images at once if these are small: the kernels of one would not keep it busy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F

from generators.base import FeatureMaps, batches
from labelers.ensemble.bilinear import bilinear_taps
from labelers.ensemble.classifiers import Ensemble

# Size of the widest layer of a tile. On a CPU it stays in cache (from 1 to 10 MiB the speed is the
# same: smaller tiles spend more on calls, larger ones on memory); on a GPU it keeps it busy.
TILE_BYTES = {"cpu": 5 * 2**20, "cuda": 2**28}
# Small, because a part of a batch costs as much as a whole one.
MOST_AT_ONCE = 8

Size = tuple[int, int]


class FoldedEnsemble:
    """The members of `ensemble` ready for prediction, computing in `dtype`, on its device.

    Weights are copies: further training of the ensemble does not change them. In bfloat16 the last
    layer still works in float32, because rounded logits would tie.
    """

    @torch.no_grad()
    def __init__(self, ensemble: Ensemble, dtype: torch.dtype = torch.float32):
        self.dtype = dtype
        self.groups = ensemble.groups
        first, *others = ensemble.linears
        self.device = first.weight.device
        self.members = ensemble.members
        self.widths = [linear.weight.shape[1] for linear in ensemble.linears]
        channels = [sum(m.channels for m in maps) for maps in self.groups.values()]
        # [channels of a size, M·hidden], one matrix per native size.
        self.projections = first.weight.flatten(0, 1).to(dtype, copy=True).T.split(channels)
        self.first_bias = first.bias.flatten().to(dtype, copy=True)
        folded = []
        for norm, linear in zip(ensemble.norms, others, strict=True):
            scale, shift = norm.scale_shift()
            bias = torch.baddbmm(linear.bias[:, :, None], linear.weight, shift[:, :, None])
            folded.append((linear.weight * scale[:, None, :], bias))  # [M, out, in], [M, out, 1]
        *hidden, self.last = folded
        # [M, in, out] and [M, 1, out]: pixels are rows until the last layer.
        self.hidden = [
            (w.transpose(1, 2).to(dtype).contiguous(), b.transpose(1, 2).to(dtype))
            for w, b in hidden
        ]

    @torch.no_grad()
    def logits(
        self, features: FeatureMaps, size: Size, at_once: int | None = None
    ) -> Iterator[tuple[slice, slice, torch.Tensor]]:
        """Runs of images, runs of their pixels, and logits of these, float32 `[M, K, N·pixels]`.

        `features` may be on any device. Pixel y·W + x of an image of `size` (H, W) is at y, x.
        `at_once` is the largest number of images in a run; by default one on a CPU, and what keeps
        a GPU busy. It decides the shapes that are computed with, so rounding depends on it, but
        not on the number of images.
        """
        count = size[0] * size[1]
        row_bytes = self.members * max(self.widths) * self.dtype.itemsize
        step = max(1, TILE_BYTES.get(self.device.type, TILE_BYTES["cuda"]) // row_bytes)
        if at_once is None:
            fitting = 1 if self.device.type == "cpu" else step // count
            at_once = min(max(1, fitting), MOST_AT_ONCE)
        table = self._empty(at_once * sum(h * w for h, w in self.groups), len(self.first_bias))
        natives = tuple(self.groups)
        taps, weights = _all_taps(natives, size, at_once, self.device, self.dtype)
        if at_once > 1:
            step = at_once * count
        for images in batches(range(features.batch_size), at_once):
            run = slice(images.start, images.stop)
            self._project(features.select(run), at_once, table)
            for start in range(0, at_once * count, step):
                tile = slice(start, start + step)
                pixels = F.embedding_bag(
                    taps[tile], table, mode="sum", per_sample_weights=weights[tile]
                )
                found = self._finish(pixels)
                if at_once == 1:
                    yield run, tile, found
                else:
                    yield run, slice(None), found[:, :, : len(images) * count]

    def _project(self, features: FeatureMaps, at_once: int, table: torch.Tensor) -> None:
        """Write W_l·f_l of N images into `table`, `[at_once·Σ h·w, M·hidden]`.

        Native sizes follow each other, and in each of them the images; N is at most `at_once`.
        """
        parts = table.split([at_once * height * width for height, width in self.groups])
        for part, maps, weight in zip(parts, self.groups.values(), self.projections, strict=True):
            side_by_side = self._side_by_side([features[m.name] for m in maps], len(part))
            torch.mm(side_by_side, weight, out=part)
        # Once is enough: the upsampling weights of a pixel sum to 1.
        parts[0].add_(self.first_bias)

    def _side_by_side(self, maps: Sequence[torch.Tensor], rows: int) -> torch.Tensor:
        """Maps `[N, C_l, h, w]` as one matrix `[rows, ΣC_l]` of our dtype.

        Rows beyond the N·h·w of the maps have any values. The memory layout is that of the maps,
        channels last, or channels first if there is one image: reordering would cost as much as the
        product.
        """
        flat = [m.permute(0, 2, 3, 1).flatten(0, 2) for m in maps]
        channels = [m.shape[1] for m in flat]
        channels_last = flat[0].stride(1) == 1
        shape = (rows, sum(channels))
        matrix = self._empty(*shape) if channels_last else self._empty(*shape[::-1]).T
        for columns, map_ in zip(matrix.split(channels, 1), flat, strict=True):
            columns[: len(map_)].copy_(map_)
        return matrix

    def _empty(self, *shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=self.dtype, device=self.device)

    def _finish(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs of the first layer `[pixels, M·hidden]` (overwritten) -> logits `[M, K, pixels]`.

        Classes come before pixels because that makes sums and softmax over them 5x faster.
        """
        x = x.relu_().unflatten(1, (self.members, -1)).transpose(0, 1)
        for weight, bias in self.hidden:
            x = torch.baddbmm(bias, x, weight).relu_()
        weight, bias = self.last
        return torch.baddbmm(bias, weight, x.transpose(1, 2).float())


@lru_cache(maxsize=4)
def _all_taps(
    natives: tuple[Size, ...], size: Size, images: int, device: torch.device, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows int32 and weights `[N·H·W, taps]` that make a pixel from the table of all sizes."""
    positions, weights, start = [], [], 0
    for native in natives:
        rows = native[0] * native[1]
        taps, parts = bilinear_taps(native, size)
        firsts = start + rows * torch.arange(images)
        positions.append((taps + firsts[:, None, None]).int().flatten(0, 1))
        weights.append(parts.to(dtype).repeat(images, 1))
        start += images * rows
    return torch.cat(positions, 1).to(device), torch.cat(weights, 1).to(device)
