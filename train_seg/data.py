"""Training data: dataset folders and annotated images, joined into one endless stream of batches.

The stream is a function of the seed alone: epoch after epoch, each sample once an epoch, in an
order drawn anew; batches are always full and may span two epochs. A stream can therefore start at
any step and gives what an undisturbed one would have given from there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from factory.dataset import canonical_json, open_dataset
from train_seg.augment import Augment
from train_seg.samples import Pair, Size, check_ids, resize, sample_seed, stack
from train_seg.shards import ShardSource


@dataclass(frozen=True)
class LabeledImages:
    """Annotated images in memory: uint8 `[N, 3, H, W]`, masks uint8 `[N, H, W]` (255 = ignore)."""

    images: torch.Tensor
    masks: torch.Tensor
    classes: Sequence[str]
    palette: Sequence[Sequence[int]] | None = None
    name: str = "annotated images"


class Source(Protocol):
    """Something with a known number of samples that can be gone through again and again."""

    @property
    def samples(self) -> int:
        """Samples an epoch."""
        ...

    @property
    def digest(self) -> str:
        """sha256 of the data."""
        ...

    def epoch(self, epoch: int) -> Iterator[Pair]:
        """The augmented samples of one epoch, in that epoch's order."""
        ...


class TensorSource:
    """Annotated images in memory."""

    def __init__(self, data: LabeledImages, size: Size, augment: Augment, seed: int):
        if not len(data.images):
            raise ValueError(f"{data.name}: found no image, expected at least one")
        check_ids(data.masks, len(data.classes), data.name)
        self._images, self._masks = resize(data.images, data.masks, size)
        self._augment, self._seed = augment, seed

    @property
    def samples(self) -> int:
        return len(self._images)

    @property
    def digest(self) -> str:
        h = hashlib.sha256(self._images.numpy().tobytes())
        h.update(self._masks.numpy().tobytes())
        return h.hexdigest()

    def epoch(self, epoch: int) -> Iterator[Pair]:
        order = np.random.default_rng([self._seed, epoch]).permutation(self.samples)
        for i in order:
            seed = sample_seed(self._seed, epoch, f"memory/{i}")
            yield self._augment(self._images[i], self._masks[i], seed)


class Joined:
    """Several sources as one: each sample once an epoch, in an order drawn over all of them."""

    def __init__(self, sources: Sequence[Source], seed: int):
        self._sources, self._seed = sources, seed

    @property
    def samples(self) -> int:
        return sum(s.samples for s in self._sources)

    @property
    def digest(self) -> str:
        return hashlib.sha256("".join(s.digest for s in self._sources).encode()).hexdigest()

    def epoch(self, epoch: int) -> Iterator[Pair]:
        counts = [s.samples for s in self._sources]
        turns = np.repeat(np.arange(len(counts)), counts)
        np.random.default_rng([self._seed, epoch, 1]).shuffle(turns)
        iterators = [s.epoch(epoch) for s in self._sources]
        for turn in turns:
            yield next(iterators[turn])


def batches(source: Source, batch_size: int, start_step: int = 0) -> Iterator[Pair]:
    """Endless full batches from a step on: images uint8 `[B, 3, H, W]`, masks uint8 `[B, H, W]`."""
    epoch, skip = divmod(start_step * batch_size, source.samples)
    batch: list[Pair] = []
    while True:
        for position, pair in enumerate(source.epoch(epoch)):
            if position < skip:
                continue
            batch.append(pair)
            if len(batch) == batch_size:
                yield stack(batch)
                batch = []
        epoch, skip = epoch + 1, 0


class Rounds:
    """What Lightning takes for an epoch: the next `steps` batches, up to step `total` of the run.

    `position` gives the optimiser steps done, so that a resumed run goes on where it was.
    """

    def __init__(
        self, source: Source, batch_size: int, steps: int, total: int, position: Callable[[], int]
    ):
        self._source, self._batch_size = source, batch_size
        self._steps, self._total, self._position = steps, total, position
        self._stream: Iterator[Pair] | None = None
        self._next = 0

    def __iter__(self) -> Iterator[Pair]:
        start = self._position()
        if self._stream is None or self._next != start:
            self._stream = batches(self._source, self._batch_size, start)
        self._next = start
        while self._next < min(start + self._steps, self._total):
            self._next += 1
            yield next(self._stream)


# --- several inputs --------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainingData:
    """What `train` learns from: one source, and what all its parts agree on."""

    source: Source
    classes: list[str]
    palette: list[list[int]] | None
    image_size: Size

    @property
    def digest(self) -> str:
        """sha256 of samples, class names and image size."""
        content = [self.source.digest, self.classes, list(self.image_size)]
        return hashlib.sha256(canonical_json(content)).hexdigest()


def open_training_data(
    data: Sequence[str | Path | LabeledImages],
    augment: Callable[[Size], Augment],
    size: Size | None = None,
    seed: int = 0,
    num_workers: int = 0,
    shuffle_buffer: int = 1000,
    ignore_above: float | None = None,
) -> TrainingData:
    """Join dataset folders and annotated images; `size` (height, width) None: that of the data.

    `ignore_above` is a quantile of each dataset's uncertainty, see `ShardSource`; annotated
    images are certain.

    Raises:
        FileNotFoundError: a folder is no finished dataset, or a shard is missing.
        ValueError: nothing given, no samples, a damaged shard, classes or sizes that differ, or
            `ignore_above` without uncertainty maps.
    """
    if not data:
        raise ValueError("found no training data: give --data DIR at least once")
    datasets = [open_dataset(d) for d in data if not isinstance(d, LabeledImages)]
    memory = [d for d in data if isinstance(d, LabeledImages)]
    classes = [(str(d.path), list(d.manifest.classes)) for d in datasets]
    classes += [(m.name, list(m.classes)) for m in memory]
    for name, found in classes[1:]:
        if found != classes[0][1]:
            raise ValueError(
                f"{name} has the classes {', '.join(found)}, {classes[0][0]} has "
                f"{', '.join(classes[0][1])}: joined data must agree in names and order"
            )
    sizes = [(str(d.path), d.manifest.image_size) for d in datasets]
    if not datasets:  # annotated images follow the size of the datasets, if there are any
        sizes = [(m.name, (m.images.shape[-2], m.images.shape[-1])) for m in memory]
    for name, found_size in sizes[1:]:
        if size is None and found_size != sizes[0][1]:
            raise ValueError(
                f"{name} has images of {found_size[0]}x{found_size[1]}, {sizes[0][0]} of "
                f"{sizes[0][1][0]}x{sizes[0][1][1]}: set image_size to train on one size"
            )
    size = size or sizes[0][1]
    transform = augment(size)
    sources: list[Source] = [TensorSource(m, size, transform, seed) for m in memory]
    if datasets:
        sources.append(
            ShardSource(datasets, size, transform, seed, num_workers, shuffle_buffer, ignore_above)
        )
    elif ignore_above is not None:
        raise ValueError(
            "ignore_above_quantile needs the uncertainty maps of a dataset, found annotated images"
            " only: leave that setting out"
        )
    palettes = [d.manifest.palette for d in datasets]
    palettes += [[list(c) for c in m.palette] for m in memory if m.palette]
    source = sources[0] if len(sources) == 1 else Joined(sources, seed)
    return TrainingData(source, classes[0][1], palettes[0] if palettes else None, size)
