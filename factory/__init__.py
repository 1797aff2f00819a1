"""From a generative model and a few annotated images to labelled data and a segmenter.

What is listed in `__all__` is the public Python interface. Each name is loaded on first use, so
that `import factory` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from factory.interface import Generator, generate, label, open_dataset
    from factory.recipe import Recipe
    from labelers.labeler import Labeler
    from train_seg.network.segmenter import Segmenter

__all__ = [
    "Generator",
    "Labeler",
    "Recipe",
    "Segmenter",
    "generate",
    "label",
    "open_dataset",
]
HOMES = {  # of the names that are not in factory.interface
    "Recipe": "factory.recipe",
    "Labeler": "labelers.labeler",
    "Segmenter": "train_seg.network.segmenter",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'factory' has no attribute {name!r}")
    value = getattr(importlib.import_module(HOMES.get(name, "factory.interface")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
