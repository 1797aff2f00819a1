"""Labelers: how a generator's activations become masks and uncertainty.

Names resolve on first use, so that `labelers.config` can be imported without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labelers.annotations import (
        Annotations,
        ImageFolder,
        annotated_size,
        read_annotations,
    )
    from labelers.config import LabelerConfig
    from labelers.ensemble import Ensemble
    from labelers.images import list_images, read_image, read_mask
    from labelers.labeler import GeneratorInfo, Labeler, LabelerInfo, Prediction

_MODULES = {
    "Annotations": "annotations",
    "Ensemble": "ensemble",
    "GeneratorInfo": "labeler",
    "ImageFolder": "annotations",
    "Labeler": "labeler",
    "LabelerConfig": "config",
    "LabelerInfo": "labeler",
    "Prediction": "labeler",
    "annotated_size": "annotations",
    "list_images": "images",
    "read_annotations": "annotations",
    "read_image": "images",
    "read_mask": "images",
}

__all__ = [
    "Annotations",
    "Ensemble",
    "GeneratorInfo",
    "ImageFolder",
    "Labeler",
    "LabelerConfig",
    "LabelerInfo",
    "Prediction",
    "annotated_size",
    "list_images",
    "read_annotations",
    "read_image",
    "read_mask",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
