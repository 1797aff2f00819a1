"""Labelling whole images with the generator's own U-Net, fine-tuned: several members.

Unlike the ensemble, they read the image and need no features of the generator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from factory_core.device import send
from factory_core.segmentation_unet import SegmentationUNet, UNetDescription
from factory_core.symmetries import Change, mean_logits
from generators.base import batches

BATCH = 4  # images at a time

Size = tuple[int, int]


def to_unit_range(images: Tensor) -> Tensor:
    """uint8 0..255 -> float32 [-1, 1]."""
    return images.float() / 127.5 - 1


class Networks(nn.Module):
    """M segmentation networks of one shape, in eval mode."""

    def __init__(self, members: Sequence[SegmentationUNet]):
        super().__init__()
        # ModuleList hides the type of its items.
        self.nets = cast(Sequence[SegmentationUNet], nn.ModuleList(members))
        self.to(memory_format=torch.channels_last).eval().requires_grad_(False)

    @classmethod
    def untrained(cls, config: Mapping[str, Any], classes: int, members: int) -> Networks:
        """Networks with the `config` of `SegmentationUNet`, to load weights into."""
        with torch.random.fork_rng(devices=[]):
            description = UNetDescription(config)
            return cls([SegmentationUNet(description, classes) for _ in range(members)])

    @property
    def device(self) -> torch.device:
        """Where they compute."""
        return next(self.parameters()).device

    @torch.inference_mode()
    def logits(
        self, images: Tensor, size: Size, dtype: torch.dtype, views: Sequence[tuple[Change, Change]]
    ) -> Iterator[Tensor]:
        """The members' logits, float32 `[M, K, H·W]`, of each of the images uint8 `[N, 3, h, w]`.

        A member's probabilities are the mean over `views`, changes of the image with their
        inverses. Networks compute in `dtype`. Their outputs are resized to `size` (H, W) if it
        differs from that of the images. Batches are padded: kernels are chosen by shape, and the
        labels of an image must not depend on how many there are.
        """
        device = self.device
        for rows in batches(range(len(images)), BATCH):
            batch = images[rows.start : rows.stop]
            padded = torch.cat([batch, batch[-1:].expand(BATCH - len(batch), -1, -1, -1)])
            x = to_unit_range(send(padded, device)).to(memory_format=torch.channels_last)
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                seen = [[back(net(there(x)).float()) for there, back in views] for net in self.nets]
            found = [mean_logits(outputs) for outputs in seen]
            if size != tuple(images.shape[-2:]):
                found = [F.interpolate(y, size, mode="bilinear") for y in found]
            members = torch.stack([y.flatten(2) for y in found], 1)  # [N, M, K, H·W]
            yield from members[: len(batch)]
