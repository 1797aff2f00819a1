"""The moving average of a network's weights in training."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Move `average` and its buffers towards `network` after optimiser step `step` (from 1).

    The decay grows from 2/11 to `decay`, so that a short run forgets its random initialisation.
    """
    decay = min(decay, (1 + step) / (10 + step))
    for mean, value in zip(
        average.state_dict().values(), network.state_dict().values(), strict=True
    ):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)
