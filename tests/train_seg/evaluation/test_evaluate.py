"""Scoring a set and its splits, and the spread over several results."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
import torch

from train_seg.evaluation.evaluate import Spread, evaluate


@pytest.fixture
def without_blue(by_colour):
    """Misses every second blue square."""

    def predict(images: torch.Tensor) -> torch.Tensor:
        masks = by_colour(images)
        wrong = images[:, 0, 0, 0] % 2 == 1
        masks[wrong] = masks[wrong].clamp(max=1)
        return masks

    return predict


def test_a_perfect_result(make_labeled, by_colour):
    data = make_labeled(5)
    result = evaluate(by_colour, data.images, data.masks, data.classes, batch_size=2)
    assert result.scores.images == 5
    assert result.headline == dict.fromkeys(result.headline, 1.0)
    counts = np.array(result.confusion)
    assert (counts == np.diag(counts.diagonal())).all()
    assert counts.sum() == data.masks.numel()
    assert result.splits == []


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_splits_are_disjoint_and_cover_the_set(make_labeled, without_blue, batch_size):
    data = make_labeled(9)
    arguments = (without_blue, data.images, data.masks, data.classes, batch_size)
    result = evaluate(*arguments, splits=4, seed=1)
    assert sorted(part.scores.images for part in result.splits) == [2, 2, 2, 3]
    parts = np.sum([part.confusion for part in result.splits], axis=0)
    assert parts.tolist() == result.confusion
    assert result.scores == evaluate(*arguments).scores
    assert result == evaluate(*arguments, splits=4, seed=1)
    others = [evaluate(*arguments, splits=4, seed=s).splits for s in (2, 3)]
    assert others[0] != result.splits or others[1] != result.splits


def test_a_split_is_scored_as_a_set(make_labeled, without_blue):
    data = make_labeled(6)
    result = evaluate(without_blue, data.images, data.masks, data.classes, splits=6)
    alone = [
        evaluate(without_blue, data.images[i : i + 1], data.masks[i : i + 1], data.classes)
        for i in range(6)
    ]
    assert sorted(map(repr, result.splits)) == sorted(map(repr, alone))


def test_more_splits_than_images_are_refused(make_labeled, by_colour):
    data = make_labeled(2)
    with pytest.raises(ValueError, match=r"found 2 images, expected at least 3, one per split"):
        evaluate(by_colour, data.images, data.masks, data.classes, splits=3)


def test_spread():
    values = [0.25, None, 0.5, 0.625]
    spread = Spread.of(values)
    known = [0.25, 0.5, 0.625]
    assert (spread.mean, spread.std) == (statistics.fmean(known), statistics.stdev(known))
    assert spread.values == known
    assert Spread.of([0.5]) == Spread(0.5, None, [0.5])
    assert Spread.of([None]) == Spread(None, None, [])
