"""How unsure an ensemble is: Jensen-Shannon divergence of its members' class probabilities."""

from __future__ import annotations

import torch


def js_divergence(mean_probability: torch.Tensor, mean_entropy: torch.Tensor) -> torch.Tensor:
    """JS = H(mean p) - mean H(p) a pixel, in nats, 0 to ln K.

    `mean_probability` `[N, K, H, W]` and `mean_entropy` `[N, H, W]` are means over the members;
    the result is `[N, H, W]`.
    """
    entropy_of_mean = torch.special.entr(mean_probability).sum(1)
    return (entropy_of_mean - mean_entropy).clamp_(min=0)  # rounding can leave -1e-7


def image_score(pixel_uncertainty: torch.Tensor) -> torch.Tensor:
    """Uncertainty of each image `[N]`: mean of the int(H·W/10) most uncertain pixels `[N, H, W]`.

    An image of fewer than ten pixels counts its single most uncertain one.
    """
    flat = pixel_uncertainty.flatten(1)
    return flat.topk(max(1, flat.shape[1] // 10), dim=1).values.mean(1)
