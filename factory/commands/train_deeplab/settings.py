"""The settings of a segmenter: from options, a preset, a recipe, or the dataset's own recipe."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from factory.commands.train_deeplab.job import is_dataset
from factory.commands.train_deeplab.start import network_of
from factory.recipe import load_recipe
from factory.recipe.settings import build_settings
from factory_core.dataset import read_manifest
from factory_core.storage import Store
from train_seg.config import PRESETS, UNET_GN, SegmenterConfig

GENERATOR_PRESET = "unet"  # for a start from a generator


def segmenter_config(
    data: Sequence[Path | Store | str],
    recipe: str | None,
    preset: str | None,
    given: Mapping[str, Any],
    overrides: Sequence[str],
    init: str | None = None,
) -> SegmenterConfig:
    """Start from `preset`, else from `recipe`, else from the recipe of the first dataset.

    `given` (None: not given) and `overrides` (`KEY=VALUE`, e.g. `augment.hue=0.05`) win over these.
    With `init`, a segmenter decides the network, and a generator the preset (`unet`) unless one is
    given. Raises ValueError for an unknown preset, for both a preset and a recipe, or for an
    encoder that the network does not have.
    """
    content: dict[str, Any] = {}
    datasets = [d for d in data if is_dataset(d)]
    network = {} if init is None else network_of(init)
    if preset is None and recipe is None and init is not None and not network:
        preset = GENERATOR_PRESET
    if preset is not None:
        if recipe is not None:
            raise ValueError("found --preset and --recipe, expected one: each sets everything")
        if preset not in PRESETS:
            raise ValueError(f"--preset {preset}: expected {', '.join(PRESETS)}")
        content = copy.deepcopy(PRESETS[preset])
    elif recipe is not None:
        content = load_recipe(recipe).segmenter.model_dump(mode="json")
    elif datasets:
        content = dict(read_manifest(datasets[0]).recipe.get("segmenter", {}))
    content |= network
    content |= {key: value for key, value in given.items() if value is not None}
    config = build_settings(SegmenterConfig, content, overrides, "segmenter settings")
    if config.is_unet_gn and given.get("encoder") is not None:
        raise ValueError(f"--encoder {given['encoder']}: {UNET_GN} has no encoder; leave it out")
    return config


def mixture(text: str) -> list[float]:
    """The shares in `--mix A,B,...`; raises ValueError if one is not a number."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--mix {text}: expected numbers such as 0.9,0.1") from None
