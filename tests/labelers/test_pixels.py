"""Gathering pixels equals upsampling whole maps and indexing them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from generators.base import FeatureMaps
from labelers.ensemble import group_by_size
from labelers.pixels import PixelStore


@pytest.mark.parametrize("size", [(16, 24), (13, 31), (5, 5), (16, 7)])
def test_gather_equals_upsampling(random_features: FeatureMaps, size):
    order = [m.name for maps in group_by_size(random_features.spec).values() for m in maps]
    plain = torch.cat([F.interpolate(random_features[n], size, mode="bilinear") for n in order], 1)
    every = torch.arange(2 * size[0] * size[1])
    ours = PixelStore(random_features, size).gather(every.view(2, -1))
    torch.testing.assert_close(ours, plain.flatten(2).transpose(1, 2), rtol=1e-5, atol=1e-5)
