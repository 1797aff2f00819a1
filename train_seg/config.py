"""Settings of the segmenter: the `segmenter:` section of a recipe.

Each default is declared only here. The defaults are those of the DDPM paper's DeepLabV3; `PRESETS`
holds complete alternatives.

On 64x64 images, an encoder of output stride 8 leaves an 8x8 map, on which dilations of 8 or more
see nothing but padding. `input_scale: 2` enlarges the images for the network; smaller
`atrous_rates` bring the dilated taps back onto the map.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

INFERENCE_BATCH_SIZE = 16  # images at a time in prediction and evaluation
SHUFFLE_BUFFER = 1000  # samples of a dataset that are shuffled together
MIN_ROUND_STEPS = 50  # a handful of images has epochs too short to validate after each
MAX_LOADERS = 8  # loader processes
SGD_MOMENTUM = 0.9
MIN_SIDE_PX = 8  # of images and tiles


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


class SegmenterConfig(BaseModel):
    """The network and its training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: str = Field(
        default="DeepLabV3", description="a model of segmentation-models-pytorch, e.g. Unet"
    )
    encoder: str = Field(
        default="resnet101", description="an encoder of segmentation-models-pytorch, e.g. resnet18"
    )
    encoder_weights: str | None = Field(
        default=None,
        description="pretrained encoder, e.g. imagenet (downloaded); cached: imagenet if already "
        "downloaded, else random; none: random",
    )
    encoder_depth: int = Field(
        default=5, ge=3, le=5, description="encoder stages used; fewer are cheaper"
    )
    output_stride: Literal[8, 16] = Field(
        default=8,
        description="image pixels per pixel of the encoder's last map, for dilated encoders",
    )
    atrous_rates: tuple[int, int, int] = Field(
        default=(12, 24, 36), description="dilations of the spatial pyramid, if the decoder has one"
    )
    dropout: float | None = Field(
        default=None, ge=0, lt=1, description="in the decoder; none: the architecture's own"
    )
    image_size: tuple[int, int] | None = Field(
        default=None, description="(height, width) of the training images; none: that of the data"
    )
    input_scale: float = Field(
        default=1.0, gt=0, le=8, description="the network sees images enlarged by this factor"
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
    def _rates(cls, rates: tuple[int, int, int]) -> tuple[int, int, int]:
        if min(rates) < 1:
            raise ValueError(f"expected dilations >= 1, found {list(rates)}")
        return rates

    @field_validator("image_size")
    @classmethod
    def _size(cls, size: tuple[int, int] | None) -> tuple[int, int] | None:
        if size is not None and min(size) < MIN_SIDE_PX:
            raise ValueError(f"expected height and width >= {MIN_SIDE_PX}, found {list(size)}")
        return size

    @model_validator(mode="after")
    def _encoder_depth_fits(self) -> SegmenterConfig:
        if self.encoder_depth == 3 and self.output_stride == 16:
            raise ValueError("encoder_depth 3 ends at stride 8: set output_stride to 8")
        return self


# Complete settings by name, as differences from the defaults. None changes the size of the network
# or the length of the run.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},  # Baranchuk et al. (2022), appendix
    "modern": {
        "encoder_weights": "cached",
        "optimizer": "adamw",
        "weight_decay": 0.01,
        "schedule": "cosine",
        "warmup_steps": 500,
        "dice": 1.0,
        "ema": 0.999,
        # Stronger augmentation pays only in long trainings; over some hundred steps it costs mIoU.
        "augment": {"horizontal_flip": True},
    },
}
