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


def symmetries(
    left_right: bool = False, top_bottom: bool = False, quarter_turns: bool = False
) -> list[tuple[Change, Change]]:
    """What flips and turns make of `[..., H, W]`, and the inverses; the first changes nothing.

    8 changes with all three, 4 with both flips, 2 with left-right flips; top-bottom flips alone do
    not count. Quarter turns need squares.
    """
    turns: Sequence[int] = (0,)
    if quarter_turns:
        turns = (0, 1, 2, 3)
    elif left_right and top_bottom:
        turns = (0, 2)
    return [_change(turn, flip) for turn in turns for flip in (False, True)[: 1 + left_right]]


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
