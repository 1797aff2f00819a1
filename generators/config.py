"""Settings of a generator: the `generator:` section of a recipe.

Each default is declared here and nowhere else.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class FeatureConfig(BaseModel):
    """Which activations describe a pixel (blocks B and timesteps t of the DDPM paper)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    blocks: tuple[int, ...] | None = Field(
        default=None,
        description="decoder resnets, numbered deep to shallow from 0; none: the paper's five "
        "(5, 6, 7, 8, 12 of 18), scaled to the depth of the network",
    )
    timesteps: tuple[int, ...] = Field(
        default=(50, 150, 250), description="noise levels on the 1000-step schedule"
    )
    noise: Literal["shared", "per_timestep", "fresh"] = Field(
        default="shared",
        description="one fixed noise for all images and timesteps; one a timestep; new every time",
    )
    noise_seed: int = Field(default=0, ge=0, description="seed of the fixed noise")

    @field_validator("blocks", "timesteps")
    @classmethod
    def _ascending(cls, values: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if values is None:
            return None
        if not values or any(v < 0 for v in values) or list(values) != sorted(set(values)):
            raise ValueError(f"expected distinct ascending numbers >= 0, found {list(values)}")
        return values


class DDPMConfig(BaseModel):
    """A diffusion model: where its weights are and how it is sampled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["ddpm"] = "ddpm"
    weights: str = Field(description="diffusers directory (local, or a hub id such as org/name)")
    sampler: Literal["ddpm", "ddim", "dpmsolver++"] = Field(
        default="dpmsolver++", description="ancestral, DDIM, or DPM-Solver++ 2M"
    )
    steps: int = Field(default=25, ge=1, le=1000, description="network passes a sample")
    eta: float = Field(default=0.0, ge=0.0, le=1.0, description="DDIM's stochasticity")
    clip_x0: bool = Field(default=True, description="clip the predicted clean image to [-1, 1]")
    seed: int = Field(default=0, ge=0, description="run seed; sample i draws from (seed, i)")
    batch_size: int = Field(default=16, ge=1, description="samples a network pass")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="auto: bfloat16 where the hardware multiplies it, else float32"
    )
    features: FeatureConfig = FeatureConfig()

    @model_validator(mode="after")
    def _eta_is_of_ddim(self) -> DDPMConfig:
        if self.eta > 0 and self.sampler != "ddim":
            raise ValueError(f"eta is {self.eta}, but the sampler is {self.sampler}, not ddim")
        return self


GeneratorConfig = DDPMConfig  # becomes a union discriminated by `kind` with the second generator


class DDPMTrainingConfig(BaseModel):
    """How a diffusion model is trained: network, objective, optimisation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_size: int = Field(default=64, ge=8, description="training resolution in pixels, square")
    channels: tuple[int, ...] = Field(
        default=(48, 96, 128, 192), description="U-Net channels a level, fine to coarse"
    )
    resnets_per_level: int = Field(default=1, ge=1, description="resnets an encoder level")
    attention_levels: int = Field(
        default=1, ge=0, description="how many of the coarsest levels attend"
    )
    prediction: Literal["v_prediction", "epsilon"] = "v_prediction"
    offset_noise_std: float = Field(
        default=0.1,
        ge=0,
        description="of each channel's mean, see generators.ddpm.noise",
    )
    min_snr_gamma: float = Field(default=5.0, gt=0, description="gamma of min-SNR weighting")
    steps: int = Field(default=20_000, ge=1, description="optimiser steps")
    batch_size: int = Field(default=16, ge=1)
    lr: float = Field(
        default=5e-4, gt=0, allow_inf_nan=False, description="peak learning rate of AdamW"
    )
    warmup_steps: int = Field(default=100, ge=0)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    flips: bool = Field(default=False, description="random left-right and top-bottom flips")
    quarter_turns: bool = Field(default=False, description="random turns by 90 degrees")
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = Field(default=0, ge=0)
    checkpoint_every: int = Field(default=100, ge=1, description="steps between checkpoints")
    preview_every: int = Field(default=500, ge=1, description="steps between sample grids")

    @model_validator(mode="after")
    def _divisible(self) -> DDPMTrainingConfig:
        if not self.channels or any(c < 1 or c % 8 for c in self.channels):
            raise ValueError(f"channels must be multiples of 8 from 8 on: {list(self.channels)}")
        coarsest = 2 ** (len(self.channels) - 1)
        if self.image_size % coarsest:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of {coarsest}, which "
                f"{len(self.channels)} levels of channels need"
            )
        if self.attention_levels > len(self.channels):
            raise ValueError(
                f"attention_levels {self.attention_levels} exceeds the "
                f"{len(self.channels)} levels of channels"
            )
        return self
