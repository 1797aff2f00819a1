"""Encoders give activations of images; generators are encoders that also make images.

Activations are at native size, and every sample has its own random stream.

Every other package uses generators through the types in this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import numpy as np
import torch

from factory_core.segmentation_unet import UNetDescription


def sample_seed(run_seed: int, index: int, stream: int = 0) -> int:
    """Seed of sample `index`: a pure function of the run's seed, never of rank, batch or order.

    `stream` separates independent uses of the same sample (0 the sampler, 1 the feature noise).
    """
    words = np.random.SeedSequence([run_seed, index, stream]).generate_state(2, np.uint32)
    return int(words[0]) << 31 ^ int(words[1])  # 63 bits: torch wants a non-negative int64


def sample_generators(
    run_seed: int, indices: Sequence[int], stream: int = 0
) -> list[torch.Generator]:
    """One CPU random generator per sample: noise depends on neither batch nor device."""
    return [torch.Generator().manual_seed(sample_seed(run_seed, i, stream)) for i in indices]


REGIONS_MAP = "regions"  # name of the masks `[N, K, H, W]`, Σ_k m_k = 1, of a factorized generator


@dataclass(frozen=True)
class FeatureMapSpec:
    """Name and native shape of one feature map: `channels` x `height` x `width`."""

    name: str
    channels: int
    height: int
    width: int


class FeatureMaps(Mapping[str, torch.Tensor]):
    """Ordered activations of a batch, name -> tensor `[N, C_l, h_l, w_l]` at native size.

    Nothing upsamples and concatenates them: labelers project each map first, because bilinear
    upsampling commutes with a linear layer.
    """

    def __init__(self, maps: Mapping[str, torch.Tensor]):
        sizes = {len(t) for t in maps.values()}
        if len(sizes) > 1:
            raise ValueError(f"feature maps of one batch have different lengths: {sorted(sizes)}")
        self._maps = dict(maps)

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._maps[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._maps)

    def __len__(self) -> int:
        return len(self._maps)

    @property
    def batch_size(self) -> int:
        """Number of samples N."""
        return len(next(iter(self._maps.values())))

    @property
    def spec(self) -> tuple[FeatureMapSpec, ...]:
        """Names and native shapes, in order."""
        return tuple(FeatureMapSpec(n, *t.shape[1:]) for n, t in self._maps.items())

    def pooled(self) -> np.ndarray:
        """One vector per sample: the spatial mean of every map, float64 `[N, D]`, D = ΣC_l."""
        means = [t.detach().float().mean(dim=(2, 3)).cpu().double() for t in self.values()]
        return torch.cat(means, dim=1).numpy()

    def to(self, *args, **kwargs) -> FeatureMaps:
        """Move or cast every map (arguments as `torch.Tensor.to`)."""
        return FeatureMaps({n: t.to(*args, **kwargs) for n, t in self._maps.items()})

    def select(self, rows: slice) -> FeatureMaps:
        """The samples `rows` of the batch."""
        return FeatureMaps({n: t[rows] for n, t in self._maps.items()})

    @staticmethod
    def concat(batches: Sequence[FeatureMaps]) -> FeatureMaps:
        """Join batches of the same spec along N; a single one is returned without a copy."""
        if len(batches) == 1:
            return batches[0]
        return FeatureMaps({n: torch.cat([b[n] for b in batches]) for n in batches[0]})


@dataclass(frozen=True)
class Projection:
    """The images of a generator that are nearest to given ones.

    `latents` `[N, ...]` are in its latent space, `images` uint8 `[N, 3, H, W]` are made from them,
    and `psnr` `[N]` compares these with the given images, in dB.
    """

    latents: torch.Tensor
    images: torch.Tensor
    psnr: torch.Tensor


Items = TypeVar("Items", bound=Sequence)


def batches(items: Items, size: int) -> Iterator[Items]:
    """`items` in order, `size` at a time; the last batch may be smaller."""
    for start in range(0, len(items), size):
        yield cast(Items, items[start : start + size])


def check_batch(found: int, batch_size: int) -> None:
    """Raise ValueError unless `found` items are a batch of 1 to `batch_size`."""
    if not 0 < found <= batch_size:
        raise ValueError(
            f"found a batch of {found} images, expected 1 to {batch_size} (generator.batch_size)"
        )


@runtime_checkable
class Encoder(Protocol):
    """A source of the activations behind images.

    A call takes one batch, of at most `batch_size` images, and raises ValueError if there are more:
    the caller splits its images, see `batches`. Results stay on the device that computed them.
    """

    @property
    def batch_size(self) -> int:
        """The largest number of images in a call."""
        ...

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        ...

    @property
    def digest(self) -> str:
        """sha256 of the weights behind the features: the identity a labeler is bound to."""
        ...

    @property
    def feature_spec(self) -> tuple[FeatureMapSpec, ...]:
        """The maps that `encode` returns."""
        ...

    @property
    def feature_settings(self) -> Mapping[str, Any]:
        """Other settings that decide the features: dotted keys of a recipe's `generator`."""
        ...

    def encode(self, images: torch.Tensor, indices: Sequence[int] | None = None) -> FeatureMaps:
        """Features of one batch of images uint8 `[N, 3, H, W]`, on any device.

        `indices` seed the noise that is fresh per image.
        """
        ...


@runtime_checkable
class Generator(Encoder, Protocol):
    """An encoder that also makes images, with the activations behind them."""

    def sample(self, indices: Sequence[int]) -> tuple[torch.Tensor, FeatureMaps]:
        """Images uint8 `[N, 3, H, W]` and their features; sample i depends on i alone.

        Takes one batch. In low precision, a small batch may be padded internally.
        """
        ...

    def sample_images(self, indices: Sequence[int]) -> torch.Tensor:
        """The images of `sample`, without features: faster where these take passes of their own."""
        ...


@runtime_checkable
class Projecting(Protocol):
    """A generator that can only encode real images by searching for them among its own."""

    def project(
        self, images: torch.Tensor, progress: Callable[[float], None] | None = None
    ) -> Projection:
        """Search for one batch of images uint8 `[N, 3, H, W]`.

        `progress` is called with the number that are done, 0 to N.
        """
        ...

    def features_at(self, latents: torch.Tensor) -> FeatureMaps:
        """The features of one batch of latents that `project` found; `encode` does both."""
        ...


@runtime_checkable
class Finetunable(Protocol):
    """A generator whose network can be fine-tuned to segment images."""

    def describe_unet(self) -> UNetDescription:
        """Its U-Net: config, and copies of the weights on the CPU in float32.

        Raises ValueError if the config alone cannot rebuild the network.
        """
        ...


@runtime_checkable
class Diffusing(Protocol):
    """A generator whose features are activations of decoder blocks at noise levels."""

    @property
    def block_count(self) -> int:
        """Number of decoder blocks, numbered deep to shallow from 0."""
        ...

    @property
    def timestep_count(self) -> int:
        """Number of timesteps of the noise schedule; 0 is the least noise."""
        ...

    def recording(self, blocks: Sequence[int], timesteps: Sequence[int]) -> Generator:
        """The same network, without a copy, whose features are these, re-noised.

        Raises ValueError for blocks or timesteps that it does not have.
        """
        ...

    def with_noise(self, noise: str) -> Generator:
        """The same network, without a copy, whose images are re-noised by another policy.

        Policies are those of `generators.ddpm.config.FeatureConfig`.
        """
        ...
