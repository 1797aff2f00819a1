"""Settings that the training of every kind of generator shares. Nothing here imports torch."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field


class TrainingConfig(BaseModel):
    """How a generator is trained; subclasses add what depends on its kind."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    # Settings that may differ when a training is resumed.
    changeable: ClassVar[tuple[str, ...]] = ("preview_every", "skip_damaged")

    image_size: int = Field(default=64, ge=8, description="training resolution in pixels, square")
    steps: int = Field(default=20_000, ge=1, description="optimiser steps")
    batch_size: int = Field(default=16, ge=1)
    lr: float = Field(gt=0, allow_inf_nan=False, description="learning rate")
    flips: bool = Field(default=False, description="random left-right and top-bottom flips")
    quarter_turns: bool = Field(default=False, description="random turns by 90 degrees")
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = Field(default=0, ge=0, lt=2**63)
    checkpoint_every: int = Field(default=100, ge=1, description="steps between checkpoints")
    preview_every: int = Field(default=500, ge=1, description="steps between sample grids")
    skip_damaged: bool = Field(
        default=False, description="leave out and count images that cannot be read"
    )
