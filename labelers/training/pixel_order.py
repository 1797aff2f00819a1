"""The pixels to learn from, and the order in which each member sees them."""

from __future__ import annotations

import torch

from factory_core.dataset import IGNORE
from generators.base import sample_seed


def training_pixels(masks: torch.Tensor, classes: int, min_class_pixels: int) -> torch.Tensor:
    """Numbers n·H·W + p of the pixels to learn from, int64, ascending.

    Leaves out 255, and in each image the classes with fewer than `min_class_pixels` pixels. Raises
    ValueError for ids beyond `classes`, or if fewer than two classes are left.
    """
    flat = masks.flatten(1).cpu()
    present = flat[flat != IGNORE]
    if len(present) and int(present.max()) >= classes:
        raise ValueError(f"masks have class id {int(present.max())}, expected {classes} classes")
    found = learnable_classes(masks, min_class_pixels)
    if len(found) < 2:
        raise ValueError(
            f"the annotations hold {len(found)} class to learn (ids {found}; {IGNORE} is ignored, "
            f"as are classes under {min_class_pixels} pixels in an image), expected two or more"
        )
    return _kept(flat, min_class_pixels).flatten().nonzero().flatten()


def learnable_classes(masks: torch.Tensor, min_class_pixels: int) -> list[int]:
    """Class ids of the pixels to learn from (see `training_pixels`) in masks uint8 `[N, H, W]`."""
    flat = masks.flatten(1).cpu()
    return flat[_kept(flat, min_class_pixels)].unique().tolist()


def _kept(flat: torch.Tensor, min_class_pixels: int) -> torch.Tensor:
    """Which pixels of masks uint8 `[N, H·W]` to learn from, bool."""
    kept = torch.zeros_like(flat, dtype=torch.bool)
    for row, keep in zip(flat, kept, strict=True):
        counts = torch.bincount(row.long(), minlength=IGNORE + 1)
        counts[IGNORE] = -1
        keep.copy_((counts >= min_class_pixels)[row.long()])
    return kept


class PixelOrders:
    """Batches of pixel numbers: every member passes over all `pixels` in its own order.

    An order is a pure function of seed, member and pass, so training can resume anywhere. The
    incomplete last batch of a pass is dropped, as in the reference.
    """

    def __init__(self, pixels: torch.Tensor, members: int, batch_pixels: int, seed: int):
        self.pixels = pixels
        self.members = members
        self.batch = min(batch_pixels, len(pixels))
        self.per_epoch = len(pixels) // self.batch
        self.seed = seed
        self._epoch = -1
        self._orders = torch.empty(0)

    def __call__(self, step: int) -> torch.Tensor:
        """Pixel numbers `[M, batch]` of a step, counted from 0."""
        epoch, i = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._orders = torch.stack([self._order(epoch, m) for m in range(self.members)])
        return self.pixels[self._orders[:, i * self.batch : (i + 1) * self.batch]]

    def _order(self, epoch: int, member: int) -> torch.Tensor:
        """A permutation of the positions in `pixels`, int32: 50 images of 256² have 3 million."""
        rng = torch.Generator().manual_seed(sample_seed(self.seed, member, stream=epoch))
        return torch.randperm(len(self.pixels), generator=rng, dtype=torch.int32)
