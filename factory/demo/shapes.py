"""Outlines of cells as signed distances: negative inside, in units of 1/64 of the frame."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Outline = Callable[[Array, Array], Array]  # offsets from the centre -> signed distance


def coverage(distance: Array, softness: float = 0.8) -> Array:
    """1 inside, 0 outside, with an edge `softness` wide."""
    return np.clip(0.5 - distance / softness, 0, 1)


def smooth_min(a: Array, b: Array, blend: float) -> Array:
    """Union of two signed distances with a fillet of size `blend` (Quilez's polynomial minimum)."""
    h = np.clip(0.5 + (b - a) / (2 * blend), 0, 1)
    return b + (a - b) * h - blend * h * (1 - h)


def blob(rng: np.random.Generator, radius: float, wobble: float) -> Outline:
    """An irregular disc: its radius is modulated by harmonics 2 to 5 of the angle."""
    a, b, c, d = rng.normal(0, wobble, 4) / (1, 2, 3, 4) * np.exp(2j * np.pi * rng.uniform(size=4))
    a, b, c, d = complex(a), complex(b), complex(c), complex(d)

    def distance(dx: Array, dy: Array) -> Array:
        r: Array = np.sqrt(dx * dx + dy * dy) + 1e-6
        z = (dx + 1j * dy) / r  # powers of z are the harmonics: no trigonometry in each pixel
        modulation: Array = (z * z * (a + z * (b + z * (c + z * d)))).real
        return r - radius * (1 + modulation)

    return distance


def turned(rng: np.random.Generator, outline: Outline, squeeze: float) -> Outline:
    """The shape scaled by `squeeze` (0-1) along a random axis."""
    turn = rng.uniform(0, np.pi)
    c, s = float(np.cos(turn)), float(np.sin(turn))
    return lambda dx, dy: outline((c * dx + s * dy) / squeeze, c * dy - s * dx)


def segment(dx: Array, dy: Array, start: Array, end: Array, radius: float) -> Array:
    """Signed distance to the segment from `start` to `end`, `radius` thick."""
    along = end - start
    t = np.clip(((dx - start[0]) * along[0] + (dy - start[1]) * along[1]) / (along @ along), 0, 1)
    return np.hypot(dx - start[0] - t * along[0], dy - start[1] - t * along[1]) - radius
