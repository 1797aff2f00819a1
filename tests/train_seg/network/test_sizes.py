"""Settings that adapt to the size of the images."""

from __future__ import annotations

import pytest

from train_seg.config import PRESETS, SegmenterConfig
from train_seg.network.network import build, check_sizes
from train_seg.network.sizes import Sizes, settle_sizes, sizes_of

MODERN = SegmenterConfig(**{**PRESETS["modern"], "encoder": "resnet18", "encoder_weights": None})


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((64, 64), Sizes(2.0, 4, (3, 6, 9))),
        ((96, 200), Sizes(128 / 96, 4, (3, 6, 9))),
        ((16, 16), Sizes(4.0, 4, (2, 3, 4))),  # 8x8 cells: not more than 4 times as large
        ((128, 128), Sizes(1.0, 5, (3, 6, 9))),
        ((256, 256), Sizes(1.0, 5, (6, 12, 18))),
        ((512, 512), Sizes(1.0, 5, (12, 24, 36))),
        ((1024, 2048), Sizes(1.0, 5, (12, 24, 36))),
    ],
)
def test_the_rules(size, expected):
    assert sizes_of(MODERN, size) == expected


def test_the_last_map_has_16_cells_whatever_the_output_stride():
    coarse = MODERN.model_copy(update={"output_stride": 16})
    for config in (MODERN, coarse):
        network = build(config, 3, (64, 64))
        check_sizes(network, (64, 64))
        assert min(network.input_size) // config.output_stride == 16


def test_a_full_resolution_network_needs_no_larger_images():
    config = MODERN.model_copy(update={"architecture": "UNetGN", "width": 8})
    assert build(config, 3, (64, 64)).input_size == (64, 64)


def test_given_values_and_the_papers_are_unchanged():
    given = MODERN.model_copy(
        update={"input_scale": 1.5, "encoder_depth": 3, "atrous_rates": (1, 2, 3)}
    )
    assert sizes_of(given, (64, 64)) == Sizes(1.5, 3, (1, 2, 3))
    assert sizes_of(SegmenterConfig(), (64, 64)) == Sizes(1.0, 5, (12, 24, 36))


def test_settled_settings_are_numbers():
    settled = settle_sizes(MODERN, (64, 64))
    assert (settled.input_scale, settled.encoder_depth) == (2.0, 4)
    assert settle_sizes(settled, (512, 512)) == settled
