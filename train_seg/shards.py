"""Dataset folders as a stream of samples, read through webdataset."""

from __future__ import annotations

import hashlib
import io
import random
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import webdataset as wds
from PIL import Image

from factory.dataset import Dataset, level_at_quantile
from train_seg.augment import Augment
from train_seg.metrics import IGNORE
from train_seg.samples import Pair, Size, check_ids, resize, sample_seed, stack

CHUNK = 16  # samples that a loader process hands over at a time


class ShardSource:
    """The shards of one or several dataset folders, read through webdataset.

    Pixels above the quantile `ignore_above` of the uncertainty in their dataset become 255.
    """

    def __init__(
        self,
        datasets: Sequence[Dataset],
        size: Size,
        augment: Augment,
        seed: int,
        num_workers: int = 0,
        shuffle_buffer: int = 1000,
        ignore_above: float | None = None,
    ):
        self._shards = [str(p) for d in datasets for p in d.shard_paths]
        self._infos = [s for d in datasets for s in d.manifest.shards]
        if not self.samples:
            names = ", ".join(str(d.path) for d in datasets)
            raise ValueError(f"{names}: found no sample in any shard, expected at least one")
        self._classes = len(datasets[0].manifest.classes)
        self._limits = {} if ignore_above is None else _uncertainty_limits(datasets, ignore_above)
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
        decode = _Decode(self._size, self._augment, self._classes, self._limits, self._seed, epoch)
        pipeline = wds.DataPipeline(
            wds.SimpleShardList(shards),
            wds.split_by_node,
            wds.split_by_worker,
            _Guarded(
                wds.tarfile_to_samples(),
                wds.shuffle(self._shuffle_buffer, initial=self._shuffle_buffer, rng=rng),
                wds.map(decode),
                wds.batched(CHUNK, collation_fn=stack),
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


def _uncertainty_limits(datasets: Sequence[Dataset], quantile: float) -> dict[str, int]:
    """By shard, the highest level of its uncertainty maps that is learned from."""
    limits: dict[str, int] = {}
    for dataset in datasets:
        histogram = dataset.manifest.uncertainty_histogram
        if histogram is None:
            raise ValueError(
                f"{dataset.path} has no uncertainty maps, which ignore_above_quantile needs: make "
                "it anew with --set dataset.uncertainty_maps=true, or leave that setting out"
            )
        level = level_at_quantile(histogram, quantile)
        limits |= {str(path): level for path in dataset.shard_paths}
    return limits


@dataclass(frozen=True)
class _Decode:
    """A webdataset sample (dict of bytes) -> augmented (image, mask).

    `limits` are those of `_uncertainty_limits`, empty to learn from every pixel.
    """

    size: Size
    augment: Augment
    classes: int
    limits: Mapping[str, int]
    seed: int
    epoch: int

    def __call__(self, sample: dict[str, Any]) -> Pair:
        where = f"{sample['__url__']}: sample {sample['__key__']}"
        pixels = _picture(sample, where, "png", "jpg", mode="RGB").permute(2, 0, 1).contiguous()
        mask = _picture(sample, where, "seg.png")
        _check_shape(mask, pixels, "mask", where)
        check_ids(mask, self.classes, where)
        limit = self.limits.get(sample["__url__"])
        if limit is not None:
            levels = _picture(sample, where, "unc.png")
            _check_shape(levels, pixels, "uncertainty map", where)
            mask[levels > limit] = IGNORE
        pixels, mask = resize(pixels, mask, self.size)
        # Without the folder: where a dataset lies must not change what is trained.
        shard = sample["__url__"].rsplit("/", 1)[-1]
        seed = sample_seed(self.seed, self.epoch, f"{shard}/{sample['__key__']}")
        return self.augment(pixels, mask, seed)


def _picture(
    sample: dict[str, Any], where: str, *names: str, mode: str | None = None
) -> torch.Tensor:
    """The first member of `names` that is there, `[H, W]` or, in mode RGB, `[H, W, 3]`, uint8."""
    encoded = next((sample[name] for name in names if name in sample), None)
    if encoded is None:
        found = ", ".join(sorted(k for k in sample if not k.startswith("__")))
        raise ValueError(f"{where}: found members {found}, expected {' or '.join(names)} too")
    try:
        picture = Image.open(io.BytesIO(encoded))
        return torch.from_numpy(np.array(picture if mode is None else picture.convert(mode)))
    except OSError as error:
        raise ValueError(f"{where}: cannot be decoded ({error})") from None


def _check_shape(found: torch.Tensor, image: torch.Tensor, what: str, where: str) -> None:
    if found.shape != image.shape[1:]:
        raise ValueError(
            f"{where}: the {what} has shape {tuple(found.shape)}, "
            f"expected {tuple(image.shape[1:])} as its image"
        )


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
