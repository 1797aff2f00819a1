"""How the encoder of a StyleGAN2 is trained. Nothing here imports torch."""

from __future__ import annotations

from pydantic import Field

from generators.training.config import TrainingConfig

FACTORS = (1, 2, 4)  # widths of the first groups of IR-SE50; the last has that of the codes


class E4ETrainingConfig(TrainingConfig):
    """An e4e with a quarter of the published channels, for small images."""

    batch_size: int = Field(
        default=8, ge=2, description="photographs per step, and as many samples of the StyleGAN2"
    )
    lr: float = Field(
        default=1e-3, gt=0, allow_inf_nan=False, description="peak learning rate of Adam"
    )
    warmup_steps: int = Field(default=100, ge=0)
    width: int = Field(
        default=16, ge=16, multiple_of=16, description="channels at the finest level; 64: published"
    )
    style_mixing: float = Field(
        default=0.9, ge=0, le=1, description="share of samples made from two latents"
    )
    code_weight: float = Field(
        default=1.0,
        ge=0,
        allow_inf_nan=False,
        description="of the error of the samples' codes, relative to that of pixels",
    )
    layers_weight: float = Field(
        default=0.1,
        ge=0,
        allow_inf_nan=False,
        description="of the squared distance of an image's codes from its first one",
    )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of all groups but the last."""
        return tuple(self.width * factor for factor in FACTORS)
