"""How to make images and the activations behind them.

Names resolve on first use, so that `generators.config` can be imported without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from generators.config import GeneratorConfig

if TYPE_CHECKING:
    from generators.base import FeatureMaps, FeatureMapSpec, Generator

__all__ = ["FeatureMapSpec", "FeatureMaps", "Generator", "GeneratorConfig", "load"]


def load(config: GeneratorConfig, device: str = "auto") -> Generator:
    """The generator that `config` describes, its weights on `device`."""
    if config.kind == "stylegan2":
        from generators.stylegan2.model import StyleGAN2Generator

        return StyleGAN2Generator.load(config, device)
    from generators.ddpm.model import DDPMGenerator

    return DDPMGenerator.load(config, device)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from generators import base

    return getattr(base, name)
