"""Flips and quarter turns of images: random ones, and all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Change = Callable[[Tensor], Tensor]


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


def symmetries(is_mirrored: bool, turns: Sequence[int]) -> list[tuple[Change, Change]]:
    """Changes of `[..., H, W]` and their inverses: quarter turns, each also after a mirroring."""
    return [_change(turn, flip) for turn in turns for flip in (False, True)[: 1 + is_mirrored]]


def _change(turns: int, flip: bool) -> tuple[Change, Change]:
    def there(x: Tensor) -> Tensor:
        return torch.rot90(x.flip(-1) if flip else x, turns, (-2, -1))

    def back(x: Tensor) -> Tensor:
        x = torch.rot90(x, -turns, (-2, -1))
        return x.flip(-1) if flip else x

    return there, back


def mean_logits(logits: Sequence[Tensor]) -> Tensor:
    """Logits `[N, K, H, W]` of the mean of the class probabilities of several predictions."""
    if len(logits) == 1:
        return logits[0]
    return torch.stack([y.log_softmax(1) for y in logits]).logsumexp(0) - math.log(len(logits))
