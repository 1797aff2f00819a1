"""The kept samples of a finished dataset, for browsing from Python."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from factory_core.dataset.files import SAMPLES_NAME, Member, read_members, read_open_tar, tar_index
from factory_core.dataset.manifest import Dataset, Manifest, open_dataset
from factory_core.dataset.rows import class_pixels_of
from factory_core.dataset.sample import Sample, decode_sample
from factory_core.storage import Place

if TYPE_CHECKING:
    import datasets
    import fiftyone
    import pandas
    import torch
    import webdataset

    from factory_core.dataset.torch_pairs import Pairs

INDEXED_SHARDS = 64  # whose offsets are remembered, about 100 KB each


class SampleSet:
    """The kept samples of a dataset, or some of them, in key order.

    `len`, iteration, and indexing by position or key give samples; a slice, a sequence of
    positions or a boolean array `[N]` gives a smaller `SampleSet`, so filters combine:

    >>> data = open_dataset("smears")
    >>> certain = data[(data.uncertainty < 0.2) & data.has("nucleus")]
    >>> for sample in certain:
    ...     sample.key, sample.image, sample.mask  # "000000000", uint8 [3, H, W], uint8 [H, W]

    Nothing is read before it is needed: only samples.parquet, one row per sample, is in memory. It
    can be pickled.
    """

    def __init__(self, dataset: Dataset, rows: pa.Table):
        self.dataset, self._rows = dataset, rows
        self._index = lru_cache(INDEXED_SHARDS)(self._read_index)

    @classmethod
    def open(cls, folder: Place) -> SampleSet:
        """All kept samples of the dataset in `folder`, a path or a URL; errors as `open_dataset`.

        Raises ValueError too if samples.parquet does not list the samples of dataset.json.
        """
        dataset = open_dataset(folder)
        try:
            with dataset.store.open(SAMPLES_NAME) as file:
                rows = pq.read_table(file, filters=[("kept", "==", True)])
        except pa.ArrowException as error:
            raise _damaged(dataset, str(error).splitlines()[0]) from None
        if len(rows) != dataset.manifest.totals.kept:
            raise _damaged(dataset, f"{len(rows)} of {dataset.manifest.totals.kept} samples")
        return cls(dataset, rows.sort_by("key").drop_columns(["kept", "reason"]))

    # --- what is known without reading a sample ----------------------------------------------

    @property
    def manifest(self) -> Manifest:
        """The content of dataset.json: recipe, provenance, totals of the whole dataset."""
        return self.dataset.manifest

    @property
    def classes(self) -> list[str]:
        """Class names in id order."""
        return self.manifest.classes

    @property
    def keys(self) -> list[str]:
        """Key of each sample, nine digits."""
        return self._rows["key"].to_pylist()

    @property
    def shards(self) -> list[str]:
        """Names of the shards that hold samples of this set."""
        return pc.unique(self._rows["shard"]).to_pylist()

    @property
    def uncertainty(self) -> np.ndarray:
        """Uncertainty of each sample, float32 `[N]`, in nats."""
        return self._rows["uncertainty"].to_numpy()

    @property
    def class_pixels(self) -> np.ndarray:
        """Pixels of each class in each sample, int64 `[N, K]`."""
        if not len(self):
            return np.zeros((0, len(self.classes)), np.int64)
        return class_pixels_of(self._rows)

    def has(self, name: str, min_pixels: int = 1) -> np.ndarray:
        """Whether each sample has at least `min_pixels` of the class `name`, bool `[N]`.

        Raises ValueError for an unknown class.
        """
        if name not in self.classes:
            known = ", ".join(self.classes)
            raise ValueError(f"unknown class {name!r}: expected one of {known}")
        return self.class_pixels[:, self.classes.index(name)] >= min_pixels

    def to_pandas(self) -> pandas.DataFrame:
        """One row per sample, indexed by key: index, shard, seed, uncertainty, pixels per class."""
        frame = self._rows.drop_columns("class_pixels").to_pandas().set_index("key")
        for name, column in zip(self.classes, self.class_pixels.T, strict=True):
            frame[f"pixels of {name}"] = column
        return frame

    def __repr__(self) -> str:
        total = self.manifest.totals.kept
        part = f"{total}" if len(self) == total else f"{len(self)} of {total}"
        return f"<{part} samples of {self.dataset.store}: {', '.join(self.classes)}>"

    # --- samples -----------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Sample]:
        for key, members in self.encoded():
            yield decode_sample(key, members, len(self.classes))

    @overload
    def __getitem__(self, which: int | str) -> Sample: ...
    @overload
    def __getitem__(self, which: slice | Sequence[int] | np.ndarray) -> SampleSet: ...
    def __getitem__(
        self, which: int | str | slice | Sequence[int] | np.ndarray
    ) -> Sample | SampleSet:
        """A sample by position or key, or a smaller set.

        Raises IndexError for a position, KeyError for a key, that this set does not have.
        """
        if isinstance(which, str):
            places = np.flatnonzero(self._rows["key"].to_numpy() == which)
            if not len(places):
                raise KeyError(f"{which!r} is not among these {len(self)} samples")
            return self._sample(int(places[0]))
        if not isinstance(which, slice | Sequence | np.ndarray):
            place = operator.index(which)
            if not -len(self) <= place < len(self):
                raise IndexError(f"{place}: expected a position among {len(self)} samples")
            return self._sample(place % len(self))
        places = np.asarray(which) if not isinstance(which, slice) else np.arange(len(self))[which]
        if places.dtype == bool and places.shape != (len(self),):
            raise IndexError(f"found a mask of shape {places.shape}, expected ({len(self)},)")
        chosen = np.arange(len(self))[places.astype(bool if places.dtype == bool else int)]
        return SampleSet(self.dataset, self._rows.take(np.unique(chosen)))

    def _sample(self, place: int) -> Sample:
        key, shard = self._rows["key"][place].as_py(), self._rows["shard"][place].as_py()
        index, shards = self._index(shard), self.dataset.shards
        if key not in index:
            raise _missing(self.dataset, shard, key)
        with shards.open(shard) as file:
            members = read_members(file, index[key], shards / shard)
        return decode_sample(key, members, len(self.classes))

    def _read_index(self, shard: str) -> dict[str, list[tuple[str, int, int]]]:
        with self.dataset.shards.open(shard) as file:
            return tar_index(file, self.dataset.shards / shard)

    def encoded(self) -> Iterator[tuple[str, list[Member]]]:
        """(key, members as stored) of each sample, in order; each shard is read forwards, once."""
        keys, shards = self.keys, self._rows["shard"].to_pylist()
        by_shard: dict[str, set[str]] = {}
        for key, shard in zip(keys, shards, strict=True):
            by_shard.setdefault(shard, set()).add(key)
        for shard, wanted in by_shard.items():
            name = self.dataset.shards / shard
            with self.dataset.shards.open(shard) as file:
                for key, members in read_open_tar(file, name, frozenset(wanted)):
                    wanted.discard(key)
                    yield key, members
            if wanted:
                raise _missing(self.dataset, shard, min(wanted))

    def __getstate__(self) -> dict[str, Any]:
        return {"dataset": self.dataset, "rows": self._rows}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    # --- other libraries ---------------------------------------------------------------------

    def to_webdataset(self, **options: Any) -> webdataset.WebDataset:
        """A `webdataset.WebDataset` of dicts: see `conversions.to_webdataset`."""
        from factory_core.dataset.conversions import to_webdataset

        return to_webdataset(self, **options)

    def to_torch(
        self, transform: Callable[[torch.Tensor, torch.Tensor], Any] | None = None
    ) -> Pairs:
        """A map-style torch dataset of (image, mask): see `torch_pairs.Pairs`."""
        from factory_core.dataset.torch_pairs import Pairs

        return Pairs(self, transform)

    def to_hf(self) -> datasets.Dataset:
        """A Hugging Face `datasets.Dataset`: see `conversions.to_hf`."""
        from factory_core.dataset.conversions import to_hf

        return to_hf(self)

    def to_folder(self, folder: str | Path) -> None:
        """Write an annotated folder: see `conversions.to_folder`."""
        from factory_core.dataset.conversions import to_folder

        to_folder(self, Path(folder))

    def to_fiftyone(self, folder: str | Path, name: str | None = None) -> fiftyone.Dataset:
        """A FiftyOne dataset of the files in `folder`: see `conversions.to_fiftyone`."""
        from factory_core.dataset.conversions import to_fiftyone

        return to_fiftyone(self, Path(folder), name)


def _damaged(dataset: Dataset, found: str) -> ValueError:
    return ValueError(
        f"{dataset.store / SAMPLES_NAME} is damaged ({found}): rerun the command that made the "
        "dataset, which regenerates it"
    )


def _missing(dataset: Dataset, shard: str, key: str) -> ValueError:
    return ValueError(
        f"{dataset.shards / shard} lacks sample {key}, which {SAMPLES_NAME} lists: it is damaged; "
        "copy it again or regenerate it"
    )
