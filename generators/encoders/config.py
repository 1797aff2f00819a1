"""Settings of an encoder: a network that only describes images. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

NetworkName = Literal["mae", "swav", "dinov2", "dinov3", "vdvae", "alae", "e4e", "timm", "pixels"]


class EncoderConfig(BaseModel):
    """An encoder: where its weights are, and which of its activations describe a pixel."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["encoder"] = "encoder"
    weights: str = Field(
        description="checkpoint as published, or folder of `train-generator --kind mae`"
    )
    network: NetworkName | None = Field(
        default=None, description="which network; none: by the names of its weights"
    )
    image_size: int | None = Field(
        default=None, ge=8, description="pixels of images and masks; none: of the network's input"
    )
    input_size: int | None = Field(
        default=None,
        ge=8,
        description="pixels that the network sees, to which images are resized; none: what it was "
        "trained at, or the multiple of its patches nearest to image_size",
    )
    layers: tuple[str, ...] | None = Field(
        default=None, description="names of maps; none: those of the paper"
    )
    timm_model: str | None = Field(
        default=None, description="name of the model of --set generator.network=timm"
    )
    heads: int | None = Field(
        default=None,
        ge=1,
        description="of a transformer's attention; none: as in published ones of this width",
    )
    preset: Literal["ffhq256", "ffhq1024", "imagenet64", "cifar10"] | None = Field(
        default=None, description="of a VDVAE: the resolutions of its blocks and its input"
    )
    encoder_blocks: str | None = Field(
        default=None, description="of a VDVAE without preset, such as 32x3,32d2,16x2"
    )
    decoder_blocks: str | None = Field(
        default=None, description="of a VDVAE without preset, such as 16x2,32m16,32x3"
    )
    activations: Literal["encoder", "generator"] | None = Field(
        default=None,
        description="of an e4e or pSp: its own activations (default), or those of its StyleGAN2 at "
        "the codes it finds",
    )
    random_weights: int | None = Field(
        default=None,
        ge=0,
        description="a baseline: random weights from this seed; the file gives the shapes only",
    )
    batch_size: int = Field(default=4, ge=1, description="images per network pass")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="auto: bfloat16 where the hardware multiplies it, else float32"
    )
    encoders: tuple[EncoderConfig, ...] | None = Field(
        default=None, description="further encoders, whose maps are added"
    )

    @property
    def seed(self) -> int:
        """Of a run that samples, which no encoder does."""
        return 0

    @field_validator("layers")
    @classmethod
    def _distinct(cls, layers: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if layers is not None and (not layers or len(set(layers)) < len(layers)):
            raise ValueError(f"expected one or more distinct names, found {list(layers)}")
        return layers

    @field_validator("encoders")
    @classmethod
    def _flat(cls, encoders: tuple[EncoderConfig, ...] | None) -> tuple[EncoderConfig, ...] | None:
        if any(encoder.encoders for encoder in encoders or ()):
            raise ValueError("found encoders inside one of encoders: list them side by side")
        return encoders

    @model_validator(mode="after")
    def _timm_needs_a_name(self) -> EncoderConfig:
        if (self.network == "timm") != (self.timm_model is not None):
            raise ValueError("network=timm and timm_model=NAME belong together: give both")
        return self


PairedWith = Annotated[
    tuple[EncoderConfig, ...] | None,
    Field(description="encoders whose maps describe a pixel, instead of the generator's own"),
]
