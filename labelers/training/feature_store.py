"""Features of annotated images on disk, at native size, memory-mapped.

A folder holds one file per native size, `HxW.features`: rows `[N, h·w, channels of that size]` in
the order of `labelers.ensemble.classifiers.channel_last`, little-endian. `features.index` describes
them and counts the images written. Anything beyond that count was left by an interrupted run and is
overwritten.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from factory_core.storage import sweep_temporaries, write_json
from generators.base import FeatureMaps, FeatureMapSpec
from labelers.config import FeatureDtype
from labelers.ensemble.classifiers import Tables, channel_last, group_by_size

INDEX_FILE = "features.index"  # JSON
DTYPES: dict[str, torch.dtype] = {"float16": torch.float16, "float32": torch.float32}


class StoreIndex(BaseModel):
    """The content of `features.index`: of `images` images, `written` are on disk.

    `source` identifies images and weights: features from a different source are never used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: tuple[FeatureMapSpec, ...]
    images: int
    dtype: FeatureDtype
    source: str = ""
    written: int = 0


class FeatureTables(Protocol):
    """Features of N images, arranged as training reads them."""

    @property
    def spec(self) -> tuple[FeatureMapSpec, ...]:
        """Names and native shapes of the maps, in order."""
        ...

    @property
    def batch_size(self) -> int:
        """Number of images N."""
        ...

    def tables(self) -> Tables:
        """All features `[N, h·w, channels]` by native size, as `channel_last` arranges them."""
        ...


class FeatureStore:
    """The features of N images in `folder`, appended batch by batch, then memory-mapped.

    Reuses existing features of the same description and `source` (any text that identifies images
    and generator), else starts over. Raises OSError.
    """

    def __init__(
        self,
        folder: Path,
        spec: Sequence[FeatureMapSpec],
        images: int,
        dtype: FeatureDtype,
        source: str = "",
    ):
        self.folder = folder
        self.groups = group_by_size(spec)
        self.index = StoreIndex(spec=tuple(spec), images=images, dtype=dtype, source=source)
        folder.mkdir(parents=True, exist_ok=True)
        sweep_temporaries(folder)
        found = _read_index(folder / INDEX_FILE)
        same = found is not None and found.model_copy(update={"written": 0}) == self.index
        if found is not None and same and self._holds(found.written):
            self.index = found
        for native in self.groups:
            with self._file(native).open("ab") as file:
                file.truncate(self.written * self._row_bytes(native))

    @property
    def spec(self) -> tuple[FeatureMapSpec, ...]:
        """Names and native shapes of the maps, in order."""
        return self.index.spec

    @property
    def batch_size(self) -> int:
        """Number of images N, written or not."""
        return self.index.images

    @property
    def written(self) -> int:
        """Number of images whose features are on disk."""
        return self.index.written

    def append(self, features: FeatureMaps) -> None:
        """Add the features of the next images; they are on disk when this returns.

        Raises ValueError for values beyond the range of the store's dtype, OSError if the disk is
        full.
        """
        assert features.spec == self.spec
        dtype = DTYPES[self.index.dtype]
        for native, table in channel_last(features, self.groups).items():
            rows = table.to("cpu", dtype)
            if not rows.isfinite().all():
                raise ValueError(
                    f"feature maps of {native[0]}x{native[1]} reach {float(table.abs().max()):.3g},"
                    f" beyond {self.index.dtype}: --set labeler.feature_dtype=float32"
                )
            with self._file(native).open("ab") as file:
                file.write(rows.numpy().data)
                file.flush()
                os.fsync(file.fileno())
        written = self.written + features.batch_size
        self.index = self.index.model_copy(update={"written": written})
        write_json(self.folder / INDEX_FILE, self.index.model_dump(mode="json"))

    def tables(self) -> Tables:
        """All features `[N, h·w, channels]` by native size, memory-mapped, in the store's dtype."""
        assert self.written == self.batch_size
        dtype = DTYPES[self.index.dtype]
        tables = {}
        for native, maps in self.groups.items():
            shape = (self.batch_size, native[0] * native[1], sum(m.channels for m in maps))
            name = str(self._file(native))
            tables[native] = torch.from_file(name, size=math.prod(shape), dtype=dtype).view(shape)
        return tables

    def features(self, image: int) -> FeatureMaps:
        """The maps of one image, `[1, C_l, h_l, w_l]` in the store's dtype and order."""
        found: dict[str, torch.Tensor] = {}
        for native, table in self.tables().items():
            maps = self.groups[native]
            rows = table[image].T.unflatten(1, native)
            parts = rows.split([m.channels for m in maps])
            found |= {m.name: part[None] for m, part in zip(maps, parts, strict=True)}
        return FeatureMaps({m.name: found[m.name] for m in self.spec})

    def delete(self) -> None:
        """Remove the files of the store, and its folder unless it holds other files."""
        for path in [self.folder / INDEX_FILE, *map(self._file, self.groups)]:
            path.unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _holds(self, images: int) -> bool:
        """Whether every file is long enough for `images` images."""
        files = {native: self._file(native) for native in self.groups}
        return all(
            file.exists() and file.stat().st_size >= images * self._row_bytes(native)
            for native, file in files.items()
        )

    def _file(self, native: tuple[int, int]) -> Path:
        return self.folder / f"{native[0]}x{native[1]}.features"

    def _row_bytes(self, native: tuple[int, int]) -> int:
        channels = sum(m.channels for m in self.groups[native])
        return native[0] * native[1] * channels * DTYPES[self.index.dtype].itemsize


def store_bytes(spec: Sequence[FeatureMapSpec], images: int, dtype: FeatureDtype) -> int:
    """Bytes that the features of `images` images take on disk."""
    return images * DTYPES[dtype].itemsize * sum(m.channels * m.height * m.width for m in spec)


def _read_index(path: Path) -> StoreIndex | None:
    try:
        return StoreIndex.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
