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
    "representations": "mIoU on the features of other networks (Table 2)",
    "training-data": "mIoU after training on real or synthetic images (Table 3)",
    "labels": "mIoU with fewer labelled images (Table 4)",
    "noise": "mIoU by noise policy (Table 5)",
    "saturation": "mIoU of segmenters trained on more synthetic images (Table 6)",
    "classifiers": "mIoU with larger classifiers, soft votes, ETF (Table 7, DDPM_VE)",
    "corruptions": "mIoU on corrupted images (Figure 6)",
    "classes": "IoU of each class, and how often it occurs (Figures 9 and 10)",
}


def find_analysis(name: str) -> Analysis:
    """The analysis `name`: ANALYSIS of its module. Raises ValueError for an unknown name."""
    if name not in HELP:
        raise ValueError(f"unknown analysis '{name}': expected one of {', '.join(HELP)}")
    module = importlib.import_module(f"factory.analysis.{name.replace('-', '_')}")
    return module.ANALYSIS
