"""Run-length encodings: alternating runs of pixels outside and inside, the first one outside.

COCO counts down the columns of the whole picture, as a list or packed into a text; CVAT counts
along the rows of a window.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from factory_core.images import Size, wxh

UNIT, MORE = 48, 0x20  # of COCO's text: its zero, and the bit of a letter that is not the last


def from_rows(runs: Sequence[int], size: Size) -> np.ndarray:
    """Pixels bool `[h, w]` of runs along the rows; raises ValueError unless they fill `size`."""
    total = size[0] * size[1]
    # Before an array is made of them: they may be of any size.
    if any(not 0 <= run <= total for run in runs) or sum(runs) != total:
        raise ValueError(f"found runs that do not fill {wxh(size)} pixels")
    counts = np.asarray(runs, np.int64)
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(size)


def to_rows(inside: np.ndarray) -> list[int]:
    """The inverse of `from_rows`."""
    flat = np.concatenate([[False], inside.ravel()])
    starts = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(starts, prepend=0, append=inside.size).tolist()


def from_columns(runs: Sequence[int], size: Size) -> np.ndarray:
    """As `from_rows`, down the columns."""
    return from_rows(runs, size[::-1]).T


def to_columns(inside: np.ndarray) -> list[int]:
    """The inverse of `from_columns`."""
    return to_rows(inside.T)


def from_text(counts: str, size: Size) -> np.ndarray:
    """Pixels bool `[H, W]` of COCO's text; raises ValueError for a text of a different size."""
    from pycocotools import mask

    letters = np.frombuffer(counts.encode(), np.uint8).astype(np.int64) - UNIT
    if letters.size and (letters.min() < 0 or letters.max() >= 64 or letters[-1] & MORE):
        raise ValueError("found a text that is no run-length encoding")
    return mask.decode({"size": list(size), "counts": counts.encode()}).astype(bool)


def to_text(inside: np.ndarray) -> str:
    """The inverse of `from_text`."""
    from pycocotools import mask

    return mask.encode(np.asfortranarray(inside, np.uint8))["counts"].decode()
