"""Jensen-Shannon divergence and the score of an image."""

from __future__ import annotations

import math

import pytest
import torch

from labelers.uncertainty import image_score, js_divergence
from labelers.vote import Tally


def divergence(*members: torch.Tensor) -> torch.Tensor:
    tally = Tally("soft")
    for logits in members:
        tally.add(logits)
    return js_divergence(tally.mean_probability, tally.mean_entropy)


def test_golden(golden, golden_features, golden_ensemble):
    ours = divergence(*golden_ensemble.logits(golden_features, (32, 32)))
    theirs = golden["js_divergence"]
    # The reference prints NaN (0·log 0) where a probability underflows; its image score does not.
    known = ~theirs.isnan()
    torch.testing.assert_close(ours[0][known], theirs[known], rtol=0, atol=1e-5)
    assert not ours.isnan().any()
    torch.testing.assert_close(image_score(ours), golden["uncertainty"], rtol=0, atol=1e-5)


def test_agreement_is_zero_and_full_disagreement_is_log_2():
    a = torch.tensor([200.0, -200.0]).view(1, 2, 1, 1)
    assert divergence(a, a).item() == 0.0
    assert divergence(a, -a).item() == pytest.approx(math.log(2), abs=1e-6)


def test_rounding_never_goes_below_zero():
    logits = torch.randn(2, 7, 32, 32, generator=torch.Generator().manual_seed(0))
    assert divergence(*[logits] * 10).min() >= 0


def test_image_score_is_the_mean_of_the_top_tenth():
    maps = torch.arange(2 * 35, dtype=torch.float32).view(2, 5, 7)
    assert image_score(maps).tolist() == [33.0, 68.0]  # int(35 / 10) = 3 pixels


def test_image_of_fewer_than_ten_pixels():
    assert image_score(torch.tensor([[[1.0, 3.0]]])).tolist() == [3.0]
