"""How well two labellings of the same pixels agree, whatever the names of their classes."""

from __future__ import annotations

import numpy as np


def mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """Mutual information of two labellings uint8 `[P]` over the mean of their entropies, 0-1."""
    counts = np.zeros((int(a.max()) + 1, int(b.max()) + 1))
    np.add.at(counts, (a, b), 1)
    joint = counts / counts.sum()
    entropies = _entropy(joint.sum(1)) + _entropy(joint.sum(0))
    return 2 * (entropies - _entropy(joint)) / entropies if entropies else 0.0


def _entropy(p: np.ndarray) -> float:
    """In nats."""
    known = p[p > 0]
    return float(-(known * np.log(known)).sum())
