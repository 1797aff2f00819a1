"""The moving average of weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from factory_core.averaging import update_average


def test_the_decay_grows_with_the_steps() -> None:
    average, network = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    nn.init.constant_(average.weight, 0)
    network.num_batches_tracked += 5
    update_average(average, network, decay=0.9, step=1)
    assert average.weight.item() == pytest.approx(9 / 11)
    assert int(average.num_batches_tracked) == 5  # whole numbers are copied
    nn.init.constant_(average.weight, 0)
    update_average(average, network, decay=0.9, step=1000)
    torch.testing.assert_close(average.weight.detach(), torch.tensor([0.1]))
