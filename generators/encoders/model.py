"""An `Encoder` over a network that only describes images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.transforms.v2 import functional as TF

from factory_core.device import pick_device, pick_dtype, send
from generators.base import FeatureMaps, FeatureMapSpec, check_batch
from generators.encoders.config import EncoderConfig, NetworkName
from generators.encoders.licences import licence_note
from generators.encoders.loading import load_network
from generators.encoders.network import EncoderNetwork

DEFAULT_SIZE = 256  # pixels, of networks that take any: that of the DDPM paper
# What else decides the features, beside weights and layers.
DECIDING = ("heads", "timm_model", "preset", "encoder_blocks", "decoder_blocks", "activations")


class ImageEncoder:
    """The activations of one network at its chosen layers, for images of one size.

    Images of other sizes than the network's are resized to it first.
    """

    def __init__(
        self,
        name: NetworkName,
        network: EncoderNetwork,
        config: EncoderConfig,
        device: str = "auto",
        notes: tuple[str, ...] = (),
    ):
        """Takes over `network`. `notes` are lines for the user. Raises ValueError for bad sizes."""
        self.name, self.config, self.notes = name, config, notes
        size, self.input_size = choose_sizes(network, config)
        self.image_size = (size, size)
        self.digest = self._digest(network)
        self.device = pick_device(device)
        self.dtype = pick_dtype(config.precision, self.device)
        self.network = network.to(self.device)  # type: ignore[attr-defined]

    @classmethod
    def load(cls, config: EncoderConfig, device: str = "auto") -> ImageEncoder:
        """Read the weights that `config` names, see `load_network`; raises as that does."""
        name, network, is_published = load_network(config)
        note = licence_note(name) if is_published and config.random_weights is None else None
        return cls(name, network, config, device, () if note is None else (note,))

    @property
    def batch_size(self) -> int:
        """The largest number of images in a call."""
        return self.config.batch_size

    @property
    def feature_settings(self) -> Mapping[str, Any]:
        """None: all that decides the features is in the digest."""
        return {}

    def encode(self, images: Tensor, indices: Sequence[int] | None = None) -> FeatureMaps:
        """Features of one batch of images uint8 `[N, 3, H, W]`; `indices` make no difference."""
        check_batch(len(images), self.batch_size)
        found = send(images, self.device)
        if found.shape[-2:] != (self.input_size, self.input_size):
            size = [self.input_size, self.input_size]
            found = TF.resize(found, size, TF.InterpolationMode.BILINEAR, antialias=True)
        with torch.inference_mode(), self._precision():
            return FeatureMaps({n: t.float() for n, t in self.network(found).items()})

    @cached_property
    def feature_spec(self) -> tuple[FeatureMapSpec, ...]:
        """Names and native shapes, found without computing."""
        with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode():
            shape = (1, 3, self.input_size, self.input_size)
            image = torch.zeros(shape, dtype=torch.uint8, device=self.device)
            return FeatureMaps(self.network(image)).spec

    def _precision(self) -> Any:
        enabled = self.dtype != torch.float32
        return torch.autocast(self.device.type, self.dtype, enabled=enabled)

    def _digest(self, network: EncoderNetwork) -> str:
        """sha256 over the tensors in name order, and what else decides the features."""
        sha = hashlib.sha256()
        for name, tensor in sorted(network.state_dict().items()):
            sha.update(name.encode())
            sha.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data)
        settings = {key: getattr(self.config, key) for key in DECIDING}
        settings |= {"network": self.name, "input_size": self.input_size}
        sha.update(json.dumps(settings, sort_keys=True).encode())
        return sha.hexdigest()


def choose_sizes(network: EncoderNetwork, config: EncoderConfig) -> tuple[int, int]:
    """Pixels per side of the images, and of what the network sees.

    Raises ValueError if the network does not take the given input size.
    """
    native, multiple = network.native_size, network.multiple
    size = config.image_size or config.input_size or native or DEFAULT_SIZE
    nearest = max(1, round(size / multiple)) * multiple
    seen = config.input_size or native or nearest
    if native is not None and seen != native:
        raise ValueError(
            f"generator.input_size is {seen}, but the network was trained at {native}: leave it "
            "out, and images are resized"
        )
    if seen % multiple:
        low = seen // multiple * multiple
        raise ValueError(
            f"generator.input_size is {seen}, expected a multiple of {multiple}, such as "
            f"{low or multiple} or {low + multiple}"
        )
    return size, seen
