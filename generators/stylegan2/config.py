"""Settings of a StyleGAN2 generator: its network, its use in a recipe, its training.

Each default is declared here and nowhere else. Nothing here imports torch.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from generators.encoders.config import PairedWith
from generators.training.config import TrainingConfig

INFO_FILE = "generator.json"  # in a folder of weights: the shape of the network
# In the state of every network of rosinality/stylegan2-pytorch.
ROSINALITY_KEY = "conv1.conv.modulation.weight"
Noise = Literal["const", "random", "none"]


def _power_of_two(resolution: int) -> int:
    if resolution & (resolution - 1):
        raise ValueError("expected a power of two")
    return resolution


Resolution = Annotated[int, Field(ge=8, le=4096), AfterValidator(_power_of_two)]
Width = Annotated[int, Field(ge=1, le=65536)]  # of latents and layers
ChannelBase = Annotated[int, Field(ge=1, le=2**24)]
MappingLayers = Annotated[int, Field(ge=1, le=64)]


class NetworkConfig(BaseModel):
    """Shape of a StyleGAN2 generator network: everything except the values of its tensors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    resolution: Resolution = Field(description="pixels per side, a power of two")
    z_dim: Width = Field(default=512, description="width of the latent z")
    w_dim: Width = Field(default=512, description="width of the latent w")
    c_dim: int = Field(default=0, ge=0, le=65536, description="number of classes; 0: no condition")
    mapping_layers: MappingLayers = Field(default=8, description="layers from z to w")
    mapping_lr: float = Field(
        default=0.01,
        gt=0,
        allow_inf_nan=False,
        description="factor of the learning rate of those layers",
    )
    channel_base: ChannelBase = Field(
        default=32768, description="channels at resolution R are this / R, at most channel_max"
    )
    channel_max: Width = Field(default=512, description="channels of the coarse blocks")
    architecture: Literal["skip", "resnet", "orig"] = "skip"
    conv_clamp: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="convolutions are clamped to ± this; none: no clamp",
    )
    num_fp16_res: int = Field(
        default=0, ge=0, le=16, description="number of finest blocks that are meant for float16"
    )

    @model_validator(mode="after")
    def _has_channels(self) -> NetworkConfig:
        if self.channel_base < self.resolution:
            raise ValueError(
                f"channel_base {self.channel_base} leaves no channel at resolution "
                f"{self.resolution}: expected {self.resolution} or more"
            )
        return self

    @property
    def block_resolutions(self) -> tuple[int, ...]:
        """4, 8, ... `resolution`."""
        return tuple(2**i for i in range(2, self.resolution.bit_length()))

    @property
    def num_ws(self) -> int:
        """Number of w vectors per image: one for each convolution, one for the last toRGB."""
        return 2 * len(self.block_resolutions)

    def channels(self, resolution: int) -> int:
        """Width of the block at `resolution`."""
        return min(self.channel_base // resolution, self.channel_max)

    @property
    def float16_from(self) -> int:
        """Resolution of the first block that is meant for float16; beyond the last if none."""
        return max(2 * self.resolution >> self.num_fp16_res, 8)


class StyleGAN2FeatureConfig(BaseModel):
    """Which activations describe a pixel."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: tuple[str, ...] | None = Field(
        default=None,
        description="convolutions such as b4.conv1, b8.conv0, b8.conv1; none: all of them",
    )
    constant: bool = Field(default=False, description="also the learned constant all images share")

    @field_validator("layers")
    @classmethod
    def _distinct(cls, layers: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if layers is not None and (not layers or len(set(layers)) < len(layers)):
            raise ValueError(f"expected one or more distinct names, found {list(layers)}")
        return layers


class ProjectionConfig(BaseModel):
    """How the latent of a real image is searched for (StyleGAN2, Appendix D, in W+)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(default=300, ge=1, description="optimisation steps per image")
    batch_size: int = Field(
        default=4,
        ge=1,
        description="images searched for at once; fewer are padded, as rounding depends on it",
    )
    shared_steps: int = Field(
        default=75, ge=0, description="number of initial steps with one w for all layers"
    )
    candidates: int = Field(
        default=512, ge=2, description="random w; the one with the nearest image is the start"
    )
    lr: float = Field(
        default=0.1,
        gt=0,
        le=10,
        description="learning rate of Adam, in standard deviations of w",
    )
    average_weight: float = Field(
        default=0.03,
        ge=0,
        allow_inf_nan=False,
        description="of the squared distance from the average w, in standard deviations of w",
    )
    layers_weight: float = Field(
        default=0.3,
        ge=0,
        allow_inf_nan=False,
        description="of the squared distance of the layers' w from their mean, likewise",
    )
    perceptual: str = Field(
        default="auto",
        description="torchvision's VGG16 or AlexNet weights for the perceptual loss: a file, or "
        "none; auto: those in the cache of torch.hub, if any; nothing is downloaded",
    )
    perceptual_weight: float = Field(
        default=1.0,
        ge=0,
        allow_inf_nan=False,
        description="of that loss, relative to that of pixels",
    )


class StyleGAN2Config(BaseModel):
    """A StyleGAN2 generator: where its weights are and how it is sampled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["stylegan2"] = "stylegan2"
    weights: str = Field(
        description="folder written by train-generator or convert, or a StyleGAN2 snapshot (.pkl)"
    )
    truncation: float = Field(
        default=0.7, ge=0, le=1, description="psi: 0 is the average image, 1 the full variety"
    )
    truncation_cutoff: int | None = Field(
        default=None, ge=0, description="number of first w vectors to truncate; none: all"
    )
    noise: Noise = Field(
        default="const",
        description="per-pixel noise: stored with the weights, drawn for each sample, or none",
    )
    class_id: Annotated[int, Field(ge=0)] | Literal["random"] | None = Field(
        default=None,
        description="class of all samples of a class-conditional network, or random: drawn from "
        "the seed of each sample",
    )
    seed: int = Field(default=0, ge=0, description="run seed; sample i draws from (seed, i)")
    batch_size: int = Field(default=8, ge=1, description="samples per network pass")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="auto: bfloat16 where the hardware multiplies it (on CUDA float16, if blocks "
        "are meant for it), else float32; float16: only in the blocks that are meant for it",
    )
    features: StyleGAN2FeatureConfig = StyleGAN2FeatureConfig()
    encoders: PairedWith = None
    projection: ProjectionConfig = ProjectionConfig()


class StyleGAN2TrainingConfig(TrainingConfig):
    """How a StyleGAN2 is trained: network, objective, regularisation, augmentation."""

    # No schedule depends on the number of steps, so a training can be made longer.
    changeable: ClassVar[tuple[str, ...]] = (*TrainingConfig.changeable, "steps")

    image_size: Resolution = Field(
        default=64, description="training resolution in pixels, a power of two"
    )
    lr: float = Field(
        default=2.5e-3, gt=0, allow_inf_nan=False, description="learning rate of both networks"
    )
    channel_base: ChannelBase = Field(
        default=4096, description="channels at resolution R are this / R, or channel_max"
    )
    channel_max: Width = Field(default=128, description="channels of the coarse blocks")
    latent_dim: Width = Field(default=128, description="width of z and w")
    mapping_layers: MappingLayers = Field(default=2, description="layers from z to w")
    style_mixing: float = Field(
        default=0.9, ge=0, le=1, description="share of images made from two latents"
    )
    r1_gamma: float = Field(
        default=1.0,
        ge=0,
        allow_inf_nan=False,
        description="weight of R1; raise it if D stays near 0: the generator then learns nothing",
    )
    r1_every: int = Field(default=16, ge=1, description="steps between R1 regularisations")
    path_weight: float = Field(
        default=2.0, ge=0, allow_inf_nan=False, description="weight of path-length regularisation"
    )
    path_every: int = Field(
        default=4, ge=1, description="steps between path-length regularisations"
    )
    ada_target: float = Field(
        default=0.6,
        ge=0,
        lt=1,
        description="of E[sign D(real)] in augmentation; 0: no augmentation",
    )
    ada_kimg: float = Field(
        default=100.0,
        gt=0,
        allow_inf_nan=False,
        description="thousand images in which p can grow from 0 to 1",
    )
    ema_kimg: float = Field(
        default=5.0, gt=0, allow_inf_nan=False, description="half-life of the EMA in 1000 images"
    )

    @model_validator(mode="after")
    def _has_a_network(self) -> StyleGAN2TrainingConfig:
        self.network()  # runs the checks of `NetworkConfig`
        return self

    def network(self) -> NetworkConfig:
        """Shape of the network to train."""
        return NetworkConfig(
            resolution=self.image_size,
            z_dim=self.latent_dim,
            w_dim=self.latent_dim,
            mapping_layers=self.mapping_layers,
            channel_base=self.channel_base,
            channel_max=self.channel_max,
        )
