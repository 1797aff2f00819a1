"""Training data: dataset folders, other tars and annotated images, joined into one stream."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from factory_core.dataset import (
    LEVEL_SUM,
    MANIFEST_NAME,
    Dataset,
    canonical_json,
    open_dataset,
    read_manifest,
)
from factory_core.storage import Store, open_store
from train_seg.config import SHUFFLE_BUFFER
from train_seg.data.augment import Augment
from train_seg.data.foreign import ForeignTars
from train_seg.data.samples import (
    Pair,
    Size,
    augmentation_seed,
    check_ids,
    resize,
    resize_labels,
)
from train_seg.data.shards import ShardSource
from train_seg.data.soft_labels import augmented, certain
from train_seg.data.stream import Item, Source, Stream


@dataclass(frozen=True)
class LabeledImages:
    """Annotated images in memory: uint8 `[N, 3, H, W]`, masks uint8 `[N, H, W]` (255 = ignore).

    Images that a labeler labelled may have `probabilities`: levels uint8 `[N, K, H, W]` that sum to
    255 over the classes, see `probability_levels`.
    """

    images: torch.Tensor
    masks: torch.Tensor
    classes: Sequence[str]
    palette: Sequence[Sequence[int]] | None = None
    name: str = "annotated images"
    probabilities: torch.Tensor | None = None


class TensorSource:
    """Annotated images in memory, a `Source` for `Stream`.

    `soft` labels are class probabilities; without any, the masks are certain.
    """

    def __init__(
        self, data: LabeledImages, size: Size, augment: Augment, seed: int, soft: bool = False
    ):
        if not len(data.images):
            raise ValueError(f"{data.name}: found no image, expected at least one")
        check_ids(data.masks, len(data.classes), data.name)
        self._images, self._masks = resize(data.images, data.masks, size)
        self._levels = None
        if soft and data.probabilities is not None:
            self._levels = resize_labels(_checked_levels(data, data.probabilities), size)
        self._augment, self._seed = augment, seed
        self._classes, self._soft = len(data.classes), soft

    @property
    def samples(self) -> int:
        return len(self._images)

    @property
    def digest(self) -> str:
        h = hashlib.sha256(self._images.numpy().tobytes())
        h.update(self._masks.numpy().tobytes())
        if self._levels is not None:
            h.update(self._levels.numpy().tobytes())
        return h.hexdigest()

    def read(self, places: Iterable[int]) -> Iterator[Item]:
        """The number of the image at each of `places` in the endless sequence of epochs."""
        row = (divmod(place, self.samples) for place in places)
        for epoch, group in groupby(row, lambda p: p[0]):
            order = np.random.default_rng([self._seed, epoch]).permutation(self.samples)
            for _, place in group:
                yield Item(epoch, int(order[place]))

    def decoder(self, number: int, epoch: int) -> Pair:
        """An image and its labels, augmented."""
        mask, levels = self._masks[number], None
        if self._soft:
            levels = certain(mask, self._classes) if self._levels is None else self._levels[number]
        seed = augmentation_seed(self._seed, epoch, f"memory/{number}")
        return augmented(self._augment, self._images[number], mask, levels, seed)


def _checked_levels(data: LabeledImages, levels: torch.Tensor) -> torch.Tensor:
    """Raise ValueError unless these are levels of the data's images and classes."""
    expected = (len(data.masks), len(data.classes), *data.masks.shape[1:])
    if levels.dtype != torch.uint8 or tuple(levels.shape) != expected:
        raise ValueError(
            f"{data.name}: found probabilities {levels.dtype} {list(levels.shape)}, expected levels"
            f" torch.uint8 {list(expected)}"
        )
    if (levels.sum(1) != LEVEL_SUM).any():
        raise ValueError(f"{data.name}: found levels that do not sum to {LEVEL_SUM} in each pixel")
    return levels


class Rounds:
    """An epoch to Lightning: the next `steps` batches, up to step `total` of the run.

    `position` returns the number of optimiser steps done, so that a resumed run continues at the
    right batch. Each of several processes has its own `Rounds`, with its rows of the batches.
    """

    def __init__(
        self,
        source: Stream,
        batch_size: int,
        steps: int,
        total: int,
        position: Callable[[], int],
        rank: int = 0,
        world_size: int = 1,
    ):
        self._source, self._batch_size = source, batch_size
        self._steps, self._total, self._position = steps, total, position
        self._rank, self._world_size = rank, world_size
        self._stream: Iterator[Pair] | None = None
        self._next = 0

    def __iter__(self) -> Iterator[Pair]:
        start = self._position()
        if self._stream is None or self._next != start:
            self._stream = self._source.batches(
                self._batch_size, start, self._rank, self._world_size
            )
        self._next = start
        while self._next < min(start + self._steps, self._total):
            self._next += 1
            yield next(self._stream)


# --- several inputs --------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainingData:
    """The input of `train`: one stream, and what all its parts have in common."""

    source: Stream
    classes: list[str]
    palette: list[list[int]] | None
    image_size: Size

    @property
    def digest(self) -> str:
        """sha256 of the samples, the weights of a mixture, class names and image size."""
        content = [self.source.digest, self.classes, list(self.image_size)]
        return hashlib.sha256(canonical_json(content)).hexdigest()


def open_training_data(
    data: Sequence[str | Path | Store | LabeledImages | ForeignTars],
    augment: Callable[[Size], Augment],
    size: Size | None = None,
    seed: int = 0,
    num_workers: int = 0,
    shuffle_buffer: int = SHUFFLE_BUFFER,
    ignore_above: float | None = None,
    mix: Sequence[float] | None = None,
    skip_damaged: bool = False,
    soft_labels: bool = False,
) -> TrainingData:
    """Join dataset folders, tars of other programs and annotated images.

    `size` (height, width) None is that of the datasets, else that of all other data.

    `mix` holds one weight per entry of `data`: each place of a batch draws its source with these
    probabilities (see `Stream`). With None, each sample comes once per epoch. `ignore_above` is a
    quantile of each dataset's uncertainty (see `ShardSource`); all other masks count as certain.
    With `skip_damaged`, damaged samples and shards of datasets are counted in `source.skipped`
    instead of ending the stream. `soft_labels` are the class probabilities of datasets (see
    `data.soft_labels`); data without any count as certain.

    Raises:
        FileNotFoundError: a folder is not a finished dataset, or a shard is missing.
        ValueError: no data, no samples, a damaged shard, classes or sizes that differ, weights that
            do not match the data, `ignore_above` without uncertainty maps, or `soft_labels` without
            probabilities.
    """
    if not data:
        raise ValueError("found no training data: give --data DIR at least once")
    weights = None if mix is None else _weights(mix, len(data))
    inputs = [
        d if isinstance(d, LabeledImages | ForeignTars) else _open(d, skip_damaged) for d in data
    ]
    datasets = [d for d in inputs if isinstance(d, Dataset)]
    others = [d for d in inputs if not isinstance(d, Dataset)]
    classes = _agreed_classes(inputs)
    # If there are datasets, everything else is resized to their size.
    size = size or _agreed_size(datasets or inputs)
    transform = augment(size)
    if not datasets:
        _check_certain(others, ignore_above, soft_labels)
    sources: list[Source] = [
        ShardSource(
            d, size, transform, seed, shuffle_buffer, ignore_above, skip_damaged, soft_labels
        )
        if isinstance(d, Dataset)
        else TensorSource(d, size, transform, seed, soft_labels)
        if isinstance(d, LabeledImages)
        else d.source(size, transform, seed, shuffle_buffer, skip_damaged, soft_labels)
        for d in inputs
    ]
    palettes = [d.manifest.palette for d in datasets]
    palettes += [[list(colour) for colour in d.palette] for d in others if d.palette]
    stream = Stream(sources, seed, weights, num_workers, skip_damaged)
    return TrainingData(stream, classes, palettes[0] if palettes else None, size)


Input = Dataset | LabeledImages | ForeignTars


def _check_certain(
    data: Sequence[LabeledImages | ForeignTars], ignore_above: float | None, soft_labels: bool
) -> None:
    """Raise ValueError for settings that need what images without a dataset do not have."""
    missing = ""
    if ignore_above is not None:
        missing = "ignore_above_quantile needs the uncertainty maps"
    elif soft_labels and all(getattr(d, "probabilities", None) is None for d in data):
        missing = "soft_labels needs the class probabilities"
    if missing:
        is_images = all(isinstance(d, LabeledImages) for d in data)
        found = "annotated images" if is_images else "tars of other programs"
        raise ValueError(f"{missing} of a dataset, found only {found}: leave that setting out")


def _weights(mix: Sequence[float], inputs: int) -> list[float]:
    """`mix`, scaled to the sum 1."""
    shown = ",".join(f"{w:g}" for w in mix)
    if len(mix) != inputs:
        raise ValueError(
            f"--mix {shown}: found {len(mix)} weights, expected {inputs}, one per --data"
        )
    if not all(math.isfinite(w) and w > 0 for w in mix):
        raise ValueError(
            f"--mix {shown}: expected weights above 0; leave out the --data that should have none"
        )
    return [w / math.fsum(mix) for w in mix]


def _open(folder: str | Path | Store, skip_damaged: bool) -> Dataset:
    """A finished dataset; with `skip_damaged`, its shards are checked only when read."""
    try:
        return open_dataset(folder)
    except (FileNotFoundError, ValueError):
        store = open_store(folder)
        if not (skip_damaged and store.exists(MANIFEST_NAME)):
            raise
        return Dataset(store, read_manifest(store))


def _agreed_classes(inputs: Sequence[Input]) -> list[str]:
    classes = [
        (str(d.store), d.manifest.classes) if isinstance(d, Dataset) else (d.name, list(d.classes))
        for d in inputs
    ]
    for name, found in classes[1:]:
        if found != classes[0][1]:
            raise ValueError(
                f"{name} has the classes {', '.join(found)}, {classes[0][0]} has "
                f"{', '.join(classes[0][1])}: joined data must agree in names and order"
            )
    return list(classes[0][1])


def _agreed_size(inputs: Sequence[Input]) -> Size:
    """(height, width) of all inputs; of tars, that of the first image."""
    sizes = [
        (str(d.store), d.manifest.image_size)
        if isinstance(d, Dataset)
        else (d.name, (d.images.shape[-2], d.images.shape[-1]))
        if isinstance(d, LabeledImages)
        else (d.name, d.image_size)
        for d in inputs
    ]
    expected = sizes[0][1]
    for name, found in sizes[1:]:
        if found != expected:
            raise ValueError(
                f"{name} has images of {found[0]}x{found[1]}, {sizes[0][0]} of "
                f"{expected[0]}x{expected[1]}: set image_size to train on one size"
            )
    return expected
