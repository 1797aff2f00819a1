"""k-means, and how well clusters follow classes."""

from __future__ import annotations

import warnings

import numpy as np
from scipy.cluster.vq import kmeans2, vq

FIT_VECTORS = 20_000  # drawn at random for the fit; all are assigned
STARTS = 4


def fit_centres(vectors: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Centres float32 `[k, C]` of vectors float32 `[P, C]`: the best of STARTS k-means++ starts."""
    rng = np.random.default_rng(seed)
    some = vectors[rng.permutation(len(vectors))[:FIT_VECTORS]]
    best, least = some[:k], np.inf
    for _ in range(STARTS):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "One of the clusters is empty")
            centres, _ = kmeans2(some, k, iter=30, minit="++", rng=rng)
        distortion = float(np.square(vq(some, centres)[1]).mean())
        if distortion < least:
            best, least = centres, distortion
    return best


def assign(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The nearest centre of each vector, int32 `[P]`."""
    return vq(vectors, centres)[0]


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
