"""Random flips and quarter turns of images."""

from __future__ import annotations

import torch
from torch import Tensor


def augment(x: Tensor, flips: bool, quarter_turns: bool, rng: torch.Generator) -> Tensor:
    """Each image of `[N, C, H, W]` flipped and turned at random."""
    if not (flips or quarter_turns):
        return x
    images = []
    for image in x:
        left_right, top_bottom, turns = torch.randint(0, 4, (3,), generator=rng).tolist()
        if flips and left_right % 2:
            image = image.flip(-1)
        if flips and top_bottom % 2:
            image = image.flip(-2)
        images.append(image.rot90(turns, (-2, -1)) if quarter_turns else image)
    return torch.stack(images)
