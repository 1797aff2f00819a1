"""How to make images and the activations behind them."""

from __future__ import annotations

from generators.base import FeatureMaps, FeatureMapSpec, Generator
from generators.config import GeneratorConfig

__all__ = ["FeatureMapSpec", "FeatureMaps", "Generator", "GeneratorConfig", "load"]


def load(config: GeneratorConfig, device: str = "auto") -> Generator:
    """The generator that `config` describes, its weights on `device`."""
    from generators.ddpm.model import DDPMGenerator

    return DDPMGenerator.load(config, device)
