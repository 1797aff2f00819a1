"""Every contender sees the same splits, and rare classes stay in training."""

from __future__ import annotations

import numpy as np
import pytest

from factory.verdict.folds import classes_present, draw_splits, random_splits


def make_masks(classes_of: list[set[int]]) -> np.ndarray:
    """One 4x4 mask per set of class ids; 255 fills the rest."""
    masks = np.full((len(classes_of), 16), 255, np.uint8)
    for mask, ids in zip(masks, classes_of, strict=True):
        mask[: len(ids)] = sorted(ids)
    return masks.reshape(-1, 4, 4)


def test_each_partition_scores_every_image_once() -> None:
    splits = draw_splits(make_masks([{0, 1}] * 10), folds=4, seeds=2)
    assert [split.number for split in splits] == list(range(8))
    for seed in (0, 1):
        tests = [split.test for split in splits if split.seed == seed]
        assert sorted(row for test in tests for row in test) == list(range(10))
        assert sorted(len(test) for test in tests) == [2, 2, 3, 3]
    for split in splits:
        assert sorted(split.train + split.test) == list(range(10))


def test_partitions_differ_and_repeat() -> None:
    masks = make_masks([{0, 1}] * 10)
    splits = draw_splits(masks, 2, 2)
    assert splits[0].test != splits[2].test
    assert splits == draw_splits(masks, 2, 2)


@pytest.mark.parametrize("rare", [(0, 1), (4, 5), (0, 7)])
def test_a_class_in_two_images_is_always_trained_on(rare: tuple[int, int]) -> None:
    masks = make_masks([{0, 2} if row in rare else {0, 1} for row in range(8)])
    for split in draw_splits(masks, 4, 5):
        assert set(rare) & set(split.train)


def test_few_images_are_left_out_one_at_a_time() -> None:
    splits = draw_splits(make_masks([{0}] * 3), folds=4, seeds=1)
    assert [len(split.test) for split in splits] == [1, 1, 1]


def test_two_images_are_too_few() -> None:
    with pytest.raises(ValueError, match="found 2 annotated images, expected at least 3"):
        draw_splits(make_masks([{0}] * 2), 4, 1)


def test_subsets_are_nested() -> None:
    split = draw_splits(make_masks([{0, 1}] * 12), 3, 1)[1]
    small, large = split.subset(2), split.subset(5)
    assert set(small) < set(large) < set(split.train)
    assert split.subset(8) == split.train


def test_ignored_pixels_belong_to_no_class() -> None:
    assert classes_present(make_masks([{0, 2}, set()])).tolist() == [
        [True, False, True],
        [False] * 3,
    ]


def test_random_splits_have_equal_sizes_and_their_own_seeds() -> None:
    splits = random_splits(9, 3, 3)
    assert splits[:2] == random_splits(9, 2, 3)
    assert [split.seed for split in splits] == [0, 1, 2]
    assert len({split.test for split in splits}) == 3
    for split in splits:
        assert len(split.test) == 3
        assert sorted(split.train + split.test) == list(range(9))
    with pytest.raises(ValueError, match="found 4 annotated images, expected at least 5"):
        random_splits(4, 1, 3)
