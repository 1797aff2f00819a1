"""How uncertain an ensemble is about each pixel, and about an image."""

from __future__ import annotations

import torch

from labelers.config import Uncertainty


def pixel_uncertainty(
    logits: torch.Tensor, kind: Uncertainty, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Uncertainty of each pixel `[P]` in nats, 0 to ln K, from the members' logits `[M, K, P]`.

    `js`: the Jensen-Shannon divergence of the members, H(mean p) - mean H(p): how much they
    disagree. `entropy`: H(mean p), also high where all members agree that they do not know.
    Means are weighted with `weights` `[M]`, whose sum is 1, if given.
    """
    log_p = torch.log_softmax(logits, 1)
    p = log_p.exp()
    mean_p = p.mean(0) if weights is None else torch.tensordot(weights, p, 1)
    entropy_of_mean = torch.special.entr(mean_p).sum(0)
    if kind == "entropy":
        return entropy_of_mean
    # p·log p with a finite log p is 0, not NaN, where p underflows.
    if weights is None:
        mean_entropy = -p.mul_(log_p).sum((0, 1)) / len(logits)
    else:
        mean_entropy = -torch.tensordot(weights, p.mul_(log_p).sum(1), 1)
    return (entropy_of_mean - mean_entropy).clamp_(min=0)  # rounding can leave -1e-7


def image_score(pixel_uncertainty: torch.Tensor) -> torch.Tensor:
    """Uncertainty of each image `[N]`: mean of the int(H·W/10) most uncertain pixels `[N, H, W]`.

    An image of fewer than ten pixels counts its single most uncertain one.
    """
    flat = pixel_uncertainty.flatten(1)
    return flat.topk(max(1, flat.shape[1] // 10), dim=1).values.mean(1)
