"""A slide under the microscope: its stain, its absorbance on a fine grid, and the photograph.

Every structure absorbs a share of the light that passes through (Beer-Lambert): intensity =
light * exp(-absorbance). Absorbances add up, so overlapping red cells darken one another as on a
real slide. The grid is `OVERSAMPLING` times finer than the image, which averages over it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from factory.demo.shapes import Array

FRAME = 64.0  # side of the frame, in the unit of all lengths
OVERSAMPLING = 3  # odd, so that one of the fine samples lies at the pixel's centre

Window = tuple[slice, slice]


def rgb(*values: float) -> Array:
    """A float32 value per channel."""
    return np.array(values, np.float32)


@dataclass(frozen=True)
class Stain:
    """Absorbances of one slide's stain, which vary a little from slide to slide."""

    light: Array  # intensity of the bare slide, 0-1
    red_cell: Array
    nucleus: Array
    platelet: Array
    cytoplasm_gain: Array

    @staticmethod
    def draw(rng: np.random.Generator) -> Stain:
        """A random stain."""
        warmth, lilac = rng.uniform(-1, 1), rng.uniform(0, 1)
        light = rgb(0.945 + 0.02 * warmth, 0.925 - 0.03 * lilac, 0.925 - 0.055 * warmth)
        # Eosin ranges from salmon through pink to the greyish tan of an old or alkaline slide.
        salmon, pink, tan = rgb(0.07, 0.42, 0.42), rgb(0.10, 0.46, 0.27), rgb(0.24, 0.42, 0.36)
        eosin = rng.dirichlet((1.0, 1.0, 0.7)).astype(np.float32)
        red_cell = eosin[0] * salmon + eosin[1] * pink + eosin[2] * tan
        # Azure turns the nucleus blue-violet or, with more eosin, red-purple.
        blueness = rng.uniform()
        nucleus = rgb(0.70 + 0.45 * blueness, 1.55, 0.62 - 0.15 * blueness)
        return Stain(
            light=light,
            red_cell=red_cell * rng.uniform(0.75, 1.25),
            nucleus=nucleus * rng.uniform(0.8, 1.2),
            platelet=rgb(0.50, 0.80, 0.32) * rng.uniform(0.8, 1.2),
            cytoplasm_gain=rng.uniform(0.8, 1.25, 3).astype(np.float32),
        )


class Slide:
    """Absorbance float32 `[3, H, W]` and class ids uint8 `[H, W]` on the fine grid."""

    def __init__(self, size: int) -> None:
        self.side = size * OVERSAMPLING
        self.axis: Array = ((np.arange(self.side) + 0.5) * (FRAME / self.side)).astype(np.float32)
        self.absorbance: Array = np.zeros((3, self.side, self.side), np.float32)
        self.labels: NDArray[np.uint8] = np.zeros((self.side, self.side), np.uint8)

    def window(self, x: float, y: float, reach: float) -> tuple[Window, Array, Array]:
        """The part of the grid within `reach` of (x, y): its slices, and offsets from (x, y)."""
        columns = slice(*np.searchsorted(self.axis, (x - reach, x + reach)).tolist())
        rows = slice(*np.searchsorted(self.axis, (y - reach, y + reach)).tolist())
        return (rows, columns), self.axis[None, columns] - x, self.axis[rows, None] - y

    def add(self, where: Window, amount: Array, colour: Array) -> None:
        """Add `amount` `[h, w]` times the absorbance `colour` `[3]` in a window."""
        self.absorbance[(slice(None), *where)] += colour[:, None, None] * amount

    def texture(self, rng: np.random.Generator, where: Window, wavelength: float) -> Array:
        """Smooth noise of about unit variance in a window; the same field at every size."""
        n = int(FRAME / wavelength) + 1
        coarse = Image.fromarray(rng.standard_normal((n, n), np.float32))
        rows, columns = where
        left, top, right, bottom = columns.start, rows.start, columns.stop, rows.stop
        scale = n / self.side
        fine = coarse.resize(
            (right - left, bottom - top),
            Image.Resampling.BICUBIC,
            box=(left * scale, top * scale, right * scale, bottom * scale),
        )
        return np.asarray(fine, np.float32) * 1.3  # interpolation reduces the variance


def expose(rng: np.random.Generator, slide: Slide, stain: Stain, size: int) -> NDArray[np.uint8]:
    """Beer-Lambert, lens, uneven lamp, sensor noise: an image uint8 `[size, size, 3]`."""
    everywhere = (slice(0, slide.side), slice(0, slide.side))
    # A trace of dried plasma tints the bare slide.
    plasma = np.clip(0.5 + 0.5 * slide.texture(rng, everywhere, 16.0), 0, None) * 0.03
    transmitted = np.exp(-slide.absorbance - plasma)
    image = transmitted.reshape(3, size, OVERSAMPLING, size, OVERSAMPLING).mean((2, 4))
    image = _blur(image, 0.35 + 0.6 * rng.beta(1.0, 2.0))  # mostly in focus
    u = ((np.arange(size) + 0.5) / size - 0.5).astype(np.float32)
    tilt, centre = rng.normal(0, 0.045, 2), rng.uniform(-0.3, 0.3, 2)
    vignette = np.square(u - centre[0])[:, None] + np.square(u - centre[1])[None]
    lamp = 1 + tilt[0] * u[:, None] + tilt[1] * u[None] - rng.uniform(0, 0.16) * vignette
    image = image * stain.light[:, None, None] * lamp * rng.uniform(0.93, 1.03)
    noisy = 255 * image + rng.normal(0, rng.uniform(0.8, 1.6), image.shape)
    return np.ascontiguousarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8).transpose(1, 2, 0))


def _blur(image: Array, sigma: float) -> Array:
    """Defocus: a Gaussian of `sigma` frame units over `[3, H, W]`, with border pixels repeated."""
    size = image.shape[-1]
    step = sigma * size / FRAME
    reach = max(1, int(np.ceil(3 * step)))
    taps = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / step))
    taps = (taps / taps.sum()).astype(np.float32)
    padded = np.pad(image, ((0, 0), (reach, reach), (0, 0)), mode="edge")
    image = sum(t * padded[:, i : i + size] for i, t in enumerate(taps))
    padded = np.pad(image, ((0, 0), (0, 0), (reach, reach)), mode="edge")
    return sum(t * padded[:, :, i : i + size] for i, t in enumerate(taps))
