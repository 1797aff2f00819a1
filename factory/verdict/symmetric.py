"""Mean predictions over the flips and turns that leave a domain unchanged."""

from __future__ import annotations

import torch
from torch import Tensor

from factory.verdict.labels import levels_of
from factory_core.device import pick_dtype
from factory_core.symmetries import Change, symmetries
from train_seg.config import INFERENCE_BATCH_SIZE
from train_seg.network.segmenter import Segmenter


def _symmetries(is_square: bool, upright: bool) -> list[tuple[Change, Change]]:
    """8 for squares, 4 for others, 2 if `upright`."""
    return symmetries(True, (0,) if upright else (0, 1, 2, 3) if is_square else (0, 2))


@torch.inference_mode()
def mean_levels(segmenter: Segmenter, images: Tensor, upright: bool) -> Tensor:
    """Levels uint8 `[N, K, H, W]` of the class probabilities of images uint8 `[N, 3, H, W]`.

    In bfloat16 where the device multiplies it: probabilities are rounded to 1/255 anyway.
    """
    network = segmenter.network.eval()
    device = next(network.parameters()).device
    dtype = pick_dtype("auto", device)
    changes = _symmetries(images.shape[-1] == images.shape[-2], upright)
    parts = []
    for batch in images.split(INFERENCE_BATCH_SIZE):
        there = batch.to(device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = [back(network(change(there))) for change, back in changes]
        seen = [y.float().softmax(1) for y in logits]
        parts.append(levels_of(torch.stack(seen).mean(0).cpu()))
    return torch.cat(parts)
