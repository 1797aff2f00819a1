"""The moving average of a network over its training."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


@torch.no_grad()
def update_average(average: AveragedModel, network: nn.Module, step: int, decay: float) -> None:
    """As `AveragedModel.update_parameters`, which reads its counter from the GPU each step.

    `step` counts from 1. At first the average is over the last tenth of the steps so far, until
    `decay` is reached.
    """
    averaged: list[Tensor] = [*average.module.parameters()]
    current: list[Tensor] = [*network.parameters()]
    n = step - 1  # earlier updates
    if n == 0:
        torch._foreach_copy_(averaged, current)
    else:
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + n) / (10 + n)))
    average.n_averaged += 1
