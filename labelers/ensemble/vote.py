"""The class that an ensemble votes for."""

from __future__ import annotations

import torch

from labelers.config import Vote


def elect(logits: torch.Tensor, vote: Vote) -> torch.Tensor:
    """The winning class of each pixel, uint8 `[P]`, from the members' logits `[M, K, P]`.

    `majority`: the most frequent first choice; `soft`: argmax of the mean probability; `log_soft`:
    argmax of the mean log-probability. Ties go to the smallest id.
    """
    if vote == "majority":
        choices = first_maximum(logits)
        votes = logits.new_zeros(logits.shape[1:])
        votes.scatter_add_(0, choices, torch.ones_like(choices, dtype=votes.dtype))
    elif vote == "soft":
        votes = torch.softmax(logits, 1).sum(0)
    else:
        votes = torch.log_softmax(logits, 1).sum(0)
    return first_maximum(votes).to(torch.uint8)


def mean_probability(logits: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Class probabilities `[K, P]` from the members' logits `[M, K, P]`.

    The mean is weighted with `weights` `[M]`, whose sum is 1, if given.
    """
    p = torch.softmax(logits, 1)
    return p.mean(0) if weights is None else torch.tensordot(weights, p, 1)


def first_maximum(x: torch.Tensor) -> torch.Tensor:
    """The smallest id of the largest value over the classes, int64: `[..., K, P]` -> `[..., P]`.

    `argmax` and `mode` may leave ties to the device; on a CPU, `argmax` over an axis that is not
    the last is also 30x slower than the three passes here.
    """
    classes = x.shape[-2]
    # Ones and zeros in x's own format: comparing into bool takes 8x as long.
    is_largest = torch.eq(x, x.amax(-2, keepdim=True), out=torch.empty_like(x))
    from_last = torch.arange(classes, 0, -1, dtype=x.dtype, device=x.device)[:, None]
    winner = classes - is_largest.mul_(from_last).amax(-2).long()
    # Where x is NaN, nothing is the largest: any class will do, as the uncertainty is NaN too.
    return winner.clamp_(max=classes - 1)
