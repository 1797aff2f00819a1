"""k-means on vectors."""

from __future__ import annotations

import numpy as np
from scipy.cluster.vq import ClusterError, kmeans2, vq

ITERATIONS, STARTS = 50, 4


def fit_centres(vectors: np.ndarray, k: int, seed: int) -> tuple[np.ndarray, float]:
    """Centres float32 `[k, C]` of vectors float32 `[P, C]`, the best of STARTS k-means++ starts.

    Also the mean squared distance of the vectors to their centre. Raises ValueError if there are
    fewer distinct vectors than k.
    """
    rng = np.random.default_rng(seed)
    best, least = np.empty(0, np.float32), np.inf
    for _ in range(STARTS):
        try:
            with np.errstate(invalid="ignore"):  # of equal vectors, which are then refused
                found, _ = kmeans2(vectors, k, ITERATIONS, minit="++", missing="raise", rng=rng)
        except ClusterError:  # one of them is empty
            continue
        distance = float(np.square(vq(vectors, found)[1]).mean())
        if distance < least:
            best, least = found, distance
    if not len(best):
        raise ValueError(f"found fewer than {k} kinds of vectors")
    return best, least


def assign(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The nearest centre of each vector, int32 `[P]`."""
    return vq(vectors, centres)[0]
