"""The analyses: name, and help line. Nothing heavy is imported: `factory --help` shows them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from factory.analysis.base import Analysis

HELP = {
    "blocks": "which blocks and timesteps are informative (Figure 2)",
    "class-size": "the same for small and for large classes (Figure 3)",
    "clusters": "k-means clusters of the features, as pictures (Figure 4)",
    "labels": "mIoU with fewer labelled images (Table 4)",
}


def find_analysis(name: str) -> Analysis:
    """The analysis `name`: ANALYSIS of its module. Raises ValueError for an unknown name."""
    if name not in HELP:
        raise ValueError(f"unknown analysis '{name}': expected one of {', '.join(HELP)}")
    module = importlib.import_module(f"factory.analysis.{name.replace('-', '_')}")
    return module.ANALYSIS
