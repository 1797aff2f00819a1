"""k-means."""

from __future__ import annotations

import numpy as np
import pytest

from factory_core.clustering import assign, fit_centres


def test_separate_groups_are_found() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(3), 50)
    vectors = (10 * np.eye(3)[truth] + rng.normal(0, 0.1, (150, 3))).astype(np.float32)
    centres, distance = fit_centres(vectors, 3, seed=0)
    labels = assign(vectors, centres)
    assert all(len(set(labels[truth == k])) == 1 for k in range(3))
    assert len(set(labels)) == 3
    assert distance == pytest.approx(0.03, rel=0.3)  # three dimensions of variance 0.01


def test_fewer_kinds_than_clusters() -> None:
    with pytest.raises(ValueError, match="found fewer than 3 kinds of vectors"):
        fit_centres(np.zeros((50, 2), np.float32), 3, seed=0)
