"""Representations of pixels to compare: the generator's, those of encoders, and baselines."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from factory.analysis.features import FeaturePool
from factory.analysis.sources import cell_name
from factory.analysis.study import Study
from factory.annotation.samples import load_generator
from factory.recipe import generator_recipe
from factory_core.images import wxh
from generators.base import Diffusing, Encoder, FeatureMaps, FeatureMapSpec
from labelers.labeler import Labeler

PIXELS, RANDOM = "pixels", "random-weights"
RANDOM_SEED = 0
PIXELS_BATCH = 64
NO_ENCODERS = (
    "No encoders were given: add --encoder NAME=WEIGHTS, once for each, to compare with them."
)


@dataclass(frozen=True)
class Representation:
    """A named encoder, and its features of the annotated images."""

    name: str
    encoder: Encoder
    pool: FeaturePool

    @property
    def variant(self) -> str:
        """The name of its cells."""
        return cell_name(self.name, features_digest(self.encoder))

    @property
    def maps(self) -> list[str]:
        """Names of its maps."""
        return [m.name for m in self.encoder.feature_spec]

    @property
    def channels(self) -> int:
        """Length of the vector of a pixel."""
        return sum(m.channels for m in self.encoder.feature_spec)

    def compute(self, study: Study) -> None:
        """Encode the annotated images, unless that is done."""
        self.pool.compute(self.maps, study.console)

    def fit(self, study: Study, split: int) -> Labeler:
        """A labeler on these features, trained on a split's training images."""
        found = study.split(split)
        return study.fit(self.maps, found.train, found.seed, pool=self.pool)


def representations(study: Study, baselines: Sequence[str] = ()) -> list[Representation]:
    """The generator, every encoder that was given, and the baselines asked for.

    A diffusion model comes first, because the paper's findings are about it. Raises ValueError or
    OSError for an encoder that cannot be loaded, or works at another size.
    """
    found = [Representation(generator_name(study), study.generator, study.pool)]
    encoders: dict[str, Encoder] = {
        name: load_encoder(weights, study.generator.image_size, str(study.device))
        for name, weights in study.sources.encoders.items()
    }
    if RANDOM in baselines and (shuffled := random_weights(study.generator)) is not None:
        encoders[RANDOM] = shuffled
    if PIXELS in baselines:
        encoders[PIXELS] = Pixels(study.generator.image_size)
    for name, encoder in encoders.items():
        folder = study.folder / cell_name(name, features_digest(encoder))
        dtype = study.settings.labeler.feature_dtype
        found.append(
            Representation(name, encoder, FeaturePool(folder, study.pool.images, encoder, dtype))
        )
    return sorted(found, key=lambda r: not isinstance(r.encoder, Diffusing))


def notes_on(found: Sequence[Representation], study: Study) -> list[str]:
    """Lines for the user on what the comparison lacks."""
    notes = []
    if not isinstance(found[0].encoder, Diffusing):
        notes.append(f"No diffusion model was given: {found[0].name} takes its place.")
    if not study.sources.encoders:
        notes.append(NO_ENCODERS)
    return notes


def generator_name(study: Study) -> str:
    """The kind of the generator, such as `ddpm`."""
    return str(study.info.config.get("kind", "generator"))


def features_digest(encoder: Encoder) -> str:
    """sha256 of what decides the features: weights, maps, and other settings."""
    maps = [m.name for m in encoder.feature_spec]
    content = json.dumps([encoder.digest, maps, dict(encoder.feature_settings)], default=str)
    return hashlib.sha256(content.encode()).hexdigest()


@lru_cache(maxsize=16)
def load_encoder(weights: str, size: tuple[int, int], device: str) -> Encoder:
    """The generator or encoder for images of `size`, once per process.

    `weights` are its own, or a recipe (.yaml) whose generator section names them, with settings.
    Raises ValueError or OSError as `load_generator`, and ValueError for another size.
    """
    is_recipe = weights.endswith((".yaml", ".yml"))
    recipe = (
        generator_recipe(weights, None, []) if is_recipe else generator_recipe(None, weights, [])
    )
    encoder, _ = load_generator("--encoder", recipe.generator, device)
    if tuple(encoder.image_size) != size:
        raise ValueError(
            f"--encoder {weights} works on images of {wxh(encoder.image_size)}, the generator on "
            f"{wxh(size)}: give one of that size"
        )
    return encoder


@dataclass(frozen=True)
class Pixels:
    """A baseline: the colours of the pixel itself, as one map of three channels, -1 to 1."""

    image_size: tuple[int, int]
    batch_size: int = PIXELS_BATCH
    digest: str = "0" * 64
    feature_settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def feature_spec(self) -> tuple[FeatureMapSpec, ...]:
        """One map, as large as the image."""
        return (FeatureMapSpec("rgb", 3, *self.image_size),)

    def encode(self, images: torch.Tensor, indices: Sequence[int] | None = None) -> FeatureMaps:
        """The images uint8 `[N, 3, H, W]`, scaled."""
        return FeatureMaps({"rgb": images.float() / 127.5 - 1})


def random_weights(generator: Encoder) -> Encoder | None:
    """A baseline: the same diffusion model with random weights; None for other generators."""
    from generators.ddpm.model import DDPMGenerator

    if type(generator) is not DDPMGenerator:  # its subclasses walk other networks
        return None
    network = copy.copy(generator.network)
    network.unet = copy.deepcopy(generator.network.unet)
    network.net = network.unet
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        for module in network.unet.modules():
            if isinstance(module, nn.Conv2d | nn.Linear | nn.GroupNorm):
                module.reset_parameters()
    other = copy.copy(generator)
    other.network = network
    other.digest = f"{RANDOM_SEED:08d}{generator.digest[8:]}"
    return other
