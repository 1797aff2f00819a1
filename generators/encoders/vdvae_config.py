"""Settings of a VDVAE: the blocks of its network. Nothing here imports torch."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from generators.training.config import TrainingConfig

MAX_RESOLUTION_PX, MAX_BLOCKS = 4096, 1000
PART = re.compile(r"(\d{1,4})(?:([xdm])(\d{1,4}))?")
EXAMPLES = {"d": "32x2,32d2,16x2", "m": "16x2,32m16,32x1"}


class Block(NamedTuple):
    """A block at a `resolution`; `down`: its output is pooled by this; `source`: it adds this map.

    Both are 0 if they do not apply.
    """

    resolution: int
    down: int = 0
    source: int = 0


def read_blocks(text: str, letter: str) -> tuple[Block, ...]:
    """The blocks that a string such as 32x2,32d2,16x1 describes, in order.

    `RxN` are N blocks at R pixels; `RdK` (encoder, `letter` d) is pooled by K; `RmS` (decoder,
    `letter` m) first adds the map of S pixels. Raises ValueError in one line for anything else.
    """
    blocks: list[Block] = []
    for part in text.split(","):
        found = PART.fullmatch(part.strip())
        if not found or found[2] not in (None, "x", letter):
            raise ValueError(f"unknown block {part!r}: expected a list such as {EXAMPLES[letter]}")
        resolution, number = int(found[1]), int(found[3] or 1)
        if not 0 < resolution <= MAX_RESOLUTION_PX or not 0 < number <= MAX_RESOLUTION_PX:
            raise ValueError(f"block {part!r}: expected numbers from 1 to {MAX_RESOLUTION_PX}")
        if found[2] == "d":
            blocks.append(Block(resolution, down=number))
        elif found[2] == "m":
            blocks.append(Block(resolution, source=number))
        else:
            blocks += [Block(resolution)] * number
        if len(blocks) > MAX_BLOCKS:
            raise ValueError(f"found more than {MAX_BLOCKS} blocks, expected fewer")
    return tuple(blocks)


def _encoder_blocks(text: str) -> str:
    blocks = read_blocks(text, "d")
    for block, after in zip(blocks, (*blocks[1:], None), strict=True):
        if block.down == 1 or (block.down and block.resolution % block.down):
            raise ValueError(f"{block.resolution} pixels cannot be pooled by {block.down}")
        result = block.resolution // (block.down or 1)
        if after is not None and after.resolution != result:
            raise ValueError(
                f"a block at {after.resolution} follows one whose output has {result} pixels"
            )
    return text


def _decoder_blocks(text: str) -> str:
    seen: set[int] = set()
    for block in read_blocks(text, "m"):
        if block.source and (block.source not in seen or block.resolution % block.source):
            raise ValueError(f"{block.resolution}m{block.source}: no such map was made before")
        seen.add(block.resolution)
    return text


EncoderBlocks = Annotated[str, AfterValidator(_encoder_blocks)]
DecoderBlocks = Annotated[str, AfterValidator(_decoder_blocks)]
Width = Annotated[int, Field(ge=1, le=65536)]


class VDVAEShape(BaseModel):
    """Shape of a VDVAE (Child 2021) and its normalisation: everything except its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder_blocks: EncoderBlocks = Field(description="such as 32x2,32d2,16x2")
    decoder_blocks: DecoderBlocks = Field(description="such as 16x2,32m16,32x1")
    widths: Mapping[int, Width] = Field(description="channels at each resolution in pixels")
    zdim: Width = Field(default=16, description="channels of the latent of a block")
    bottleneck: float = Field(
        default=0.25, gt=0, le=1, description="inner width of a block / its width"
    )
    no_bias_above: int = Field(
        default=64, ge=0, description="maps up to this resolution start from learned values"
    )
    mixtures: int = Field(default=10, ge=1, le=1000, description="logistics per pixel")
    shift: float = Field(default=-127.5, allow_inf_nan=False, description="added to 0-255")
    scale: float = Field(default=1 / 127.5, gt=0, allow_inf_nan=False, description="then a factor")

    @model_validator(mode="after")
    def _blocks_fit(self) -> VDVAEShape:
        encoder, decoder = self.encoder, self.decoder
        made = {encoder[0].resolution, *(b.resolution // (b.down or 1) for b in encoder)}
        if decoder[-1].resolution != self.image_size:
            raise ValueError(
                f"the decoder ends at {decoder[-1].resolution} pixels, the encoder begins at "
                f"{self.image_size}: expected the same"
            )
        if missing := {b.resolution for b in decoder} - made:
            raise ValueError(f"the decoder has blocks at {missing.pop()}, but the encoder no map")
        if missing := made - set(self.widths):
            raise ValueError(f"found no width for resolution {missing.pop()}")
        return self

    @property
    def encoder(self) -> tuple[Block, ...]:
        """Blocks of the encoder, fine to coarse."""
        return read_blocks(self.encoder_blocks, "d")

    @property
    def decoder(self) -> tuple[Block, ...]:
        """Blocks of the decoder, coarse to fine."""
        return read_blocks(self.decoder_blocks, "m")

    @property
    def image_size(self) -> int:
        """Pixels per side."""
        return self.encoder[0].resolution

    @property
    def biased(self) -> tuple[int, ...]:
        """Resolutions of the decoder's maps that start from learned values, coarse to fine."""
        found = {block.resolution for block in self.decoder}
        return tuple(sorted(r for r in found if r <= self.no_bias_above))

    def inner(self, resolution: int) -> int:
        """Inner width of a block at `resolution`."""
        return int(self.widths[resolution] * self.bottleneck + 1e-6)


class Preset(NamedTuple):
    """What the weights of a published VDVAE do not say."""

    encoder_blocks: str
    decoder_blocks: str
    shift: float
    scale: float


# fmt: off
PRESETS: Mapping[str, Preset] = {
    "cifar10": Preset("32x11,32d2,16x6,16d2,8x6,8d2,4x3,4d4,1x3",
                      "1x1,4m1,4x2,8m4,8x5,16m8,16x10,32m16,32x21",
                      -120.63838, 1 / 64.16736),
    "imagenet64": Preset("64x11,64d2,32x20,32d2,16x9,16d2,8x8,8d2,4x7,4d4,1x5",
                         "1x2,4m1,4x3,8m4,8x7,16m8,16x15,32m16,32x31,64m32,64x12",
                         -115.92961967, 1 / 69.37404),
    "ffhq256": Preset("256x3,256d2,128x8,128d2,64x12,64d2,32x17,32d2,16x7,16d2,8x5,8d2,4x5,4d4,1x4",
                      "1x2,4m1,4x3,8m4,8x4,16m8,16x9,32m16,32x21,64m32,64x13,128m64,128x7,256m128",
                      -112.8666757481, 1 / 69.84780273),
    # The original normalises images in 0-1.
    "ffhq1024": Preset("1024x1,1024d2,512x3,512d2,256x5,256d2,128x7,128d2,64x10,64d2,32x14,32d2,"
                       "16x7,16d2,8x5,8d2,4x5,4d4,1x4",
                       "1x2,4m1,4x3,8m4,8x4,16m8,16x9,32m16,32x20,64m32,64x14,128m64,128x7,256m128,"
                       "256x2,512m256,1024m512",
                       -0.4387 * 255, 1 / (0.2743 * 255)),
}
# fmt: on

COARSEST_PX, NEXT_TO_ONE_PX = 8, 4


def derived_blocks(image_size: int, number: int) -> tuple[str, str]:
    """Blocks of encoder and decoder for images of `image_size` pixels, `number` per resolution.

    The resolution is halved down to 4 pixels or so, then pooled to 1. Raises ValueError if it
    cannot be halved to `COARSEST_PX`.
    """
    sizes = [image_size]
    while sizes[-1] % 2 == 0 and sizes[-1] // 2 >= NEXT_TO_ONE_PX:
        sizes.append(sizes[-1] // 2)
    if sizes[-1] > COARSEST_PX:
        step = 2 ** len(sizes)
        nearest = max(1, round(image_size / step)) * step
        raise ValueError(
            f"image_size {image_size} cannot be halved to {COARSEST_PX} pixels or fewer: expected "
            f"one such as {nearest}"
        )
    sizes.append(1)
    encoder = [f"{a}x{number},{a}d{a // b}" for a, b in itertools.pairwise(sizes)]
    decoder = [f"{a}m{b},{a}x{number}" for a, b in itertools.pairwise(sizes)]
    ends = f"1x{number}"
    return ",".join([*encoder, ends]), ",".join([ends, *reversed(decoder)])


class VDVAETrainingConfig(TrainingConfig):
    """How a VDVAE is trained on one's own images: by the ELBO alone, as in the paper."""

    # The learning rate is constant after the warm-up, so a training can be made longer.
    changeable: ClassVar[tuple[str, ...]] = (*TrainingConfig.changeable, "steps")

    lr: float = Field(default=1e-3, gt=0, allow_inf_nan=False, description="learning rate of AdamW")
    width: Width = Field(default=128, description="channels of all maps")
    blocks: int = Field(default=1, ge=1, le=100, description="at each resolution, beside one more")
    zdim: Width = Field(default=16, description="channels of the latent of a block")
    mixtures: int = Field(default=10, ge=1, le=100, description="logistics per pixel")
    warmup_steps: int = Field(default=100, ge=0, description="steps until the full learning rate")
    weight_decay: float = Field(default=0.01, ge=0, allow_inf_nan=False)
    ema_decay: float = Field(default=0.999, ge=0, lt=1, description="of the averaged weights")
    grad_clip: float = Field(
        default=10.0, gt=0, description="largest norm of the gradient, in nats per dimension"
    )
    skip_above: float = Field(
        default=200.0, gt=0, description="steps whose gradient has a larger norm are skipped"
    )

    @model_validator(mode="after")
    def _has_blocks(self) -> VDVAETrainingConfig:
        derived_blocks(self.image_size, self.blocks)
        return self

    @property
    def shape(self) -> VDVAEShape:
        """The network to train."""
        encoder, decoder = derived_blocks(self.image_size, self.blocks)
        sizes = {block.resolution for block in read_blocks(decoder, "m")}
        return VDVAEShape(
            encoder_blocks=encoder,
            decoder_blocks=decoder,
            widths=dict.fromkeys(sorted(sizes), self.width),
            zdim=self.zdim,
            mixtures=self.mixtures,
        )
