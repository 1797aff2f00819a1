"""Every contender sees the same splits, and rare classes stay in training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from factory.verdict.folds import classes_present, draw_splits, groups_of, joined, random_splits
from factory.verdict.settings import compare_config


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


def test_images_of_one_patient_stay_together() -> None:
    names = ["p1_a", "p1_b", "p1_c", "p2_a", "p3_a", "p3_b", "p4_a", "p4_b", "p5_a", "p5_b"]
    groups = groups_of(names, r"^(p\d)_")
    splits = draw_splits(make_masks([{0, 1}] * 10), folds=4, seeds=3, groups=groups)
    for split in splits:
        assert not {groups[row] for row in split.train} & {groups[row] for row in split.test}
    for seed in range(3):
        tests = [split.test for split in splits if split.seed == seed]
        assert sorted(row for test in tests for row in test) == list(range(10))
        assert len(tests) == 4


def test_a_class_of_two_patients_is_always_trained_on() -> None:
    masks = make_masks([{0, 2}] * 4 + [{0, 1}] * 6)
    for split in draw_splits(masks, 4, 5, groups=["a", "a", "b", "b", *"cdefgh"]):
        assert {0, 1, 2, 3} & set(split.train)


def test_as_many_folds_as_patients() -> None:
    splits = draw_splits(make_masks([{0}] * 5), 4, 1, groups=["a", "a", "a", "b", "b"])
    assert sorted(split.test for split in splits) == [(0, 1, 2), (3, 4)]
    with pytest.raises(ValueError, match="all 5 annotated images belong to a: expected two groups"):
        draw_splits(make_masks([{0}] * 5), 4, 1, groups="aaaaa")


def test_one_image_is_too_little_to_train_on() -> None:
    with pytest.raises(ValueError, match="2 folds of 3 images in 3 groups leave 1 to train on"):
        draw_splits(make_masks([{0}] * 3), 2, 1)
    with pytest.raises(ValueError, match="2 folds of 6 images in 2 groups leave 1"):
        draw_splits(make_masks([{0}] * 6), 4, 1, groups="abbbbb")


def test_equal_images_are_one_group() -> None:
    images = torch.arange(5, dtype=torch.uint8).reshape(5, 1, 1, 1).expand(5, 3, 2, 2).clone()
    assert joined(list("abcde"), images) == list("abcde")
    images[4] = images[1]
    assert joined(list("abcde"), images) == list("abcdb")
    assert joined(list("aabbb"), images) == ["a"] * 5  # those of both patients


def test_groups_are_parts_of_names() -> None:
    names = ["p1_a", "p1_b", "p2_a"]
    assert groups_of(names, None) == names
    assert groups_of(names, r"p\d") == ["p1", "p1", "p2"]
    assert groups_of(names, r"_(\w)$") == ["a", "b", "a"]
    with pytest.raises(ValueError, match=r"group_by=\^q finds nothing in p1_a"):
        groups_of(names, "^q")
    with pytest.raises(ValueError, match=r"group_by.*not a regular expression"):
        compare_config(["group_by=(p"])


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
