"""Uncertainty of pixels, and the score of an image."""

from __future__ import annotations

import math

import pytest
import torch

from labelers.ensemble.uncertainty import image_score, pixel_uncertainty


def test_golden(golden):
    ours = pixel_uncertainty(golden["logits"].transpose(1, 2), "js").view(1, 32, 32)
    theirs = golden["js_divergence"]
    # The reference prints NaN (0·log 0) where a probability underflows; its image score does not.
    known = ~theirs.isnan()
    torch.testing.assert_close(ours[0][known], theirs[known], rtol=0, atol=1e-5)
    assert not ours.isnan().any()
    torch.testing.assert_close(image_score(ours), golden["uncertainty"], rtol=0, atol=1e-5)


def members(*logits: list[float]) -> torch.Tensor:
    return torch.tensor(logits)[:, :, None]


def test_agreement_has_neither_uncertainty():
    sure = members([200.0, -200.0], [200.0, -200.0])
    assert pixel_uncertainty(sure, "js").item() == 0.0
    assert pixel_uncertainty(sure, "entropy").item() == 0.0


def test_full_disagreement_is_log_2():
    divided = members([200.0, -200.0], [-200.0, 200.0])
    assert pixel_uncertainty(divided, "js").item() == pytest.approx(math.log(2), abs=1e-6)
    assert pixel_uncertainty(divided, "entropy").item() == pytest.approx(math.log(2), abs=1e-6)


def test_shared_doubt_is_entropy_without_divergence():
    doubtful = members([1.0, 1.0, 1.0], [2.0, 2.0, 2.0])
    assert pixel_uncertainty(doubtful, "js").item() == pytest.approx(0, abs=1e-6)
    assert pixel_uncertainty(doubtful, "entropy").item() == pytest.approx(math.log(3), abs=1e-6)


def test_rounding_never_goes_below_zero():
    logits = torch.randn(7, 1024, generator=torch.Generator().manual_seed(0))
    assert pixel_uncertainty(logits.expand(10, -1, -1), "js").min() >= 0


def test_image_score_is_the_mean_of_the_top_tenth():
    maps = torch.arange(2 * 35, dtype=torch.float32).view(2, 5, 7)
    assert image_score(maps).tolist() == [33.0, 68.0]  # int(35 / 10) = 3 pixels


def test_image_of_fewer_than_ten_pixels():
    assert image_score(torch.tensor([[[1.0, 3.0]]])).tolist() == [3.0]
