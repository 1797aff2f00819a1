"""Images by one network, features by another: a generator with an encoder's features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from generators.base import Encoder, FeatureMaps, FeatureMapSpec, Generator, batches


class Paired:
    """Samples images with `maker`, and describes them, and photographs, with `encoder`.

    A labeler belongs to the encoder: its digest is that of the pair. So one that was trained on
    photographs with the encoder alone labels the samples too.
    """

    def __init__(self, maker: Generator, encoder: Encoder):
        """Raises ValueError if their images differ in size."""
        if maker.image_size != encoder.image_size:
            raise ValueError(
                f"the generator makes images of {maker.image_size}, but the encoder reads "
                f"{encoder.image_size} pixels: leave out image_size of generator.encoders"
            )
        self.maker, self.encoder = maker, encoder
        self.device = getattr(maker, "device", torch.device("cpu"))
        self.dtype = getattr(maker, "dtype", torch.float32)
        self.notes: tuple[str, ...] = getattr(encoder, "notes", ())

    @property
    def batch_size(self) -> int:
        """The largest number of images in a call."""
        return self.maker.batch_size

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.maker.image_size

    @property
    def digest(self) -> str:
        """That of the encoder, to which a labeler is bound."""
        return self.encoder.digest

    @property
    def feature_spec(self) -> tuple[FeatureMapSpec, ...]:
        """The maps of the encoder."""
        return self.encoder.feature_spec

    @property
    def feature_settings(self) -> Mapping[str, Any]:
        """Those of the encoder."""
        return self.encoder.feature_settings

    def sample(self, indices: Sequence[int]) -> tuple[Tensor, FeatureMaps]:
        """Images uint8 `[N, 3, H, W]` of the generator, and the encoder's features of them."""
        images = self.maker.sample_images(indices)
        return images, self.encode(images)

    def sample_images(self, indices: Sequence[int]) -> Tensor:
        """The images of `sample`."""
        return self.maker.sample_images(indices)

    def encode(self, images: Tensor, indices: Sequence[int] | None = None) -> FeatureMaps:
        """The encoder's features of images uint8 `[N, 3, H, W]`, in batches of its own size."""
        parts = batches(range(len(images)), self.encoder.batch_size)
        return FeatureMaps.concat([self.encoder.encode(images[p.start : p.stop]) for p in parts])


def maker_of(generator: Generator) -> Generator:
    """What makes the images of `generator`: itself, unless it is paired with an encoder."""
    return generator.maker if isinstance(generator, Paired) else generator
