"""Recipes reduced to what decides the bytes of a dataset, and how two of them differ."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

# The settings of a labeler that affect a dataset; the others are for training the labeler.
LABELING_KEYS = ("weights", "vote", "uncertainty", "precision")
# Settings that came after the first datasets: see `Recipe.to_json`.
LATER_KEYS = (
    "dataset.probabilities",
    "generator.encoders",
    "generator.noise_levels",
    "generator.num_heads_upsample",
    "generator.parametrisation",
    "generator.predicts",
    "generator.rescale_timesteps",
    "generator.schedule",
    "generator.train_steps",
    "labeler.clusters",
    "labeler.kind",
    "labeler.network",
    "pictures.page",
    "pictures.percentiles",
    "pictures.range",
    "segmenter.augment.noise",
    "segmenter.averaged",
    "segmenter.soft_labels",
    "segmenter.then",
    "segmenter.unet",
    "segmenter.width",
    "selection.policy",
)


def canonical(recipe: Mapping[str, Any], weights_sha256: Mapping[str, str]) -> dict[str, Any]:
    """A recipe (see `Recipe.to_json`) with each `weights` replaced by the sha256 of its content.

    So the path of the weights does not matter. Sections that do not affect the bytes of a dataset
    are left out: `segmenter`, which reads it, and the settings of the labeler's training.
    """
    result = deepcopy(dict(recipe))
    result.pop("segmenter", None)
    result["labeler"] = {k: v for k, v in result["labeler"].items() if k in LABELING_KEYS}
    for key, digest in weights_sha256.items():
        *sections, name = key.split(".")
        place: Any = result
        for part in sections:
            place = place[int(part) if part.isdecimal() else part]
        place[name] = f"sha256:{digest}"
    return result


def diff(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the fields in which two canonical recipes differ, in order.

    Fields that only one of them has are skipped: they come from a different version of the program,
    not from the user. Those of `LATER_KEYS` differ from the default that the other one has.
    """
    fields = []
    for key in dict.fromkeys([*a, *b]):
        name = f"{prefix}{key}"
        left, right = a.get(key), b.get(key)
        if any(later.startswith(f"{name}.") for later in LATER_KEYS):
            left, right = left or {}, right or {}
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            fields += diff(left, right, f"{name}.")
        elif left != right and ((key in a and key in b) or name in LATER_KEYS):
            fields.append(name)
    return fields
