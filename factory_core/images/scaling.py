"""From values of any range to 8 bits: the rule of `Pictures`, and what it clips."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from factory_core.images.channels import Channels
from factory_core.machine import available_cpus
from factory_core.pictures import Pictures
from factory_core.spacing import spaced

EIGHT_BITS = (0.0, 255.0)
# Of a folder at most this many pictures, evenly spaced by name, and of each this many pixels.
MEASURED_FILES, MEASURED_PIXELS = 512, 2**14

Levels = tuple[float, float]


class Sample(NamedTuple):
    """Values of evenly spaced pixels of a picture, NaN and infinities included.

    `is_small`: all values of the picture are whole numbers of 0 to 255.
    """

    values: np.ndarray
    full: Levels
    is_small: bool


def eight_bit_picture(channels: Channels, pictures: Pictures) -> Image.Image:
    """The channels as an image of mode L, RGB, CMYK, LA or RGBA.

    NaN becomes black. Alpha and CMYK have the full range of their type. Raises ValueError, with the
    range of values, if `pictures` does not know the values that become black and white.
    """
    levels = _levels(channels, pictures)
    is_cmyk = channels.colour.shape[-1] == 4
    scaled = _scaled(channels.colour, channels.full if is_cmyk else levels)
    if is_cmyk:
        return Image.fromarray(np.ascontiguousarray(scaled), "CMYK")
    if channels.alpha is not None:
        alpha = _scaled(channels.alpha, levels if levels == EIGHT_BITS else channels.full)
        scaled = np.concatenate([scaled, alpha[..., None]], -1)
    return Image.fromarray(
        np.ascontiguousarray(scaled[..., 0] if scaled.shape[-1] == 1 else scaled)
    )


def levels_over(samples: Sequence[Sample], percentiles: tuple[float, float]) -> Levels:
    """The values that become 0 and 255: percentiles over all samples, or 0 and 255 unchanged."""
    if all(sample.is_small for sample in samples):
        return EIGHT_BITS
    values = np.concatenate([s.values[np.isfinite(s.values)].astype(np.float64) for s in samples])
    if not values.size:
        return EIGHT_BITS
    low, high = (float(level) for level in np.percentile(values, percentiles))
    if low == high:  # nearly everything has one value
        low, high = float(values.min()), float(values.max())
    return (low, high) if low < high else (low, low + 1)


def clipped_share(samples: Iterable[Sample], levels: Levels | None) -> tuple[float, float]:
    """The shares (0-1) of values outside `levels` (None: the range of the type), and of NaN."""
    outside = missing = total = 0
    for values, full, _ in samples:
        low, high = levels or full
        missing += int(np.isnan(values).sum())
        outside += int(((values < low) | (values > high)).sum())
        total += values.size
    return outside / max(total, 1), missing / max(total, 1)


def samples_of(
    paths: Sequence[Path], page: int | None, read: Callable[[Path, int | None], Channels | None]
) -> list[Sample]:
    """Samples of at most MEASURED_FILES of the pictures; those that cannot be read are left out."""
    chosen = [paths[i] for i in spaced(len(paths), MEASURED_FILES)]
    with ThreadPoolExecutor(available_cpus()) as pool:
        found = pool.map(lambda path: _sample(path, path.stat().st_mtime_ns, page, read), chosen)
    return [sample for sample in found if sample is not None]


@lru_cache(maxsize=2 * MEASURED_FILES)  # for the range, then for what it clips
def _sample(
    path: Path,
    changed_ns: int,
    page: int | None,
    read: Callable[[Path, int | None], Channels | None],
) -> Sample | None:
    try:
        channels = read(path, page)
    except (OSError, ValueError):  # reported when the picture is read
        return None
    if channels is None or channels.colour.shape[-1] == 4:
        return None
    pixels = channels.colour.reshape(-1, channels.colour.shape[-1])
    step = max(1, len(pixels) // MEASURED_PIXELS)
    return Sample(pixels[::step].ravel().copy(), channels.full, _is_small(channels))


def _levels(channels: Channels, pictures: Pictures) -> Levels:
    if channels.colour.dtype == np.uint8:
        return EIGHT_BITS
    if pictures.levels is not None:
        return pictures.levels
    if pictures.range == "full" or channels.colour.shape[-1] == 4:
        return channels.full
    if _is_small(channels):
        return EIGHT_BITS
    values = channels.colour[np.isfinite(channels.colour)]
    low, high = (values.min(), values.max()) if values.size else (np.nan, np.nan)
    raise ValueError(
        f"more than 8 bits per channel (values from {low:g} to {high:g}): convert it to 8-bit RGB "
        "or grey"
    )


def _is_small(channels: Channels) -> bool:
    """Whether all values are whole numbers of 0 to 255."""
    return all(
        bool(((values >= 0) & (values <= 255) & (values == np.floor(values))).all())
        for values in (channels.colour, channels.alpha)
        if values is not None
    )


def _scaled(values: np.ndarray, levels: Levels) -> np.ndarray:
    """Values as uint8: linear from `levels` to 0 and 255, the rest clipped; NaN is 0."""
    if values.dtype == np.uint8:
        return values
    low, high = levels
    exact = np.float32 if values.dtype.itemsize <= 2 or values.dtype == np.float32 else np.float64
    with np.errstate(over="ignore", invalid="ignore"):
        scaled: np.ndarray = values.astype(exact)
        scaled -= low
        scaled *= 255 / (high - low)
    return np.nan_to_num(scaled, nan=0, posinf=255, neginf=0).clip(0, 255).round().astype(np.uint8)
