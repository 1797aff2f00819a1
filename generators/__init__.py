"""Generators: how to make images and the activations behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from generators.config import GeneratorConfig

if TYPE_CHECKING:
    from generators.base import Generator


def load(config: GeneratorConfig, device: str = "auto") -> Generator:
    """The generator that `config` describes, its weights on `device`."""
    if config.kind == "stylegan2":
        from generators.stylegan2.model import StyleGAN2Generator

        return StyleGAN2Generator.load(config, device)
    if config.kind == "factorized":
        from generators.factorized.model import FactorizedGenerator

        return FactorizedGenerator.load(config, device)
    from generators.ddpm.model import DDPMGenerator

    return DDPMGenerator.load(config, device)
