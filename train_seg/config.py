"""Settings of the segmenter: the `segmenter:` section of a recipe.

Each default is declared only here. The defaults are those of the DDPM paper's DeepLabV3, except
that its encoder started from ImageNet weights (`encoder_weights`); `PRESETS` holds complete
alternatives.

On 64x64 images, an encoder of output stride 8 leaves an 8x8 map, on which dilations of 8 or more
see nothing but padding. `input_scale` and `encoder_depth` adapt to the images if they are `auto`,
as in the preset `modern`, and so does `atrous_rates`; `train_seg/network/sizes.py` has the rules.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

INFERENCE_BATCH_SIZE = 16  # images at a time in prediction and evaluation
SHUFFLE_BUFFER = 1000  # samples of a dataset that are shuffled together
MIN_ROUND_STEPS = 50  # a handful of images has epochs too short to validate after each
THEN_LR_FACTOR = 0.3  # of the second stage: it refines what the first has found
MAX_LOADERS = 8  # loader processes
SGD_MOMENTUM = 0.9
MIN_SIDE_PX = 8  # of images and tiles
AUTO: Literal["auto"] = "auto"
UNET_GN = "UNetGN"  # our architecture; all others are those of segmentation-models-pytorch
NETWORK_SETTINGS = (  # on which the weights of a network depend
    "architecture",
    "width",
    "unet",
    "encoder",
    "encoder_depth",
    "output_stride",
    "atrous_rates",
)


class AugmentConfig(BaseModel):
    """Random changes to a training sample, redrawn each epoch; masks follow. Default: none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    horizontal_flip: bool = Field(default=False, description="mirror half of the images")
    vertical_flip: bool = Field(default=False, description="turn half of the images upside down")
    quarter_turns: bool = Field(
        default=False, description="rotate by 0, 90, 180 or 270 degrees (square images)"
    )
    scale: tuple[float, float] | None = Field(
        default=None,
        description="crop to a part of the area in this range, e.g. [0.5,1], and enlarge it again",
    )
    zoom: tuple[float, float] | None = Field(
        default=None,
        description="resize by a factor in this range, e.g. [0.5,2], then crop or pad (padding is "
        "ignored in the mask)",
    )
    brightness: float = Field(default=0.0, ge=0, description="factor from 1 - x to 1 + x")
    contrast: float = Field(default=0.0, ge=0, description="factor from 1 - x to 1 + x")
    saturation: float = Field(default=0.0, ge=0, description="factor from 1 - x to 1 + x")
    hue: float = Field(
        default=0.0, ge=0, le=0.5, description="shift by up to x turns of the colour wheel"
    )
    blur: float = Field(default=0.0, ge=0, description="largest Gaussian sigma, in pixels")
    noise: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="standard deviation of Gaussian noise; 1 is the range from black to white",
    )

    @field_validator("scale")
    @classmethod
    def _area(cls, scale: tuple[float, float] | None) -> tuple[float, float] | None:
        if scale is not None and not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"expected 0 < low <= high <= 1, found {list(scale)}")
        return scale

    @field_validator("zoom")
    @classmethod
    def _factor(cls, zoom: tuple[float, float] | None) -> tuple[float, float] | None:
        if zoom is not None and not 0 < zoom[0] <= zoom[1] <= 16:
            raise ValueError(f"expected 0 < low <= high <= 16, found {list(zoom)}")
        return zoom


class ThenConfig(BaseModel):
    """The second stage of a training, on other data; all other settings are those of the first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_steps: int = Field(default=100, ge=1, description="optimiser steps")
    lr: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description=f"learning rate; none: {THEN_LR_FACTOR:g} of the first stage's",
    )
    mix: tuple[float, ...] | None = Field(
        default=None, description="share of each --then in the samples; none: each sample equally"
    )
    validate_every: int | None = Field(
        default=None,
        ge=1,
        description="steps between validations and checkpoints; none: an epoch, at least "
        f"{MIN_ROUND_STEPS}",
    )


class SegmenterConfig(BaseModel):
    """The network and its training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: str = Field(
        default="DeepLabV3",
        description="a model of segmentation-models-pytorch, e.g. Unet, or UNetGN: a small U-Net "
        "with group norm and without encoder, for a few labels",
    )
    width: int = Field(
        default=16, ge=8, multiple_of=8, description="channels of UNetGN at full resolution"
    )
    unet: dict[str, Any] | None = Field(
        default=None,
        description="arguments of diffusers' UNet2DModel, which UNetGN takes from a generator; "
        "none: the small U-Net",
    )
    encoder: str = Field(
        default="resnet101", description="an encoder of segmentation-models-pytorch, e.g. resnet18"
    )
    encoder_weights: str | None = Field(
        default=None,
        description="pretrained encoder: imagenet (downloaded); cached: imagenet if already "
        "downloaded, else random; a file with a state dict, such as torchvision's "
        "resnet101-63fe2227.pth; none: random",
    )
    encoder_depth: Annotated[int, Field(ge=3, le=5)] | Literal["auto"] = Field(
        default=5,
        description="encoder stages used; fewer are cheaper. auto: 4 for small images, else 5",
    )
    output_stride: Literal[8, 16] = Field(
        default=8,
        description="image pixels per pixel of the encoder's last map, for dilated encoders",
    )
    atrous_rates: tuple[int, int, int] | Literal["auto"] = Field(
        default=(12, 24, 36),
        description="dilations of the spatial pyramid, if the decoder has one; auto: in proportion "
        "to the map",
    )
    dropout: float | None = Field(
        default=None, ge=0, lt=1, description="in the decoder; none: the architecture's own"
    )
    image_size: tuple[int, int] | None = Field(
        default=None,
        description="(height, width) of the training images, or one number for squares; none: that "
        "of the data",
    )
    input_scale: Annotated[float, Field(gt=0, le=8)] | Literal["auto"] = Field(
        default=1.0,
        description="the network sees images enlarged by this factor; auto: small images by up to "
        "4, such that the encoder's last map has 16x16 cells",
    )
    averaged: bool = Field(
        default=False,
        description="predict the mean over the flips and turns of augment: up to eight passes",
    )

    optimizer: Literal["adam", "adamw", "sgd"] = Field(
        default="adam", description=f"sgd has Nesterov momentum {SGD_MOMENTUM}"
    )
    lr: float = Field(default=1e-3, gt=0, allow_inf_nan=False, description="learning rate")
    weight_decay: float = Field(
        default=0.0, ge=0, description="applies to matrices and kernels, not to norms and biases"
    )
    schedule: Literal["constant", "cosine"] = Field(
        default="constant", description="learning rate over the run; cosine ends at zero"
    )
    warmup_steps: int = Field(
        default=0, ge=0, description="steps of linear warm-up, at most a tenth of the run"
    )
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    dice: float = Field(
        default=0.0,
        ge=0,
        description="weight of the Dice loss added to the cross-entropy",
    )
    ignore_above_quantile: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="ignore pixels above this quantile of a dataset's uncertainty, e.g. 0.95",
    )
    soft_labels: bool = Field(
        default=False,
        description="learn from the class probabilities of a dataset, weighted by their certainty",
    )
    ema: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="decay of the averaged weights, which become the result; 0: no average",
    )

    batch_size: int = Field(default=8, ge=2, description="images per step")
    epochs: int = Field(default=20, ge=1, description="passes over the data")
    max_steps: int | None = Field(
        default=None, ge=1, description="length of the run in steps; overrides epochs"
    )
    validate_every: int | None = Field(
        default=None,
        ge=1,
        description="steps between validations and checkpoints; none: an epoch, at least "
        f"{MIN_ROUND_STEPS}",
    )
    patience: int | None = Field(
        default=None, ge=1, description="stop after this many validations without a better mIoU"
    )
    augment: AugmentConfig = AugmentConfig()
    then: ThenConfig = ThenConfig()
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="auto: bfloat16 where the hardware multiplies it, else float32"
    )
    seed: int = Field(default=0, ge=0, description="seed of weights, order, augmentation, dropout")
    num_workers: int | None = Field(
        default=None,
        ge=0,
        description="loader processes; 0: decode in the training process; none: 0 on a CPU, which "
        f"trains on all cores, else one per core, at most {MAX_LOADERS}",
    )
    shuffle_buffer: int = Field(
        default=SHUFFLE_BUFFER,
        ge=1,
        description="samples that are read ahead and shuffled together; two such windows are held "
        "in memory",
    )
    skip_damaged: bool = Field(
        default=False,
        description="leave out and count damaged samples and shards instead of stopping",
    )

    @field_validator("atrous_rates")
    @classmethod
    def _rates(
        cls, rates: tuple[int, int, int] | Literal["auto"]
    ) -> tuple[int, int, int] | Literal["auto"]:
        if rates != AUTO and min(rates) < 1:
            raise ValueError(f"expected dilations >= 1, found {list(rates)}")
        return rates

    @field_validator("image_size", mode="before")
    @classmethod
    def _square(cls, size: Any) -> Any:
        is_number = isinstance(size, int) and not isinstance(size, bool)
        return (size, size) if is_number else size

    @field_validator("image_size")
    @classmethod
    def _size(cls, size: tuple[int, int] | None) -> tuple[int, int] | None:
        if size is not None and min(size) < MIN_SIDE_PX:
            raise ValueError(f"expected height and width >= {MIN_SIDE_PX}, found {list(size)}")
        return size

    @property
    def is_unet_gn(self) -> bool:
        """Whether the network is our U-Net, which has no encoder."""
        return self.architecture.lower() == UNET_GN.lower()

    @property
    def encoder_name(self) -> str:
        """The encoder in use, for people; `none` if the architecture has none."""
        return "none" if self.is_unet_gn else self.encoder

    @model_validator(mode="after")
    def _encoder_depth_fits(self) -> SegmenterConfig:
        if self.encoder_depth == 3 and self.output_stride == 16:
            raise ValueError("encoder_depth 3 ends at stride 8: set output_stride to 8")
        return self


# Complete settings by name, as differences from the defaults. None changes the length of the run.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},  # Baranchuk et al. (2022), appendix; theirs had encoder_weights=imagenet
    "modern": {
        "encoder_weights": "cached",
        "encoder_depth": AUTO,
        "input_scale": AUTO,
        "optimizer": "adamw",
        "weight_decay": 0.01,
        "schedule": "cosine",
        "warmup_steps": 500,
        "dice": 1.0,
        "ema": 0.999,
        # Stronger augmentation pays only in long trainings; over some hundred steps it costs mIoU.
        "augment": {"horizontal_flip": True},
    },
    "unet": {  # the strongest on labels alone, if they are few
        "architecture": UNET_GN,
        "averaged": True,
        "optimizer": "adamw",
        "weight_decay": 0.01,
        "schedule": "cosine",
        "warmup_steps": 50,
        "dice": 1.0,
        "ema": 0.99,
        "augment": {
            "horizontal_flip": True,
            "vertical_flip": True,
            "quarter_turns": True,
            "noise": 0.02,
        },
    },
}
