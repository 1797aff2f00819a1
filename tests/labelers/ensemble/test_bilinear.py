"""Bilinear resizing by taps against torch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from labelers.ensemble.bilinear import bilinear_taps


@pytest.mark.parametrize(
    ("native", "size"),
    [
        ((4, 6), (16, 24)),
        ((5, 7), (13, 22)),
        ((1, 1), (3, 4)),
        ((1, 8), (9, 8)),
        ((9, 11), (4, 1)),
        ((6, 6), (6, 6)),
    ],
)
def test_equals_interpolate(native, size):
    maps = torch.randn(2, *native, generator=torch.Generator().manual_seed(0))
    taps, weights = bilinear_taps(native, size)
    ours = (maps.flatten(1)[:, taps] * weights).sum(2)
    theirs = F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0].flatten(1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert taps.shape == weights.shape == (size[0] * size[1], 1 if native == size else 4)
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))
