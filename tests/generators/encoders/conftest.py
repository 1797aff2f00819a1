"""Golden files of the original programs, by network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from generators.encoders.config import EncoderConfig
from generators.encoders.model import ImageEncoder

GOLDEN = Path(__file__).parents[2] / "golden" / "encoders"
FILES = {
    "mae": "checkpoint-399.pth",
    "swav": "checkpoint.pth.tar",
    "dinov2": "dinov2_tiny14_pretrain.pth",
    "dinov3": "dinov3_tiny16_pretrain.pth",
}
HEADS = {"mae": 4, "dinov2": 3}  # of these networks, narrower than any published one


@pytest.fixture
def checkpoint() -> Callable[[str], Path]:
    """`checkpoint(network)` -> its golden file."""
    return lambda network: GOLDEN / network / FILES[network]


@pytest.fixture
def expected() -> Callable[[str], dict[str, Tensor]]:
    """`expected(network)` -> the tensors of the original program."""
    return lambda network: load_file(GOLDEN / network / "expected.safetensors")


@pytest.fixture
def load() -> Callable[..., ImageEncoder]:
    """`load(name, weights=..., **settings)` -> the encoder, by default of a golden file."""

    def loaded(name: str, weights: Path | None = None, **settings: Any) -> ImageEncoder:
        path = str(weights or GOLDEN / name / FILES[name])
        given = {"weights": path, "heads": HEADS.get(name), "precision": "float32", **settings}
        return ImageEncoder.load(EncoderConfig(**given), "cpu")

    return loaded
