"""Several encoders as one: the maps of all of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from generators.base import FeatureMaps, FeatureMapSpec
from generators.encoders.model import ImageEncoder


class Concatenated:
    """The maps of several encoders, named `NETWORK.MAP`, or `NETWORK2.MAP` of a second one."""

    def __init__(self, encoders: Sequence[ImageEncoder]):
        """Raises ValueError if their images differ in size."""
        first = encoders[0]
        for other in encoders[1:]:
            if other.image_size != first.image_size:
                raise ValueError(
                    f"found encoders of images of {first.image_size[0]} and "
                    f"{other.image_size[0]} pixels ({first.config.weights}, "
                    f"{other.config.weights}): give all the same image_size"
                )
        self.encoders, self.image_size = tuple(encoders), first.image_size
        self.device, self.dtype = first.device, first.dtype
        self.notes = tuple(dict.fromkeys(note for e in encoders for note in e.notes))
        counts: Counter[str] = Counter()
        names = []
        for encoder in encoders:
            counts[encoder.name] += 1
            count = counts[encoder.name]
            names.append(encoder.name if count == 1 else f"{encoder.name}{count}")
        self.names = tuple(names)

    @property
    def batch_size(self) -> int:
        """The largest number of images in a call."""
        return min(encoder.batch_size for encoder in self.encoders)

    @property
    def digest(self) -> str:
        """sha256 of the digests."""
        text = " ".join(encoder.digest for encoder in self.encoders)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def feature_settings(self) -> Mapping[str, Any]:
        """None, as of each."""
        return {}

    @property
    def feature_spec(self) -> tuple[FeatureMapSpec, ...]:
        """The maps of the first encoder, then those of the next."""
        return tuple(
            FeatureMapSpec(f"{name}.{m.name}", m.channels, m.height, m.width)
            for name, encoder in zip(self.names, self.encoders, strict=True)
            for m in encoder.feature_spec
        )

    def encode(self, images: Tensor, indices: Sequence[int] | None = None) -> FeatureMaps:
        """Features of one batch of images uint8 `[N, 3, H, W]`."""
        return FeatureMaps(
            {
                f"{name}.{key}": found
                for name, encoder in zip(self.names, self.encoders, strict=True)
                for key, found in encoder.encode(images).items()
            }
        )
