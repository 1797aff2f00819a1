"""Predictions without looking, and the selection of labelled images."""

from __future__ import annotations

from pathlib import Path

import torch

from factory.verdict.labels import Labels, levels_of
from factory.verdict.models import most_frequent_class, most_frequent_per_pixel
from factory.verdict.pools import Pool

MASKS = torch.tensor([[[0, 1]], [[0, 1]], [[2, 255]], [[0, 0]]], dtype=torch.uint8)


def pool(count: int) -> Pool:
    return Pool(torch.zeros(count, 3, 1, 2, dtype=torch.uint8), Path(), None)


def test_the_most_frequent_class() -> None:
    assert most_frequent_class(MASKS, 3).predict(pool(2), [0, 1]).tolist() == [[[0, 0]]] * 2


def test_the_most_frequent_class_per_pixel() -> None:
    assert most_frequent_per_pixel(MASKS, 3).predict(pool(2), [1]).tolist() == [[[0, 1]]]


def test_selection_as_in_a_dataset() -> None:
    uncertainty = torch.tensor([0.1, 0.9, 0.3, 0.2])
    labels = Labels(MASKS, torch.zeros(4, 3, 1, 2, dtype=torch.uint8), uncertainty)
    assert labels.kept(0.25, "uncertain").tolist() == [True, False, True, True]
    assert labels.kept(0.25, "none").all()


def test_levels_of_a_sum_of_levels() -> None:
    one = levels_of(torch.tensor([0.2, 0.8]).view(1, 2, 1, 1))
    other = levels_of(torch.tensor([0.6, 0.4]).view(1, 2, 1, 1))
    assert levels_of(one.short() + other).flatten().tolist() == [102, 153]
