"""Columns of samples.parquet and of the candidates' row files as arrays."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


def class_pixels_of(table: pa.Table) -> np.ndarray:
    """The column `class_pixels` of N candidates as int64 `[N, K]`."""
    counts = table["class_pixels"].combine_chunks().flatten().to_numpy()
    return counts.reshape(len(table), -1)
