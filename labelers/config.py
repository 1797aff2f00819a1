"""Settings of a labeler: the `labeler:` section of a recipe.

Each default is declared here and nowhere else; they are those of the DDPM paper's code.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Vote = Literal["majority", "soft", "log_soft"]


class LabelerConfig(BaseModel):
    """The ensemble of pixel classifiers: where it is, how it votes, how it is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: str | None = Field(
        default=None, description="labeler directory (labeler.safetensors + labeler.json)"
    )
    vote: Vote = Field(
        default="majority",
        description="most frequent class; argmax of mean probability; of mean log-probability",
    )
    members: int = Field(default=10, ge=1, description="classifiers in the ensemble")
    hidden: tuple[int, ...] | None = Field(
        default=None, description="hidden widths; (128, 32) under 30 classes, else (256, 128)"
    )
    lr: float = Field(default=1e-3, gt=0, description="Adam's learning rate")
    batch_pixels: int = Field(default=64, ge=2, description="pixels a step, for each member")
    min_epochs: int = Field(default=4, ge=0, description="passes before early stopping may start")
    max_epochs: int = Field(default=100, ge=1, description="passes after which training ends")
    patience_batches: int = Field(
        default=51, ge=1, description="stop after so many batches in a row above the best loss"
    )
    min_class_pixels: int = Field(
        default=20, ge=0, description="a class with fewer pixels in an image is ignored there"
    )
    seed: int = Field(default=0, ge=0, description="seed of the initial weights and pixel orders")

    @field_validator("hidden")
    @classmethod
    def _positive(cls, widths: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if widths is not None and (not widths or min(widths) < 1):
            raise ValueError(f"expected one or more widths >= 1, found {list(widths)}")
        return widths

    def hidden_for(self, classes: int) -> tuple[int, ...]:
        """Hidden widths of a member that tells `classes` classes apart."""
        if self.hidden is not None:
            return self.hidden
        return (128, 32) if classes < 30 else (256, 128)
