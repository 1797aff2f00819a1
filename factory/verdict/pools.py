"""Sets of images, with the generator's features of each computed once and kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from factory.annotation.encoding import encode_batch
from factory_core.storage import atomic_path
from generators.base import FeatureMaps, Generator, batches
from labelers.config import FeatureDtype
from labelers.training.feature_store import FeatureStore, store_bytes

MAX_FEATURE_BYTES = 4 * 2**30  # of one pool, on disk
SAME_LEVELS = 8  # of 255: a JPEG decoded at a smaller scale differs by up to 4


@dataclass(frozen=True)
class Encoder:
    """The generator, and the number format of its features on disk."""

    generator: Generator
    dtype: FeatureDtype

    @property
    def batch(self) -> int:
        """Images at a time."""
        return encode_batch(self.generator.feature_spec, self.generator.batch_size)

    @property
    def most_images(self) -> int:
        """How many images' features fit into MAX_FEATURE_BYTES."""
        return max(1, MAX_FEATURE_BYTES // store_bytes(self.generator.feature_spec, 1, self.dtype))


class Pool:
    """Images uint8 `[N, 3, H, W]` in memory, and their features in `folder`.

    `encoder` is None without a generator: then there are no features.
    """

    def __init__(
        self,
        images: torch.Tensor,
        folder: Path,
        encoder: Encoder | None,
        recorded: FeatureStore | None = None,
    ):
        """`recorded` are features that exist already: those of samples, from their sampling."""
        self.images, self.folder, self.encoder = images, folder, encoder
        self._recorded = recorded

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def digest(self) -> str:
        """sha256 of the images."""
        return hashlib.sha256(self.images.numpy().tobytes()).hexdigest()

    @cached_property
    def store(self) -> FeatureStore:
        """The features of all images, encoded at the first use; resumes in `folder`."""
        if self._recorded is not None:
            return self._recorded
        assert self.encoder is not None
        generator = self.encoder.generator
        source = f"{self.digest} {generator.digest}"
        spec, count = generator.feature_spec, len(self.images)
        store = FeatureStore(self.folder, spec, count, self.encoder.dtype, source)
        rest = range(store.written, count)
        for rows in batches(rest, self.encoder.batch):
            store.append(generator.encode(self.images[rows.start : rows.stop], rows))
        return store

    @property
    def has_features(self) -> bool:
        """Whether the features have been encoded, or read, by this object."""
        return "store" in vars(self)

    def features(self, rows: Sequence[int]) -> FeatureMaps:
        """The features of some images, float32."""
        return FeatureMaps.concat([self.store.features(row) for row in rows]).to(torch.float32)


def sample_pool(folder: Path, encoder: Encoder, count: int) -> Pool:
    """`count` samples of the generator, with the features recorded while sampling.

    Fewer if their features would not fit (see `Encoder.most_images`). Resumes in `folder`, where a
    second call finds all of them.
    """
    path, generator = folder / "images.safetensors", encoder.generator
    source = f"samples of {generator.digest}"
    count = min(count, encoder.most_images)
    store = FeatureStore(folder, generator.feature_spec, count, encoder.dtype, source)
    if store.written and not path.is_file():
        store.delete()
        store = FeatureStore(folder, generator.feature_spec, count, encoder.dtype, source)
    images = [load_file(path)["images"][: store.written]] if store.written else []
    for rows in batches(range(store.written, count), generator.batch_size):
        made, features = generator.sample(rows)
        images.append(made.cpu())
        with atomic_path(path) as temporary:  # first, because the store counts what is there
            save_file({"images": torch.cat(images).contiguous()}, temporary)
        store.append(features)
    return Pool(load_file(path)["images"][:count], folder, encoder, store)


def equal_to_none(images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Which of the images uint8 `[N, 3, H, W]` equal none of `others`, bool `[N]`.

    A photograph may be decoded at a smaller scale than the same file among the annotated images, so
    images whose levels differ by no more than SAME_LEVELS are taken for equal.
    """
    found = torch.ones(len(images), dtype=torch.bool)
    means = images.float().mean((2, 3))
    for other in others:
        # Equal images have equal means; few others do.
        near = (means - other.float().mean((1, 2))).abs().amax(1) <= SAME_LEVELS
        rows = near.nonzero().flatten()
        difference = (images[rows].short() - other.short()).abs().flatten(1).amax(1)
        found[rows[difference <= SAME_LEVELS]] = False
    return found
