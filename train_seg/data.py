"""Training data: dataset folders and annotated images, joined into one endless stream of batches.

The stream is a function of the seed alone: epoch after epoch, each sample once an epoch, in an
order drawn anew; batches are always full and may span two epochs. A stream can therefore start at
any step and gives what an undisturbed one would have given from there.
"""

from __future__ import annotations

import hashlib
import io
import random
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import webdataset as wds
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tvf

from factory.dataset import Dataset, canonical_json, open_dataset
from train_seg.augment import Augment
from train_seg.metrics import IGNORE

Size = tuple[int, int]
Pair = tuple[torch.Tensor, torch.Tensor]  # image uint8 [3, H, W], mask uint8 [H, W]
CHUNK = 16  # samples that a loader process hands over at a time


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
            seed = _sample_seed(self._seed, epoch, f"memory/{i}")
            yield self._augment(self._images[i], self._masks[i], seed)


class ShardSource:
    """The shards of one or several dataset folders, read through webdataset."""

    def __init__(
        self,
        datasets: Sequence[Dataset],
        size: Size,
        augment: Augment,
        seed: int,
        num_workers: int = 0,
        shuffle_buffer: int = 1000,
    ):
        self._shards = [str(p) for d in datasets for p in d.shard_paths]
        self._infos = [s for d in datasets for s in d.manifest.shards]
        if not self.samples:
            names = ", ".join(str(d.path) for d in datasets)
            raise ValueError(f"{names}: found no sample in any shard, expected at least one")
        self._classes = len(datasets[0].manifest.classes)
        self._size, self._augment, self._seed = size, augment, seed
        # A loader process without a shard would only cost memory.
        self._num_workers = min(num_workers, len(self._shards))
        self._shuffle_buffer = shuffle_buffer

    @property
    def samples(self) -> int:
        return sum(s.samples for s in self._infos)

    @property
    def digest(self) -> str:
        return hashlib.sha256("".join(s.sha256 for s in self._infos).encode()).hexdigest()

    def epoch(self, epoch: int) -> Iterator[Pair]:
        rng = random.Random(f"{self._seed}/{epoch}")
        shards = rng.sample(self._shards, len(self._shards))
        pipeline = wds.DataPipeline(
            wds.SimpleShardList(shards),
            wds.split_by_node,
            wds.split_by_worker,
            _Guarded(
                wds.tarfile_to_samples(),
                wds.shuffle(self._shuffle_buffer, initial=self._shuffle_buffer, rng=rng),
                wds.map(_Decode(self._size, self._augment, self._classes, self._seed, epoch)),
                wds.batched(CHUNK, collation_fn=_stack),
            ),
        )
        found = 0
        for chunk in wds.WebLoader(pipeline, batch_size=None, num_workers=self._num_workers):
            if isinstance(chunk, str):
                raise ValueError(chunk)
            found += len(chunk[0])
            yield from zip(*chunk, strict=True)
        if found != self.samples:
            raise ValueError(
                f"the shards hold {found} samples, their dataset.json lists {self.samples}: "
                "the dataset is damaged, write it again"
            )


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
                yield _stack(batch)
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


# --- one sample ------------------------------------------------------------------------------


def check_ids(mask: torch.Tensor, classes: int, where: str) -> None:
    """Refuse class ids beyond the list; `where` names the mask in the error."""
    ids = mask[mask != IGNORE]
    if ids.numel() and int(ids.max()) >= classes:
        raise ValueError(
            f"{where}: found class id {int(ids.max())}, expected ids below {classes} "
            "(255 = ignore): correct the mask or the list of classes"
        )


def resize(image: torch.Tensor, mask: torch.Tensor, size: Size) -> Pair:
    """Image uint8 `[..., 3, H, W]` (bilinear, antialiased) and mask `[..., H, W]` (nearest)."""
    if tuple(image.shape[-2:]) == size:
        return image, mask
    image = tvf.resize(image, list(size), antialias=True)
    mask = tvf.resize(mask.unsqueeze(-3), list(size), InterpolationMode.NEAREST_EXACT)
    return image, mask.squeeze(-3)


def _stack(pairs: Sequence[Pair]) -> Pair:
    return torch.stack([p[0] for p in pairs]), torch.stack([p[1] for p in pairs])


def _sample_seed(seed: int, epoch: int, key: str) -> int:
    """Seed of a sample's augmentation: of the sample and epoch alone, never of the order."""
    words = [seed, epoch, zlib.crc32(key.encode())]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint32)[0])


class _Decode:
    """A webdataset sample (dict of bytes) -> augmented (image, mask)."""

    def __init__(self, size: Size, augment: Augment, classes: int, seed: int, epoch: int):
        self._size, self._augment, self._classes = size, augment, classes
        self._seed, self._epoch = seed, epoch

    def __call__(self, sample: dict[str, Any]) -> Pair:
        where = f"{sample['__url__']}: sample {sample['__key__']}"
        encoded = sample.get("png") or sample.get("jpg")
        if encoded is None or "seg.png" not in sample:
            found = ", ".join(sorted(k for k in sample if not k.startswith("__")))
            raise ValueError(f"{where}: found members {found}, expected png or jpg, and seg.png")
        try:
            image = np.array(Image.open(io.BytesIO(encoded)).convert("RGB"))
            mask = torch.from_numpy(np.array(Image.open(io.BytesIO(sample["seg.png"]))))
        except OSError as error:
            raise ValueError(f"{where}: cannot be decoded ({error})") from None
        pixels = torch.from_numpy(image).permute(2, 0, 1).contiguous()
        if mask.shape != pixels.shape[1:]:
            raise ValueError(
                f"{where}: the mask has shape {tuple(mask.shape)}, "
                f"expected {tuple(pixels.shape[1:])} as its image"
            )
        check_ids(mask, self._classes, where)
        pixels, mask = resize(pixels, mask, self._size)
        # Without the folder: where a dataset lies must not change what is trained.
        shard = sample["__url__"].rsplit("/", 1)[-1]
        seed = _sample_seed(self._seed, self._epoch, f"{shard}/{sample['__key__']}")
        return self._augment(pixels, mask, seed)


class _Guarded:
    """Pipeline stages whose failure comes out as a last item, a line of text.

    An exception would cross from a loader process as a page of traceback, and the stages of
    webdataset name the shard only in its arguments.
    """

    def __init__(self, *stages: Callable[[Iterable[Any]], Iterator[Any]]):
        self._stages = stages

    def __call__(self, urls: Iterable[dict[str, Any]]) -> Iterator[Any]:
        current = ""

        def remembered() -> Iterator[dict[str, Any]]:
            nonlocal current
            for url in urls:
                current = url["url"]
                yield url

        stream: Iterable[Any] = remembered()
        for stage in self._stages:
            stream = stage(stream)
        try:
            yield from stream
        except (tarfile.TarError, OSError, EOFError) as error:
            yield f"{current}: cannot be read ({error.args[0]}): write the dataset again"
        except ValueError as error:
            yield str(error.args[0])


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
) -> TrainingData:
    """Join dataset folders and annotated images; `size` (height, width) None: that of the data.

    Raises:
        FileNotFoundError: a folder is no finished dataset, or a shard is missing.
        ValueError: nothing given, no samples, a damaged shard, or classes or sizes that differ.
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
        shards = ShardSource(datasets, size, transform, seed, num_workers, shuffle_buffer)
        sources.append(shards)
    palettes = [d.manifest.palette for d in datasets]
    palettes += [[list(c) for c in m.palette] for m in memory if m.palette]
    source = sources[0] if len(sources) == 1 else Joined(sources, seed)
    return TrainingData(source, classes[0][1], palettes[0] if palettes else None, size)
