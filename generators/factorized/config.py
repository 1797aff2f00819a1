"""Settings of Factorized Diffusion. Nothing here imports torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from generators.ddpm.config import DDPMConfig, DDPMTrainingConfig, FeatureConfig

INFO_FILE = "factorized.json"

# The paper's network, and what its Table 6 takes away: one pass that sees the masks beside its maps
# (Eq. 5), masks on the middle instead of the skips, and a decoder per region.
Structure = Literal["factorized", "concat", "masked_middle", "unshared"]
# What convolutions see beyond the border.
Padding = Literal["zeros", "replicate"]


class NetworkConfig(BaseModel):
    """What builds the network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_size: int = Field(ge=8)
    channels: tuple[int, ...]
    resnets_per_level: int = Field(ge=1)
    attention_levels: int = Field(ge=0)
    regions: int = Field(ge=1)
    structure: Structure
    padding: Padding = "zeros"
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
    """How a factorized diffusion model is trained.

    The objective is the paper's (Eq. 8), also where plain models have another default: with v, one
    region took everything in every run that we tried. Four settings are not the paper's. At its
    scale (batches of 128, 50 000 steps) masks find objects without them; in short trainings of
    small networks they do not:

    - `padding`: zeros beyond the border tell a convolution where it is, and masks become frames.
    - `logit_std`: untrained logits differ more between regions than between pixels, so one region
      starts with every pixel.
    - `balance`: while the network still learns to pass noise through, one region that sees
      everything serves best, and takes everything.
    - `masks_follow_signal`: noisy images also reward masks that divide the noise, such as stripes.
    """

    prediction: Literal["v_prediction", "epsilon"] = "epsilon"
    offset_noise_std: float = Field(default=0.0, ge=0)
    min_snr_gamma: float | None = Field(default=None, gt=0)
    regions: int = Field(default=3, ge=1, description="K")
    structure: Structure = Field(
        default="factorized", description="the paper's, or one of its ablations"
    )
    padding: Padding = Field(
        default="replicate", description="of all convolutions; the paper's are zeros"
    )
    logit_std: float = Field(
        default=1.5,
        ge=0,
        allow_inf_nan=False,
        description="standard deviation over pixels that the logits of a region start with, around "
        "0; 0: as the layer happens to start",
    )
    masks_follow_signal: bool = Field(
        default=True,
        description="the gradient of the masks is weighted by the share of signal in the image, "
        "abar_t; otherwise they may divide the noise",
    )
    balance: float = Field(
        default=0.05,
        ge=0,
        allow_inf_nan=False,
        description="weight of KL(mean mask, uniform) in the loss: 0 lets regions vanish",
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
