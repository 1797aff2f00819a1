"""Golden networks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from generators.stylegan2.config import NetworkConfig
from generators.stylegan2.network import StyleGAN2
from generators.stylegan2.pickles import network_config
from generators.stylegan2.storage import assemble

GOLDEN = Path(__file__).parents[2] / "golden" / "stylegan2"


@pytest.fixture
def golden_arguments() -> Callable[[str], dict[str, Any]]:
    """Name of a golden network -> the arguments that the original was built with."""
    return lambda name: json.loads((GOLDEN / f"{name}.init.json").read_text())["init_kwargs"]


@pytest.fixture
def golden_network(golden_arguments: Callable) -> Callable[[str], StyleGAN2]:
    """Name of a golden network -> the network."""

    def build(name: str) -> StyleGAN2:
        tensors = load_file(GOLDEN / f"{name}.G_ema.safetensors")
        return assemble(network_config(golden_arguments(name)), tensors, name)

    return build


@pytest.fixture
def tiny_config() -> NetworkConfig:
    return NetworkConfig(
        resolution=16, z_dim=8, w_dim=8, mapping_layers=2, channel_base=64, channel_max=8
    )
