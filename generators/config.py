"""Settings of a generator: the `generator:` section of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from generators.ddpm.config import DDPMConfig
from generators.encoders.config import EncoderConfig
from generators.factorized.config import FactorizedConfig
from generators.stylegan2.config import StyleGAN2Config


def _with_kind(value: Any) -> Any:
    """A section without `kind` describes a diffusion model."""
    if isinstance(value, Mapping) and "kind" not in value:
        return {"kind": "ddpm", **value}
    return value


GeneratorConfig = Annotated[
    DDPMConfig | EncoderConfig | FactorizedConfig | StyleGAN2Config,
    Field(discriminator="kind"),
    BeforeValidator(_with_kind),
]
