"""Settings of a labeler: the `labeler:` section of a recipe.

Each default is declared here and nowhere else; those of `reference` training are taken from the
DDPM paper's code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

Kind = Literal["ensemble", "network", "both", "regions", "clusters"]
Vote = Literal["majority", "soft", "log_soft"]
Uncertainty = Literal["js", "entropy"]
Precision = Literal["auto", "float32", "bfloat16"]
FeatureDtype = Literal["float16", "float32"]

# Hidden widths of the DDPM paper, which depend on the number of classes.
MANY_CLASSES = 30
HIDDEN, HIDDEN_OF_MANY = (128, 32), (256, 128)


class ReferenceTraining(BaseModel):
    """The published procedure: Adam on small batches until the best batch loss stays unbeaten."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["reference"] = "reference"
    lr: float = Field(default=1e-3, gt=0, description="Adam's learning rate")
    batch_pixels: int = Field(default=64, ge=2, description="pixels per step and member")
    min_epochs: int = Field(default=4, ge=0, description="passes before early stopping may start")
    max_epochs: int = Field(default=100, ge=1, description="passes after which training ends")
    patience_batches: int = Field(
        default=51, ge=1, description="stop after this many batches in a row above the best loss"
    )
    precision: Precision = Field(
        default="auto", description="of the first layer's products; auto as in prediction"
    )


class FastTraining(BaseModel):
    """Few steps on large batches of normalised features, at a learning rate that falls to zero."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["fast"] = "fast"
    lr: float = Field(default=3e-3, gt=0, description="Adam's highest learning rate")
    batch_pixels: int = Field(default=512, ge=2, description="pixels per step and member")
    steps: int = Field(default=600, ge=1, description="optimiser steps")
    precision: Precision = Field(
        default="auto", description="of the first layer's products; auto as in prediction"
    )


def _with_kind(value: Any) -> Any:
    """`training: {lr: 0.002}` changes the default kind."""
    if isinstance(value, Mapping) and "kind" not in value:
        return {"kind": "reference", **value}
    return value


Training = Annotated[
    ReferenceTraining | FastTraining, Field(discriminator="kind"), BeforeValidator(_with_kind)
]


class NetworkTraining(BaseModel):
    """Fine-tuning the generator's U-Net: AdamW at a learning rate that falls to zero.

    The network sees its images at a fixed small timestep, and the default noise is that of this
    timestep.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    members: int = Field(default=3, ge=1, description="networks, each with its own seed")
    steps: int = Field(default=600, ge=1, description="optimiser steps of each")
    lr: float = Field(default=1e-3, gt=0, description="AdamW's highest learning rate")
    batch_size: int = Field(
        default=8, ge=1, description="images per step; fewer if there are fewer"
    )
    weight_decay: float = Field(default=0.01, ge=0, description="AdamW's")
    noise: float = Field(
        default=0.05, ge=0, description="Gaussian noise on training images in [-1, 1], std"
    )
    flips: bool = Field(default=True, description="random left-right and top-bottom flips")
    quarter_turns: bool = Field(default=True, description="random turns, of square images")
    averaged: bool = Field(
        default=True,
        description="predict the mean over the flips and turns of training: up to eight passes",
    )
    dice: float = Field(
        default=1.0, ge=0, description="weight of the Dice loss added to the cross-entropy"
    )
    ema: float = Field(
        default=0.98, ge=0, lt=1, description="decay of the averaged weights, which are kept"
    )
    precision: Precision = Field(default="auto", description="auto as in prediction")


class LabelerConfig(BaseModel):
    """What labels pixels: where it is, how it votes, how it is trained.

    `members` to `etf_weight`, except for the class weights, are settings of the ensemble.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind = Field(
        default="ensemble",
        description="pixel classifiers on the generator's features; its U-Net, fine-tuned; both; "
        "the regions of a factorized generator, which need no training; or clusters of features",
    )
    weights: str | None = Field(
        default=None, description="labeler directory (labeler.safetensors + labeler.json)"
    )
    vote: Vote = Field(
        default="majority",
        description="most frequent class; argmax of mean probability; of mean log-probability; "
        "networks, and both, always take the argmax of the mean probability",
    )
    uncertainty: Uncertainty = Field(
        default="js", description="members' Jensen-Shannon divergence; entropy of their mean"
    )
    precision: Precision = Field(
        default="auto", description="of prediction; auto is bfloat16 where the device multiplies it"
    )
    members: int = Field(default=10, ge=1, description="classifiers in the ensemble")
    hidden: tuple[int, ...] | None = Field(
        default=None,
        description=f"hidden widths; none: {HIDDEN}, or {HIDDEN_OF_MANY} from {MANY_CLASSES} "
        "classes on",
    )
    training: Training = Field(
        default=ReferenceTraining(), description="`kind: reference` or `fast`, and its settings"
    )
    network: NetworkTraining = NetworkTraining()
    clusters: int = Field(default=3, ge=2, le=64, description="K, of the kind `clusters`")
    class_weights: Literal["none", "balanced"] = Field(
        default="none", description="balanced: every class weighs the same in the loss"
    )
    etf_weight: float = Field(
        default=0, ge=0, description="weight of the ETF regulariser in the loss; 0.4 in the paper"
    )
    min_class_pixels: int = Field(
        default=20, ge=0, description="a class with fewer pixels in an image is ignored there"
    )
    seed: int = Field(default=0, ge=0, description="seed of the initial weights and pixel orders")
    feature_dtype: FeatureDtype = Field(
        default="float16", description="of the features on disk while training"
    )
    keep_features: bool = Field(
        default=False, description="keep the features of the annotated images after training"
    )

    @field_validator("hidden")
    @classmethod
    def _positive(cls, widths: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if widths is not None and (not widths or min(widths) < 1):
            raise ValueError(f"expected one or more widths >= 1, found {list(widths)}")
        return widths

    @property
    def has_ensemble(self) -> bool:
        """Whether pixel classifiers take part."""
        return self.kind in ("ensemble", "both")

    @property
    def has_network(self) -> bool:
        """Whether fine-tuned networks take part."""
        return self.kind in ("network", "both")

    @property
    def has_regions(self) -> bool:
        """Whether classes are names of regions, which are found without labels."""
        return self.kind in ("regions", "clusters")

    @property
    def reads_features(self) -> bool:
        """Whether anything but the image is needed."""
        return self.kind != "network"

    def hidden_for(self, classes: int) -> tuple[int, ...]:
        """Hidden widths of a member for `classes` classes."""
        if self.hidden is not None:
            return self.hidden
        return HIDDEN if classes < MANY_CLASSES else HIDDEN_OF_MANY
