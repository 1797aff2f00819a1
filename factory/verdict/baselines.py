"""Segmenters that learn from the labels alone: what everything else has to beat."""

from __future__ import annotations

from typing import Any

from factory.verdict.bench import Bench
from factory.verdict.students import deeplab_settings, unet_settings
from train_seg.network.segmenter import Segmenter


def unet(bench: Bench, is_strong: bool) -> Segmenter:
    """The small U-Net; `is_strong` adds to its augmentation."""
    steps = bench.config.label_steps
    settings = unet_settings(bench.config, bench.size, bench.seed, steps, is_strong)
    name = "unet-strong" if is_strong else "unet"
    return bench.student(name, [bench.labels()], settings)


def deeplab(bench: Bench, name: str = "deeplab", **changes: Any) -> Segmenter:
    """DeepLabV3 with changed settings, under a name of its own."""
    steps = bench.config.label_steps
    settings = deeplab_settings(bench.config, bench.size, bench.seed, steps, **changes)
    return bench.student(name, [bench.labels()], settings)


def strong_deeplab(bench: Bench) -> Segmenter:
    """DeepLabV3 with strong augmentation."""
    return deeplab(bench, "deeplab-strong", is_strong=True)
