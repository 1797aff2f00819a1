"""Settings of Factorized Diffusion. Nothing here imports torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from generators.ddpm.config import DDPMConfig, DDPMTrainingConfig, FeatureConfig

INFO_FILE = "factorized.json"

# The paper's network, and what its Table 6 takes away: one pass that sees the masks beside its maps
# (Eq. 5), masks on the middle instead of the skips, and a decoder per region.
Structure = Literal["factorized", "concat", "masked_middle", "unshared"]


class NetworkConfig(BaseModel):
    """What builds the network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_size: int = Field(ge=8)
    channels: tuple[int, ...]
    resnets_per_level: int = Field(ge=1)
    attention_levels: int = Field(ge=0)
    regions: int = Field(ge=1)
    structure: Structure
    num_classes: int | None = None


class FactorizedFeatures(FeatureConfig):
    """Which activations describe a pixel; the regions always do."""

    record: Literal["renoise", "trajectory", "regions"] = Field(  # type: ignore[assignment]
        default="renoise",
        description="as for a diffusion model; or regions: the masks alone, which cost no pass of "
        "their own",
    )
    region_timestep: int = Field(
        default=30, ge=0, description="noise level at which the regions of photographs are found"
    )
    region_noises: int = Field(
        default=1, ge=1, description="the regions of a photograph are the mean over this many"
    )


class FactorizedConfig(DDPMConfig):
    """A factorized diffusion model: a folder that `train-generator --kind factorized` wrote."""

    kind: Literal["factorized"] = "factorized"  # type: ignore[assignment]
    features: FactorizedFeatures = FactorizedFeatures()


class FactorizedTrainingConfig(DDPMTrainingConfig):
    """How a factorized diffusion model is trained: as a plain one, without any prior on masks."""

    regions: int = Field(default=3, ge=1, description="K")
    structure: Structure = Field(
        default="factorized", description="the paper's, or one of its ablations"
    )

    def network(self, num_classes: int | None = None) -> NetworkConfig:
        """What builds the network; `num_classes` is None for an unconditional one."""
        settings = self.model_dump(include=set(NetworkConfig.model_fields))
        return NetworkConfig(**settings, num_classes=num_classes)

    @model_validator(mode="after")
    def _one_region_is_plain(self) -> FactorizedTrainingConfig:
        if self.regions == 1 and self.structure != "factorized":
            raise ValueError(f"structure is {self.structure}, but one region is a plain U-Net")
        return self
