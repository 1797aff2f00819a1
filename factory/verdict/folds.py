"""How annotated images are divided: every contender trains and is scored on the same splits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from factory_core.dataset import IGNORE

MIN_IMAGES = 3  # two to train on, one to score


@dataclass(frozen=True)
class Split:
    """Images to train on and to score, by row number, both ascending; `seed` is for training.

    Splits with equal `seed` are the folds of one partition.
    """

    number: int
    seed: int
    train: tuple[int, ...]
    test: tuple[int, ...]

    @property
    def test_share(self) -> float:
        """Test images per training image, for `statistics.interval`."""
        return len(self.test) / len(self.train)

    def subset(self, images: int) -> tuple[int, ...]:
        """The first `images` training images in an order that depends on the seed alone.

        Smaller subsets are parts of larger ones.
        """
        order = np.random.default_rng([self.seed, self.number]).permutation(len(self.train))
        return tuple(sorted(self.train[i] for i in order[:images]))


def random_splits(images: int, splits: int, test_images: int) -> list[Split]:
    """`splits` random divisions of N images, as in the DDPM paper: seeds 0, 1, ..., equal sizes.

    Split i is the same, however many there are. Raises ValueError if fewer than two images are left
    to train on.
    """
    if images - test_images < 2:
        raise ValueError(
            f"found {images} annotated images, expected at least {test_images + 2}: {test_images} "
            "to score, two to train on"
        )
    drawn = []
    for seed in range(splits):
        order = np.random.default_rng(seed).permutation(images).tolist()
        test, train = tuple(sorted(order[:test_images])), tuple(sorted(order[test_images:]))
        drawn.append(Split(seed, seed, train, test))
    return drawn


def draw_splits(masks: np.ndarray, folds: int, seeds: int) -> list[Split]:
    """K-fold splits of N annotated images, `seeds` partitions one after the other.

    `masks` uint8 `[N, H, W]`, 255 = ignore. A class that occurs in at least two images occurs in
    every training set, as long as the folds' equal sizes permit it. Raises ValueError if there are
    fewer than MIN_IMAGES images.
    """
    images = len(masks)
    if images < MIN_IMAGES:
        raise ValueError(
            f"found {images} annotated images, expected at least {MIN_IMAGES}: a comparison trains"
            " on some and scores the others"
        )
    folds = min(folds, images)
    present = classes_present(masks)
    splits: list[Split] = []
    for seed in range(seeds):
        fold_of = _partition(present, folds, np.random.default_rng(seed))
        for fold in range(folds):
            train, test = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
            splits.append(Split(len(splits), seed, tuple(train.tolist()), tuple(test.tolist())))
    return splits


def classes_present(masks: np.ndarray) -> np.ndarray:
    """Whether each image contains each class, bool `[N, K]`; K is the largest id + 1."""
    known = [np.unique(mask[mask != IGNORE]) for mask in masks]
    classes = 1 + max((int(ids.max()) for ids in known if len(ids)), default=0)
    present = np.zeros((len(masks), classes), bool)
    for row, ids in zip(present, known, strict=True):
        row[ids] = True
    return present


def _partition(present: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """The fold of each image, by iterative stratification (Sechidis et al. 2011).

    The images of the rarest class are dealt out first, each to the fold with the fewest of them.
    """
    images = len(present)
    fold_of = np.full(images, -1)
    room = np.array([len(part) for part in np.array_split(np.arange(images), folds)])
    for wanted in _rarest_first(present):
        for image in rng.permutation(np.flatnonzero(wanted & (fold_of < 0))):
            holds = np.array([(wanted & (fold_of == fold)).sum() for fold in range(folds)])
            free = np.flatnonzero(room > 0)
            # Fewest images of this class, then most room, then at random.
            order = np.lexsort((rng.random(len(free)), -room[free], holds[free]))
            chosen = free[order[0]]
            fold_of[image] = chosen
            room[chosen] -= 1
    return fold_of


def _rarest_first(present: np.ndarray) -> Iterator[np.ndarray]:
    """Which images contain each class, from the rarest class on; finally all images."""
    for class_id in np.argsort(present.sum(0), kind="stable"):
        yield present[:, class_id]
    yield np.ones(len(present), bool)
