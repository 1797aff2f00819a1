"""Settings of a diffusion model: how it is sampled, and how it is trained.

Each default is declared here and nowhere else. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from generators.encoders.config import PairedWith
from generators.training.config import TrainingConfig

Parametrisation = Literal["edm", "consistency"]
# Noise levels sigma of Karras et al. 2022, for images in [-1, 1].
SIGMA_MIN, SIGMA_MAX = 0.002, 80.0
TIMESTEP_SAMPLERS = ("ddpm", "ddim", "dpmsolver++", "unipc")
SIGMA_SAMPLERS: dict[Parametrisation, tuple[str, ...]] = {
    "edm": ("heun", "euler"),
    "consistency": ("multistep",),
}
PUBLISHED_STEPS: dict[Parametrisation, int] = {"edm": 40, "consistency": 2}
NORM_GROUPS = 8  # of every group normalisation in the diffusion models that we train


class FeatureConfig(BaseModel):
    """Which activations describe a pixel (blocks B and timesteps t of the DDPM paper)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    blocks: tuple[int, ...] | None = Field(
        default=None,
        description="decoder resnets, numbered deep to shallow from 0; none: the paper's five "
        "(5, 6, 7, 8, 12 of 18), scaled to the depth of the network",
    )
    timesteps: tuple[int, ...] = Field(
        default=(50, 150, 250),
        description="noise levels, as steps of the schedule of training, which has 1000 as a rule",
    )
    noise: Literal["shared", "per_timestep", "fresh"] = Field(
        default="shared",
        description="one fixed noise for all images and timesteps; one per timestep; new each time",
    )
    noise_seed: int = Field(default=0, ge=0, description="seed of the fixed noise")
    record: Literal["renoise", "trajectory"] = Field(
        default="renoise",
        description="activations of the finished image, noised again; or those of the sampler's "
        "own passes, if it visits those timesteps (photographs are always noised)",
    )

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
    weights: str = Field(
        description="diffusers directory (local, or a hub id such as org/name) or guided-diffusion "
        ".pt file; the next ten settings are for what cannot be read from the latter"
    )
    parametrisation: Parametrisation | None = Field(
        default=None,
        description="of a network of openai/consistency_models, which sees noise levels: an EDM or "
        "a consistency model; none: a network that sees timesteps",
    )
    image_size: int | None = Field(
        default=None, ge=8, description="pixels; none: such that the coarsest level is 8 x 8"
    )
    channels_per_head: int | None = Field(
        default=None, ge=1, description="of attention; none: see heads"
    )
    heads: int | None = Field(
        default=None,
        ge=1,
        description="of attention, if their number is the same at all levels; none: as in the "
        "published network of this shape, or else 4",
    )
    num_heads_upsample: int | None = Field(
        default=None, ge=1, description="heads in the decoder; none: as many as elsewhere"
    )
    attention_order: Literal["legacy", "new"] | None = Field(
        default=None, description="of q, k and v; none: as in the published network, or legacy"
    )
    schedule: Literal["linear", "cosine"] | None = Field(
        default=None,
        description="of the noise; none: as in the published network, or linear",
    )
    train_steps: int | None = Field(
        default=None, ge=2, description="of the schedule (diffusion_steps); none: 1000"
    )
    rescale_timesteps: bool | None = Field(
        default=None, description="the network was given t * 1000 / train_steps; none: false"
    )
    predicts: Literal["epsilon", "x_start", "v"] | None = Field(
        default=None, description="what the network was trained to predict; none: epsilon"
    )
    class_id: Annotated[int, Field(ge=0)] | Literal["random"] | None = Field(
        default=None,
        description="class of all samples of a class-conditional network, or random: drawn from "
        "the seed of each sample",
    )
    sampler: Literal["ddpm", "ddim", "dpmsolver++", "unipc", "heun", "euler", "multistep"] = Field(
        default="dpmsolver++",
        description="ancestral, DDIM, DPM-Solver++ 2M, or UniPC; heun (the default) or euler for "
        "an EDM; multistep for a consistency model. ddim after `train-generator --distill`",
    )
    steps: int = Field(
        default=25,
        ge=1,
        description="network passes per sample, at most the schedule's steps; heun has two passes "
        "a step but the last. By default 40 for an EDM, 2 for a consistency model",
    )
    noise_levels: tuple[float, ...] | None = Field(
        default=None,
        description="standard deviations of the noise at which a consistency model is evaluated, "
        "descending from at most 80; none: as many as steps, from 80, spaced as in Karras et al.",
    )
    spacing: Literal["trailing", "leading", "linspace"] = Field(
        default="trailing",
        # Lin et al. 2024
        description="which timesteps are visited; trailing begins at the last one. The others "
        "assume less noise than they start from, which pulls samples towards the mean colour",
    )
    karras: bool = Field(
        default=False,
        description="noise levels spaced as in Karras et al. 2022 instead (dpmsolver++ and unipc)",
    )
    eta: float = Field(default=0.0, ge=0.0, le=1.0, description="DDIM's stochasticity")
    clip_x0: bool = Field(default=True, description="clip the predicted clean image to [-1, 1]")
    seed: int = Field(default=0, ge=0, description="run seed; sample i draws from (seed, i)")
    batch_size: int = Field(default=16, ge=1, description="samples per network pass")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="auto: bfloat16 where the hardware multiplies it, else float32, whose "
        "convolutions CUDA multiplies in TF32 (10 bits of mantissa)",
    )
    compile: bool = Field(
        default=False,
        description="compile the network first: takes minutes, pays off in long runs on a GPU",
    )
    features: FeatureConfig = FeatureConfig()
    encoders: PairedWith = None

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_parametrisation(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        kind, levels = values.get("parametrisation"), values.get("noise_levels")
        if not isinstance(kind, str) or kind not in SIGMA_SAMPLERS:
            return values
        steps = len(levels) if isinstance(levels, list | tuple) else PUBLISHED_STEPS[kind]
        return {"sampler": SIGMA_SAMPLERS[kind][0], "steps": steps, **values}

    @model_validator(mode="after")
    def _sampler_fits_parametrisation(self) -> DDPMConfig:
        kind = self.parametrisation
        allowed = TIMESTEP_SAMPLERS if kind is None else SIGMA_SAMPLERS[kind]
        if self.sampler not in allowed:
            raise ValueError(
                f"parametrisation is {kind or 'none'}, but the sampler is {self.sampler}, not "
                f"{' or '.join(allowed)}"
            )
        if kind is not None and self.features.record == "trajectory":
            raise ValueError(
                f"parametrisation is {kind}, but features.record is trajectory: its sampler "
                "visits no timesteps; set features.record=renoise"
            )
        if kind is not None and self.kind != "ddpm":
            raise ValueError(f"parametrisation is {kind}, but kind is {self.kind}, not ddpm")
        return self

    @model_validator(mode="after")
    def _noise_levels_descend(self) -> DDPMConfig:
        levels = self.noise_levels
        if levels is None:
            return self
        if self.parametrisation != "consistency":
            raise ValueError("noise_levels are for parametrisation consistency: remove them")
        ends = (*levels, SIGMA_MIN)
        if not levels or levels[0] > SIGMA_MAX or any(b >= a for a, b in pairwise(ends)):
            raise ValueError(
                f"found noise_levels {list(levels)}, expected descending numbers of at most "
                f"{SIGMA_MAX:g} and above {SIGMA_MIN}"
            )
        if self.steps != len(levels):
            raise ValueError(f"steps is {self.steps}, but there are {len(levels)} noise_levels")
        return self

    @model_validator(mode="after")
    def _eta_needs_ddim(self) -> DDPMConfig:
        if self.eta > 0 and self.sampler != "ddim":
            raise ValueError(f"eta is {self.eta}, but the sampler is {self.sampler}, not ddim")
        return self

    @model_validator(mode="after")
    def _karras_needs_a_multistep_solver(self) -> DDPMConfig:
        if self.karras and self.sampler not in ("dpmsolver++", "unipc"):
            raise ValueError(
                f"karras is true, but the sampler is {self.sampler}, not dpmsolver++ or unipc"
            )
        return self

    @model_validator(mode="after")
    def _trajectory_needs_whole_timesteps(self) -> DDPMConfig:
        if self.karras and self.features.record == "trajectory":
            raise ValueError(
                "karras is true, but features.record is trajectory, and Karras' noise levels lie "
                "between timesteps: set karras=false, or features.record=renoise"
            )
        return self


class DiffusionTrainingConfig(TrainingConfig):
    """How the weights of a diffusion model are optimised, whatever its loss."""

    lr: float = Field(
        default=5e-4, gt=0, allow_inf_nan=False, description="peak learning rate of AdamW"
    )
    warmup_steps: int = Field(default=100, ge=0)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)


class DistillationConfig(DiffusionTrainingConfig):
    """How a diffusion model is distilled into one of few steps."""

    steps: int = Field(default=2000, ge=1, description="optimiser steps")
    lr: float = Field(
        default=2e-4, gt=0, allow_inf_nan=False, description="peak learning rate of AdamW"
    )
    ema_decay: float = Field(default=0.99, ge=0, lt=1)
    teacher_steps: int = Field(default=16, ge=2, description="of DDIM, which are halved")
    sampling_steps: int = Field(default=4, ge=1, description="of DDIM, which are left at the end")

    @model_validator(mode="after")
    def _halves(self) -> DistillationConfig:
        if 2**self.stages * self.sampling_steps != self.teacher_steps or not self.stages:
            raise ValueError(
                f"teacher_steps is {self.teacher_steps}, expected sampling_steps "
                f"{self.sampling_steps} times 2, 4, 8, ..."
            )
        if self.steps < self.stages:
            raise ValueError(f"steps is {self.steps}, expected one or more for each halving")
        return self

    @property
    def stages(self) -> int:
        """How often the number of steps is halved."""
        return (self.teacher_steps // self.sampling_steps).bit_length() - 1

    @property
    def stage_steps(self) -> int:
        """Optimiser steps per stage, but the last, which may have fewer."""
        return -(-self.steps // self.stages)


class DDPMTrainingConfig(DiffusionTrainingConfig):
    """How a diffusion model is trained: network, objective, optimisation."""

    channels: tuple[int, ...] = Field(
        default=(48, 96, 128, 192), description="U-Net channels per level, fine to coarse"
    )
    resnets_per_level: int = Field(default=1, ge=1, description="resnets per encoder level")
    attention_levels: int = Field(
        default=1, ge=0, description="number of coarsest levels with attention"
    )
    prediction: Literal["v_prediction", "epsilon"] = "v_prediction"
    offset_noise_std: float = Field(
        default=0.1,
        ge=0,
        description="of the random shift of each channel, see generators.ddpm.noise",
    )
    min_snr_gamma: float | None = Field(
        default=5.0,
        gt=0,
        description="gamma of min-SNR weighting; null: all timesteps weigh the same",
    )
    labels: str | None = Field(
        default=None,
        description="class-conditional: `folders`, if the class of an image is the name of its "
        "folder, or a CSV file with a file name and a class per line",
    )

    @model_validator(mode="after")
    def _divisible(self) -> DDPMTrainingConfig:
        if not self.channels or any(c < 1 or c % NORM_GROUPS for c in self.channels):
            raise ValueError(
                f"found channels {list(self.channels)}, expected multiples of {NORM_GROUPS}"
            )
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
