"""Golden files of the original programs, by network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from generators.encoders.config import EncoderConfig
from generators.encoders.model import ImageEncoder
from tests.generators.encoders import published
from tests.generators.encoders.published import GOLDEN

FILES = {
    "mae": "checkpoint-399.pth",
    "swav": "checkpoint.pth.tar",
    "dinov2": "dinov2_tiny14_pretrain.pth",
    "dinov3": "dinov3_tiny16_pretrain.pth",
    "vdvae": published.VDVAE.name,
    "alae": "model_final.pth",
    "e4e": "e4e_tiny_encode.pt",
}
# What these networks need, narrower or shorter than any published one.
NEEDS: dict[str, dict[str, Any]] = {
    "mae": {"heads": 4},
    "dinov2": {"heads": 3},
    "vdvae": published.VDVAE_BLOCKS,
}


@pytest.fixture
def checkpoint() -> Callable[[str], Path]:
    """`checkpoint(network)` -> its golden file."""
    return lambda network: GOLDEN / network / FILES[network]


@pytest.fixture
def expected() -> Callable[[str], dict[str, Tensor]]:
    """`expected(network)` -> the tensors of the original program."""
    return published.expected


@pytest.fixture
def load() -> Callable[..., ImageEncoder]:
    """`load(name, weights=..., **settings)` -> the encoder, by default of a golden file."""

    def loaded(name: str, weights: Path | None = None, **settings: Any) -> ImageEncoder:
        path = str(weights or GOLDEN / name / FILES[name])
        given = {"weights": path, "precision": "float32", **NEEDS.get(name, {}), **settings}
        return ImageEncoder.load(EncoderConfig(**given), "cpu")

    return loaded
