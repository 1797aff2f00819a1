"""Features of a set of images, each map computed once and kept on disk.

FOLDER/t50.b5/   one `FeatureStore` per map, here of block 5 at timestep 50

All maps of one timestep come from one pass through the network. A labeler reads any set of maps.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import torch
from rich.console import Console

from factory.annotation.encoding import encode_batch
from factory.terminal.progress import ProgressLine
from generators.base import Diffusing, Encoder, FeatureMaps, FeatureMapSpec
from generators.ddpm.model import map_place
from labelers.config import FeatureDtype
from labelers.ensemble.classifiers import Tables, group_by_size
from labelers.training.feature_store import FeatureStore

Encode = Callable[[range], FeatureMaps]


class FeaturePool:
    """Images uint8 `[N, 3, H, W]` and their features by `generator`, in `folder`.

    `indices` seed noise that is fresh per image. `encode` gives the maps of some images where
    `generator.encode` does not: those of samples of a GAN, which are made again.
    """

    def __init__(
        self,
        folder: Path,
        images: torch.Tensor,
        generator: Encoder,
        dtype: FeatureDtype = "float16",
        indices: Sequence[int] | None = None,
        encode: Encode | None = None,
    ):
        self.folder, self.images, self.generator, self.dtype = folder, images, generator, dtype
        self._indices = list(range(len(images)) if indices is None else indices)
        self._given_encode = encode
        self._stores: dict[str, FeatureStore] = {}
        self._specs: dict[str, FeatureMapSpec] = {m.name: m for m in generator.feature_spec}

    def __len__(self) -> int:
        return len(self.images)

    def first(self, images: int, folder: Path) -> FeaturePool:
        """The pool of the first few images, in another folder."""
        indices = self._indices[:images]
        about = (self.generator, self.dtype, indices, self._given_encode)
        return FeaturePool(folder, self.images[:images], *about)

    def compute(self, names: Sequence[str], console: Console) -> None:
        """Write the maps that are missing; resumes. Raises as `FeatureStore.append`."""
        stores = {name: self._store(name) for name in names}
        missing = [name for name, store in stores.items() if store.written < len(self)]
        if not missing:
            return
        passes = list(self._passes(missing))
        with ProgressLine(
            "encoding", "images", len(passes) * len(self), console, self.folder
        ) as line:
            for number, (wanted, generator, encode) in enumerate(passes):
                batch = encode_batch(generator.feature_spec, generator.batch_size)
                start = min(stores[name].written for name in wanted)
                while start < len(self):
                    # Maps of a pass that was interrupted may differ by one batch.
                    ends = [stores[name].written for name in wanted if stores[name].written > start]
                    rows = range(start, min([start + batch, len(self), *ends]))
                    maps = encode(rows)
                    for name in wanted:
                        if stores[name].written == start:
                            stores[name].append(FeatureMaps({name: maps[name].float()}))
                    start = rows.stop
                    line.update(number * len(self) + start)

    def tables(self, names: Sequence[str]) -> JoinedTables:
        """The features of all images, for training; maps must have been computed."""
        return JoinedTables([self._store(name) for name in names])

    def maps(self, names: Sequence[str], row: int) -> FeatureMaps:
        """The features of one image, float32 `[1, C_l, h_l, w_l]`, for prediction."""
        stores = [self._store(name) for name in names]
        found: dict[str, torch.Tensor] = {}
        for store in stores:
            found |= store.features(row)
        return FeatureMaps(found).to(torch.float32)

    def spec(self, names: Sequence[str]) -> tuple[FeatureMapSpec, ...]:
        """Names and native shapes of maps, computed or not."""
        for name in names:
            if name not in self._specs:
                place = map_place(name)
                assert place is not None
                assert isinstance(self.generator, Diffusing)
                t, block = place
                [spec] = self.generator.recording([block], [t]).feature_spec[:1]
                self._specs[name] = spec
        return tuple(self._specs[name] for name in names)

    def _passes(self, names: Sequence[str]) -> Iterator[tuple[list[str], Encoder, Encode]]:
        """What to compute at a time: names, the generator that records them, and how."""
        generator, rest = self.generator, list(names)
        if isinstance(generator, Diffusing):
            places = {name: place for name in names if (place := map_place(name)) is not None}
            for t in sorted({t for t, _ in places.values()}):
                wanted = {block: name for name, (at, block) in places.items() if at == t}
                recording = generator.recording(sorted(wanted), [t])
                yield list(wanted.values()), recording, self._encoding(recording)
            rest = [name for name in names if name not in places]
        if rest:
            yield rest, generator, self._given_encode or self._encoding(generator)

    def _encoding(self, generator: Encoder) -> Encode:
        def encode(rows: range) -> FeatureMaps:
            indices = self._indices[rows.start : rows.stop]
            return generator.encode(self.images[rows.start : rows.stop], indices)

        return encode

    def _store(self, name: str) -> FeatureStore:
        if name not in self._stores:
            spec, folder = self.spec([name]), self.folder / name
            self._stores[name] = FeatureStore(folder, spec, len(self), self.dtype, self._source)
        return self._stores[name]

    @cached_property
    def _source(self) -> str:
        """What the features depend on, blocks and timesteps apart."""
        settings = json.dumps(dict(self.generator.feature_settings), sort_keys=True, default=str)
        content = f"{self.generator.digest} {settings} {self._indices}"
        return hashlib.sha256(content.encode() + self.images.numpy().tobytes()).hexdigest()


class JoinedTables:
    """Several maps as one input of a training (see `FeatureTables`).

    Maps of one native size are joined in memory; a map that is alone stays memory-mapped.
    """

    def __init__(self, stores: Sequence[FeatureStore]):
        self._stores = stores

    @property
    def spec(self) -> tuple[FeatureMapSpec, ...]:
        """Names and native shapes of the maps, in order."""
        return tuple(m for store in self._stores for m in store.spec)

    @property
    def batch_size(self) -> int:
        """Number of images N."""
        return self._stores[0].batch_size

    def tables(self) -> Tables:
        """All features `[N, h·w, channels]` by native size."""
        tables = {m.name: table for s in self._stores for m, table in _single(s)}
        groups = group_by_size(self.spec)
        return {
            size: tables[maps[0].name]
            if len(maps) == 1
            else torch.cat([tables[m.name] for m in maps], 2)
            for size, maps in groups.items()
        }


def _single(store: FeatureStore) -> Iterator[tuple[FeatureMapSpec, torch.Tensor]]:
    """The one map of a store, and its table."""
    return zip(store.spec, store.tables().values(), strict=True)
