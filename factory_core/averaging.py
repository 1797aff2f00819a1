"""The moving average of a network's weights in training."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Move `average` and its buffers towards `network` after optimiser step `step` (from 1).

    The decay grows from 2/11 to `decay`, so that a short run forgets its random initialisation.
    """
    decay = min(decay, (1 + step) / (10 + step))
    averaged = [*average.parameters(), *average.buffers()]
    current = [*network.parameters(), *network.buffers()]
    means: list[Tensor] = []
    values: list[Tensor] = []
    for mean, value in zip(averaged, current, strict=True):
        if mean.is_floating_point():
            means.append(mean)
            values.append(value)
        else:  # such as the number of batches that a batch normalisation has seen
            mean.copy_(value)
    torch._foreach_lerp_(means, values, 1 - decay)
