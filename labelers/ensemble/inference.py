"""Labelling whole images with an ensemble, without ever upsampling a feature map.

Bilinear upsampling is linear and acts per channel, so the first layer of the members commutes with
it: W·concat_l(up(f_l)) = Σ_l up(W_l·f_l). An image takes three steps:

1. Project. One matrix product applies the first layers of all members to the concatenated maps of
   one native size. The results of all sizes are the rows of one table: one row per native
   position, one column per hidden unit of a member.
2. Upsample and add. A pixel of the image is a weighted sum of rows of that table, four of each
   native size: an embedding bag, 25x faster on a CPU than upsampling each size and adding.
3. ReLU and the other layers, with the normalisation, which is affine, folded into them.

Steps 2 and 3 run in tiles of pixels that stay in cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F

from generators.base import FeatureMaps
from labelers.ensemble.bilinear import bilinear_taps
from labelers.ensemble.classifiers import Ensemble

# Size of the widest layer of a tile. On a CPU it stays in cache (from 1 to 10 MiB the speed is the
# same: smaller tiles spend more on calls, larger ones on memory); on a GPU it keeps it busy.
TILE_BYTES = {"cpu": 5 * 2**20, "cuda": 2**28}

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
        self, features: FeatureMaps, size: Size
    ) -> Iterator[tuple[int, slice, torch.Tensor]]:
        """Image numbers, runs of its pixels, and their logits, float32 `[M, K, pixels]`.

        `features` may be on any device. Pixel y·W + x of an image of `size` (H, W) is at y, x.
        """
        table = self._empty(sum(h * w for h, w in self.groups), len(self.first_bias))
        taps, weights = _all_taps(tuple(self.groups), size, self.device, self.dtype)
        row_bytes = self.members * max(self.widths) * self.dtype.itemsize
        step = max(1, TILE_BYTES.get(self.device.type, TILE_BYTES["cuda"]) // row_bytes)
        for image in range(features.batch_size):
            self._project(features, image, table)
            for start in range(0, size[0] * size[1], step):
                tile = slice(start, start + step)
                pixels = F.embedding_bag(
                    taps[tile], table, mode="sum", per_sample_weights=weights[tile]
                )
                yield image, tile, self._finish(pixels)

    def _project(self, features: FeatureMaps, image: int, table: torch.Tensor) -> None:
        """Write W_l·f_l of one image into `table`, `[Σ h·w of the native sizes, M·hidden]`."""
        parts = table.split([height * width for height, width in self.groups])
        for part, maps, weight in zip(parts, self.groups.values(), self.projections, strict=True):
            torch.mm(self._side_by_side([features[m.name][image] for m in maps]), weight, out=part)
        # Once is enough: the upsampling weights of a pixel sum to 1.
        parts[0].add_(self.first_bias)

    def _side_by_side(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Maps `[C_l, h, w]` as one matrix `[h·w, ΣC_l]` of our dtype.

        Its memory layout is that of the maps, channels first or last: reordering would cost as much
        as the product.
        """
        flat = [m.flatten(1).T for m in maps]
        channels = [m.shape[1] for m in flat]
        shape = (len(flat[0]), sum(channels))
        channels_last = flat[0].stride(1) == 1
        matrix = self._empty(*shape) if channels_last else self._empty(*shape[::-1]).T
        for columns, map_ in zip(matrix.split(channels, 1), flat, strict=True):
            columns.copy_(map_)
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
    natives: tuple[Size, ...], size: Size, device: torch.device, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows int32 and weights `[H·W, taps]` that make a pixel from the table of all sizes."""
    positions, weights, start = [], [], 0
    for native in natives:
        taps, parts = bilinear_taps(native, size)
        positions.append(taps.add_(start).int())
        weights.append(parts.to(dtype))
        start += native[0] * native[1]
    return torch.cat(positions, 1).to(device), torch.cat(weights, 1).to(device)
