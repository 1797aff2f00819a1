"""How annotated images are divided: every contender trains and is scored on the same splits."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from factory_core.dataset import IGNORE

MIN_TRAINING = 2
MIN_IMAGES = MIN_TRAINING + 1  # one to score


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


def groups_of(names: Sequence[str], pattern: str | None) -> list[str]:
    """The group of each image: what the first group of the regular expression matches of its name.

    The whole match if the expression has no group, the name itself without an expression. Raises
    ValueError if a name does not match.
    """
    if pattern is None:
        return list(names)
    groups = []
    for name in names:
        found = re.search(pattern, name)
        group = None if found is None else found[1 if found.re.groups else 0]
        if not group:
            raise ValueError(
                f"group_by={pattern} finds nothing in {name}: expected a regular expression that "
                "matches a part of the name of every annotated image, without its ending"
            )
        groups.append(group)
    return groups


def joined(groups: Sequence[str], images: torch.Tensor) -> list[str]:
    """`groups` of N images uint8 `[N, 3, H, W]`, as one where they have an image in common.

    Otherwise a model could be scored on an image that it has learned.
    """
    found, first = list(groups), dict[bytes, int]()
    for number, image in enumerate(images):
        same = first.setdefault(hashlib.sha256(image.numpy().tobytes()).digest(), number)
        found = [found[same] if group == found[number] else group for group in found]
    return found


def draw_splits(
    masks: np.ndarray, folds: int, seeds: int, groups: Sequence[str] | None = None
) -> list[Split]:
    """K-fold splits of N annotated images, `seeds` partitions one after the other.

    `masks` uint8 `[N, H, W]`, 255 = ignore. A class that occurs in at least two images occurs in
    every training set, as long as the folds' equal sizes permit it. `groups` are N names: images of
    the same group are trained on or scored together, and folds are of about equal sizes. Raises
    ValueError if there are fewer than MIN_IMAGES images or two groups, or if a split would leave
    fewer than MIN_TRAINING to train on.
    """
    images = len(masks)
    if images < MIN_IMAGES:
        raise ValueError(
            f"found {images} annotated images, expected at least {MIN_IMAGES}: a comparison trains"
            " on some and scores the others"
        )
    names = list(dict.fromkeys(groups or range(images)))
    if len(names) < 2:
        raise ValueError(f"all {images} annotated images belong to {names[0]}: expected two groups")
    group_of = np.array([names.index(group) for group in groups or range(images)])
    present = classes_present(masks)
    in_group = np.array([present[group_of == group].any(0) for group in range(len(names))])
    sizes = np.bincount(group_of)
    splits: list[Split] = []
    folds = min(folds, len(names))
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        fold_of = _partition(in_group, sizes, folds, rng)[group_of]
        for fold in np.unique(fold_of):
            train, test = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
            if len(train) < MIN_TRAINING:
                raise ValueError(
                    f"{folds} folds of {images} images in {len(names)} groups leave {len(train)} "
                    f"to train on in one of them, expected {MIN_TRAINING}: annotate more, or "
                    "change --set folds or group_by"
                )
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


def _partition(
    present: np.ndarray, sizes: np.ndarray, folds: int, rng: np.random.Generator
) -> np.ndarray:
    """The fold of each group, by iterative stratification (Sechidis et al. 2011).

    The groups with the rarest class are dealt out first, each to the fold with the fewest of them.
    `sizes` are their numbers of images.
    """
    fold_of = np.full(len(present), -1)
    room = np.array([len(part) for part in np.array_split(np.arange(sizes.sum()), folds)])
    for wanted in _rarest_first(present):
        for group in rng.permutation(np.flatnonzero(wanted & (fold_of < 0))):
            holds = np.array([(wanted & (fold_of == fold)).sum() for fold in range(folds)])
            free = np.flatnonzero(room > 0)
            # Fewest of this class, then most room, then at random.
            order = np.lexsort((rng.random(len(free)), -room[free], holds[free]))
            chosen = free[order[0]]
            fold_of[group] = chosen
            room[chosen] -= sizes[group]
    return fold_of


def _rarest_first(present: np.ndarray) -> Iterator[np.ndarray]:
    """Which groups contain each class, from the rarest class on; finally all groups."""
    for class_id in np.argsort(present.sum(0), kind="stable"):
        yield present[:, class_id]
    yield np.ones(len(present), bool)
