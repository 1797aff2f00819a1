"""How large the network sees an image, and which depth and dilations suit that: `auto` settings.

Dilated encoders end in a map of one cell per `output_stride` pixels. Images of 64x64 leave 8x8
cells: too coarse for boundaries, and on such a map the published dilations see only padding.
"""

from __future__ import annotations

from typing import NamedTuple

from train_seg.config import AUTO, SegmenterConfig

MIN_CELLS = 16  # per side of the encoder's last map
MAX_SCALE = 4.0  # an image costs the square of its scale
PAPER_RATES, PAPER_CELLS = (12, 24, 36), 64  # dilations, and the map they were chosen for
DEPTHS = {"small": 4, "large": 5}  # the deepest stage sees further than a small image reaches


class Sizes(NamedTuple):
    """The settings of `SegmenterConfig` of these names, none of them `auto`."""

    input_scale: float
    encoder_depth: int
    atrous_rates: tuple[int, int, int]


def sizes_of(config: SegmenterConfig, image_size: tuple[int, int]) -> Sizes:
    """The sizes in `config`, chosen by these rules where they are `auto`.

    - `input_scale` enlarges images such that the last map has 16 cells along their shorter side, at
      most 4 times. UNetGN has a map at full resolution and needs no larger images.
    - `encoder_depth` is 4 for images with fewer cells than that, else 5.
    - `atrous_rates` are the published ones times the map's share of 64 cells, at most 1.
    """
    side, wanted = min(image_size), MIN_CELLS * config.output_stride
    if config.input_scale != AUTO:
        scale = float(config.input_scale)
    else:
        scale = 1.0 if config.is_unet_gn else min(MAX_SCALE, max(1.0, wanted / side))
    depth = config.encoder_depth
    if depth == AUTO:
        depth = DEPTHS["small" if side < wanted else "large"]
    rates = config.atrous_rates
    if rates == AUTO:
        share = min(1.0, side * scale / config.output_stride / PAPER_CELLS)
        first, second, third = (max(1, round(rate * share)) for rate in PAPER_RATES)
        rates = (first, second, third)
    return Sizes(scale, depth, rates)


def settle_sizes(config: SegmenterConfig, image_size: tuple[int, int]) -> SegmenterConfig:
    """`config` with `sizes_of` it, so that its network never changes with these rules."""
    return config.model_copy(update=sizes_of(config, image_size)._asdict())
