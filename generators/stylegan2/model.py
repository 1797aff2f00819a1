"""A StyleGAN2 network as a `Generator`: sampled images, and the activations of the same pass."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from factory_core.device import pick_device, pick_dtype, send
from generators.base import (
    FeatureMaps,
    FeatureMapSpec,
    Projection,
    batches,
    check_batch,
    sample_generators,
)
from generators.colours import grey_digest, makes_grey, to_grey
from generators.stylegan2 import storage
from generators.stylegan2.config import Noise, StyleGAN2Config
from generators.stylegan2.network import CONST, StyleGAN2
from generators.stylegan2.perceptual import PerceptualDistance, find_weights
from generators.stylegan2.pickles import read_generator
from generators.stylegan2.projection import Projector, psnr

START_STREAM = 2  # of the random latents that projections start from, see `sample_seed`


def to_uint8(x: Tensor) -> Tensor:
    """[-1, 1] -> uint8 0..255, as StyleGAN2-ADA does it."""
    return (x * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def from_uint8(images: Tensor) -> Tensor:
    """0..255 -> [-1, 1]: the middle of the values that `to_uint8` maps to that level."""
    return images.float() / 127.5 - 1


def load_network(weights: str) -> StyleGAN2:
    """Read a folder of ours or a StyleGAN2-ADA pickle.

    Raises FileNotFoundError if nothing is there, ValueError if it is damaged or not such a network.
    """
    path = Path(weights)
    return read_generator(path) if path.is_file() else storage.load(path)


def weights_digest(network: StyleGAN2) -> str:
    """sha256 over the shape of the network and its tensors in name order."""
    sha = hashlib.sha256(network.config.model_dump_json().encode())
    for name, tensor in sorted(network.state_dict().items()):
        sha.update(name.encode())
        sha.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy())
    return sha.hexdigest()


class StyleGAN2Generator:
    """Samples images and records the outputs of the convolutions while they are made."""

    def __init__(
        self,
        network: StyleGAN2,
        config: StyleGAN2Config,
        device: str = "auto",
        is_grey: bool = False,
    ):
        """`config` is the recipe's section. Takes over `network`, casting and moving it in place.

        `is_grey` averages the channels of its images, see `generators.colours`.
        Raises ValueError for layers or classes that the network does not have.
        """
        known, asked = network.synthesis.layers, config.features.layers
        if unknown := [name for name in asked or () if name not in known]:
            raise ValueError(
                f"layers {unknown} do not exist: this network has {', '.join(known)}; set "
                f"generator.features.layers"
            )
        _check_class(config, network.config.c_dim)
        self.config = config
        self.is_grey, digest = is_grey, weights_digest(network)
        self.digest = grey_digest(digest) if is_grey else digest
        self.device = pick_device(device)
        self.dtype = self._pick_dtype(network)
        self.network = network.to(self.device).requires_grad_(False).eval()
        self.network.synthesis.freeze(self.dtype)
        self.image_size = (network.config.resolution, network.config.resolution)
        self._keep = {*(asked or known), *([CONST] if config.features.constant else [])}

    @classmethod
    def load(cls, config: StyleGAN2Config, device: str = "auto") -> StyleGAN2Generator:
        """Read the weights that `config` names (see `load_network` for formats and errors)."""
        return cls(load_network(config.weights), config, device, makes_grey(config.weights))

    def _pick_dtype(self, network: StyleGAN2) -> torch.dtype:
        if (
            self.config.precision == "auto"
            and self.device.type == "cuda"
            and network.config.num_fp16_res
        ):
            return torch.float16  # as fast as bfloat16, more exact, and what it was trained in
        return pick_dtype(self.config.precision, self.device)

    @property
    def batch_size(self) -> int:
        """The largest number of images in a call."""
        return self.config.batch_size

    def latents(self, indices: Sequence[int]) -> Tensor:
        """ws `[N, num_ws, w_dim]` of the sample `indices`, truncated."""
        return self._draw(sample_generators(self.config.seed, indices))

    def _draw(self, rngs: Sequence[torch.Generator]) -> Tensor:
        """ws from the streams of the samples, truncated."""
        config = self.config
        return self.network.mapping.broadcast(
            self._w(rngs), config.truncation, config.truncation_cutoff
        )

    def _w(self, rngs: Sequence[torch.Generator]) -> Tensor:
        """w `[N, w_dim]` from random streams: z, then the class if it is random."""
        config, shape = self.config, self.network.config
        z = send(torch.stack([torch.randn(shape.z_dim, generator=g) for g in rngs]), self.device)
        c = None
        if shape.c_dim:
            if config.class_id == "random":
                ids = [int(torch.randint(shape.c_dim, (), generator=g)) for g in rngs]
            else:
                assert config.class_id is not None  # by _check_class
                ids = [config.class_id] * len(rngs)
            c = send(torch.nn.functional.one_hot(torch.tensor(ids), shape.c_dim), self.device)
        return self.network.mapping(z, c)

    @torch.inference_mode()
    def sample(self, indices: Sequence[int]) -> tuple[Tensor, FeatureMaps]:
        """Images uint8 `[N, 3, H, W]` and features of one batch of sample `indices`, in one pass.

        Raises ValueError for more than `batch_size` indices, or images that are not finite.
        """
        check_batch(len(indices), self.batch_size)
        rngs = sample_generators(self.config.seed, indices)
        images, kept = self.network.synthesis(
            self._draw(rngs), self.config.noise, rngs, self.dtype, self._keep
        )
        if not images.isfinite().all():
            raise ValueError(
                f"sampling gave values that are not finite: the weights of {self.config.weights} "
                f"are broken, or overflow in {self.dtype}; try generator.precision=float32"
            )
        return self._finish(images), FeatureMaps(kept)

    def sample_images(self, indices: Sequence[int]) -> Tensor:
        """The images of `sample`; features are a by-product of its pass."""
        return self.sample(indices)[0]

    def encode(self, images: Tensor, indices: Sequence[int] | None = None) -> FeatureMaps:
        """Features of one batch of images uint8 `[N, 3, H, W]`, from the nearest that it can make.

        Nothing is random, so `indices` do not matter. Raises ValueError as `project`.
        """
        return self.features_at(self.project(images).latents)

    def project(
        self, images: Tensor, progress: Callable[[float], None] | None = None
    ) -> Projection:
        """Latents in W+ `[N, num_ws, w_dim]` of one batch of images uint8 `[N, 3, H, W]`.

        They are searched for `projection.batch_size` at a time, see `projection`. Raises ValueError
        for images of a different size or type, more than `batch_size` of them, or if the
        optimisation diverges.
        """
        self._check_images(images)
        images, found = send(images, self.device), []
        for rows in batches(range(len(images)), self.config.projection.batch_size):

            def report(step: int, rows: range = rows) -> None:
                if progress is not None:
                    progress(rows.start + len(rows) * step / self.config.projection.steps)

            found.append(self._search(images[rows.start : rows.stop], report))
        latents = torch.cat(found)
        made, _ = self._synthesise(latents)
        return Projection(latents, made, psnr(made, images))

    def _search(self, images: Tensor, progress: Callable[[int], None]) -> Tensor:
        """Latents of at most `projection.batch_size` images; `progress` is called with steps done.

        Kernels are chosen by shape, and hundreds of steps amplify their rounding: the shape is
        always the same, so that an image's latents do not depend on its batch.
        """
        missing = self.config.projection.batch_size - len(images)
        filled = torch.cat([images, images[-1:].expand(missing, -1, -1, -1)])
        # The search needs gradients, which callers may have switched off.
        with torch.inference_mode(False), torch.enable_grad():
            return self._projector(from_uint8(filled), progress)[: len(images)]

    def features_at(self, latents: Tensor) -> FeatureMaps:
        """Features of one batch of ws `[N, num_ws, w_dim]`, which are not truncated."""
        check_batch(len(latents), self.batch_size)
        return self._synthesise(latents)[1]

    @cached_property
    def _projector(self) -> Projector:
        """Created on first use, because it synthesises images to start from."""
        config = self.config.projection
        weights = find_weights(config.perceptual)
        distance = None if weights is None else PerceptualDistance.load(weights).to(self.device)
        with torch.no_grad():
            w = self._w(sample_generators(0, range(config.candidates), stream=START_STREAM))
        return Projector(
            self.network,
            config,
            w,
            self._fixed_noise,
            # The range of float16 is too small for gradients.
            torch.float32 if self.dtype is torch.float16 else self.dtype,
            distance,
        )

    @property
    def _fixed_noise(self) -> Noise:
        """The noise of projected images: never random, even if samples have random noise."""
        return "none" if self.config.noise == "none" else "const"

    @torch.inference_mode()
    def _synthesise(self, ws: Tensor) -> tuple[Tensor, FeatureMaps]:
        """Images uint8 and features of projected ws."""
        images, kept = self.network.synthesis(
            ws, self._fixed_noise, dtype=self.dtype, keep=self._keep
        )
        if not images.isfinite().all():
            raise ValueError(
                "projecting gave images that are not finite: the weights of "
                f"{self.config.weights} are broken, or generator.projection.lr is too large: "
                f"{self.config.projection.lr}"
            )
        return self._finish(images), FeatureMaps(kept)

    def _finish(self, images: Tensor) -> Tensor:
        """uint8 from the network's output."""
        return to_uint8(to_grey(images) if self.is_grey else images)

    def _check_images(self, images: Tensor) -> None:
        height, width = self.image_size
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != (3, height, width):
            raise ValueError(
                f"images are {images.dtype} {list(images.shape)}, expected uint8 "
                f"[N, 3, {height}, {width}]"
            )
        check_batch(len(images), self.batch_size)

    @property
    def feature_settings(self) -> Mapping[str, Any]:
        """How latents are drawn, or found for real images, and with which noise."""
        drawn = self.config.model_dump(
            include={"truncation", "truncation_cutoff", "noise", "class_id"}
        )
        found = self.config.projection.model_dump()
        return drawn | {f"projection.{key}": value for key, value in found.items()}

    @cached_property
    def feature_spec(self) -> tuple[FeatureMapSpec, ...]:
        """Names and native shapes of the maps, found by sampling one image."""
        return self.sample([0])[1].spec


def _check_class(config: StyleGAN2Config, classes: int) -> None:
    """Raise ValueError unless `class_id` is set if, and only if, the network has classes."""
    class_id = config.class_id
    if not classes and class_id is not None:
        raise ValueError(f"generator.class_id is {class_id}, but the network has no classes")
    if classes and (class_id is None or (class_id != "random" and class_id >= classes)):
        raise ValueError(
            f"generator.class_id is {class_id}, expected 0 to {classes - 1}, or random: the "
            f"network has {classes} classes"
        )
