"""How a masked autoencoder is trained. Nothing here imports torch."""

from __future__ import annotations

from pydantic import Field, model_validator

from generators.training.config import TrainingConfig


class MAETrainingConfig(TrainingConfig):
    """ViT-S/8 with a small decoder, for images of some ten pixels to a few hundred."""

    batch_size: int = Field(default=64, ge=1)
    lr: float = Field(
        default=5e-4, gt=0, allow_inf_nan=False, description="peak learning rate of AdamW"
    )
    warmup_steps: int = Field(default=500, ge=0)
    weight_decay: float = Field(
        default=0.05, ge=0, allow_inf_nan=False, description="of matrices and kernels"
    )
    mask_ratio: float = Field(
        default=0.75, gt=0, lt=1, description="share of the patches that the encoder does not see"
    )
    norm_pix_loss: bool = Field(
        default=True, description="the target is each patch less its mean, over its deviation"
    )
    smallest_crop: float = Field(
        default=0.2, gt=0, le=1, description="of an image's area, in random crops; 1: none"
    )
    patch_size: int = Field(default=8, ge=1, description="pixels per side")
    width: int = Field(default=384, ge=4, description="of the encoder, a multiple of 4")
    depth: int = Field(default=12, ge=1, description="blocks of the encoder")
    heads: int = Field(default=6, ge=1, description="of the encoder's attention")
    decoder_width: int = Field(default=192, ge=4, description="a multiple of 4")
    decoder_depth: int = Field(default=4, ge=1)
    decoder_heads: int = Field(default=6, ge=1)

    @model_validator(mode="after")
    def _divisible(self) -> MAETrainingConfig:
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}"
            )
        if not 0 < self.visible < self.patches:
            raise ValueError(
                f"mask_ratio {self.mask_ratio} hides {self.patches - self.visible} of "
                f"{self.patches} patches: set a smaller patch_size, or another mask_ratio"
            )
        for name in ("", "decoder_"):
            width, heads = getattr(self, f"{name}width"), getattr(self, f"{name}heads")
            if width % heads or width % 4:
                raise ValueError(
                    f"{name}width {width} is not divisible by {name}heads {heads} and by 4"
                )
        return self

    @property
    def patches(self) -> int:
        """Their number in an image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def visible(self) -> int:
        """Patches that the encoder sees."""
        return int(self.patches * (1 - self.mask_ratio))
