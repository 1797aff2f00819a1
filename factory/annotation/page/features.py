"""The generator's features of the pictures: computed once, then kept in the hidden folder."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import torch

from factory.annotation.page.folder import Folder
from factory_core.dataset import canonical_json
from factory_core.images import image_tensor
from generators.base import Encoder, FeatureMaps, FeatureMapSpec, Projecting
from labelers.config import FeatureDtype
from labelers.ensemble.classifiers import Tables, channel_last, group_by_size
from labelers.training.feature_store import DTYPES, FeatureStore, store_bytes

DTYPE: FeatureDtype = "float16"
MAX_TABLE_BYTES = 2 * 2**30  # of the images that proposals are learnt from, in memory


class ImageFeatures:
    """The features of each picture of `folder`, in files named after its pixels.

    So a picture that is added, renamed or replaced costs nothing but its own features. Raises
    ValueError for a generator that would have to search for each picture.
    """

    def __init__(self, folder: Folder, generator: Encoder):
        if isinstance(generator, Projecting):
            raise ValueError(
                "proposals need a diffusion model: a GAN has to search for each picture; give "
                "another --generator, or none"
            )
        self.folder, self.generator = folder, generator
        self.spec: tuple[FeatureMapSpec, ...] = tuple(generator.feature_spec)
        settings = [generator.digest, dict(generator.feature_settings)]
        self._source = hashlib.sha256(canonical_json(settings)).hexdigest()
        self._lock = threading.Lock()
        self._stores: dict[str, FeatureStore] = {}

    @property
    def done(self) -> set[str]:
        """Names of the pictures whose features are there."""
        with self._lock:
            return set(self._stores)

    def encode(self, name: str) -> None:
        """Compute the features of a picture, unless they are there; raises as `Folder.image`."""
        image = self.image(name)
        pixels = hashlib.sha256(image.numpy().tobytes()).hexdigest()[:16]
        place: Path = self.folder.hidden / "features" / f"{self._source[:16]}-{pixels}"
        store = FeatureStore(place, self.spec, 1, DTYPE, f"{self._source} {pixels}")
        if not store.written:
            store.append(self.generator.encode(image, [0]))
        with self._lock:
            self._stores[name] = store

    def image(self, name: str) -> torch.Tensor:
        """A picture at the generator's size, uint8 `[1, 3, H, W]`; raises as `Folder.image`."""
        return image_tensor(self.folder.image(name), self.generator.image_size)[None]

    def maps(self, name: str) -> FeatureMaps:
        """The features of a picture, float32; raises KeyError if they are not there."""
        with self._lock:
            store = self._stores[name]
        return store.features(0).to(torch.float32)


class DrawnFeatures:
    """The features of the pictures that something is drawn on, side by side in memory.

    Grows as pictures are drawn on; `tables` is what `fit` reads, without a copy. At most `most`
    pictures fit: the first ones.
    """

    def __init__(self, features: ImageFeatures, most: int | None = None):
        self._features = features
        self.spec = features.spec
        self._groups = group_by_size(self.spec)
        self.most = most or max(1, MAX_TABLE_BYTES // store_bytes(self.spec, 1, DTYPE))
        self.names: list[str] = []
        self._tables: Tables = {}

    @property
    def batch_size(self) -> int:
        """Number of pictures."""
        return len(self.names)

    def tables(self) -> Tables:
        """Features `[N, h·w, channels]` by native size, float16, in the order of `names`."""
        return {size: table[: len(self.names)] for size, table in self._tables.items()}

    def add(self, name: str) -> None:
        """Add a picture whose features are there, unless it is here or there is no more room."""
        if name in self.names or len(self.names) >= self.most:
            return
        maps, row = self._features.maps(name), len(self.names)
        for size, table in channel_last(maps, self._groups).items():
            kept = self._tables.get(size)
            if kept is None or len(kept) <= row:
                grown = torch.empty(max(8, 2 * row), *table.shape[1:], dtype=DTYPES[DTYPE])
                if kept is not None:
                    grown[:row] = kept[:row]
                self._tables[size] = kept = grown
            kept[row] = table[0]
        self.names.append(name)
