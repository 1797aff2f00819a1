"""Scores of regions without names, by hand on a few pixels and against IEM's rules."""

from __future__ import annotations

import pytest
import torch

from train_seg.evaluation.foreground import (
    ForegroundScores,
    choose_grouping,
    count_pairs,
    groupings,
    named_confusion,
    of_grouping,
    oracle,
    two_classes,
)
from train_seg.evaluation.metrics import scores


def test_pixels_are_counted_per_image() -> None:
    regions = torch.tensor([[[0, 1], [2, 2]], [[0, 0], [0, 0]]])
    masks = torch.tensor([[[1, 1], [0, 255]], [[0, 1], [1, 1]]])
    counts = count_pairs(regions, masks, 3, 2)
    assert counts.tolist() == [[[0, 1], [0, 1], [1, 0]], [[1, 3], [0, 0], [0, 0]]]
    assert two_classes(counts, [0])[0].tolist() == [[1, 0], [1, 0], [0, 1]]
    with pytest.raises(ValueError, match="regions have shape"):
        count_pairs(regions[:1], masks, 3, 2)
    with pytest.raises(ValueError, match="beyond 2 regions and 3 classes"):
        count_pairs(regions, masks, 2, 3)


def test_there_are_two_to_the_k_less_two_groupings() -> None:
    assert len(groupings(2)) == 2
    found = {tuple(row.nonzero().flatten().tolist()) for row in groupings(3)}
    assert found == {(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)}
    with pytest.raises(ValueError, match="one region has no foreground"):
        groupings(1)


def test_one_grouping_by_hand() -> None:
    # 10 pixels: 4 of the foreground, of which region 1 has 3; it also has 2 of the background.
    counts = torch.tensor([[[4, 1], [2, 3]]])
    found = of_grouping(counts, [1], [1])
    assert found.accuracy == pytest.approx(7 / 10)
    assert found.iou == pytest.approx(3 / 6)
    assert found.dice == pytest.approx(2 * 3 / (5 + 4))  # |F̂| + |F|
    assert of_grouping(counts, [1], [0]).iou == pytest.approx(1 / 8)


def iem(masks: torch.Tensor, truth: torch.Tensor) -> ForegroundScores:
    """The protocol of IEM in plain code, of soft masks `[N, H, W]` and bool `[N, H, W]`."""
    totals = torch.zeros(3)
    for soft, true in zip(masks, truth, strict=True):
        best = torch.zeros(3)
        for found in (soft > 0.5, ~(soft > 0.5)):
            both, either = (found & true).sum(), (found | true).sum()
            dice = 2 * both / (found.sum() + true.sum())
            best = best.maximum(torch.stack([(found == true).float().mean(), both / either, dice]))
        totals += best
    return ForegroundScores.of(totals / len(masks))


def test_two_regions_follow_the_protocol_of_iem() -> None:
    rng = torch.Generator().manual_seed(0)
    truth = torch.rand(6, 8, 8, generator=rng) > 0.6
    soft = (truth.float() * 0.4 + torch.rand(6, 8, 8, generator=rng) * 0.7).clamp(0, 1)
    soft[::2] = 1 - soft[::2]  # in half of the images, the other region is the foreground
    expected = iem(soft, truth)
    counts = count_pairs((soft > 0.5).long(), truth.long(), 2, 2)
    found = oracle(counts, [1])
    for name in ("accuracy", "iou", "dice"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=1e-6)
    assert of_grouping(counts, [1], choose_grouping(counts, [1])).iou < found.iou


def test_each_metric_takes_its_own_best_grouping() -> None:
    # Nothing but background has the better accuracy, the other grouping the better IoU.
    counts = torch.tensor([[[90, 4], [4, 2]]])
    every = [of_grouping(counts, [1], regions) for regions in ([0], [1])]
    found = oracle(counts, [1])
    assert found.accuracy == max(one.accuracy for one in every)
    assert found.iou == max(one.iou for one in every)


def test_an_image_without_foreground() -> None:
    counts = torch.tensor([[[9, 0], [0, 0], [0, 0]]])
    assert of_grouping(counts, [1], [1]) == ForegroundScores(1, 1, 1)
    assert of_grouping(counts, [1], [0]) == ForegroundScores(0, 0, 0)


def test_the_grouping_is_chosen_by_the_mean_over_images() -> None:
    counts = torch.tensor([[[5, 0], [0, 3], [0, 2]], [[5, 0], [5, 0], [0, 5]]])
    assert choose_grouping(counts[:1], [1]) == (1, 2)
    assert choose_grouping(counts, [1]) == (1, 2)  # (1 + 0.5) / 2 against (0.4 + 1) / 2
    assert of_grouping(counts, [1], (2, 1)).iou == pytest.approx(0.75)


def test_named_regions_become_a_confusion() -> None:
    counts = torch.tensor([[[5, 1, 0], [0, 3, 0], [0, 2, 0]], [[5, 0, 0], [0, 0, 0], [1, 0, 4]]])
    confusion = named_confusion(counts, (0, 1, 1))
    assert confusion.counts.tolist() == [[10, 1, 0], [1, 5, 0], [0, 4, 0], [0, 0, 0]]
    assert scores(confusion, ["a", "b", "c"]).iou[0] == pytest.approx(10 / 12)
