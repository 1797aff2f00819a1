"""Stained blood smears drawn from an index: the images of the demo, with exact masks.

Light passes through the smear and every structure takes its share of it (Beer-Lambert):
intensity = light * exp(-absorbance). Absorbances add, so overlapping red cells darken one another
as on a real slide. Shapes are signed distances in units of 1/64 of the frame (negative inside),
sampled on a grid `OVERSAMPLING` times finer than the image and averaged. The mask is the topmost
structure at each pixel's centre. Scalars are Python floats, so that arrays stay float32.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from factory_core.output_folder import contents, refuse_file

CLASSES = ("background", "red cell", "cytoplasm", "nucleus", "platelet")
PALETTE = ((0, 0, 0), (226, 74, 66), (88, 180, 232), (104, 52, 190), (250, 204, 60))
BACKGROUND, RED_CELL, CYTOPLASM, NUCLEUS, PLATELET = range(5)

FRAME = 64.0  # side of the frame in the units of all lengths below
OVERSAMPLING = 3  # odd, so that one of the fine samples lies on the pixel's centre

Array = NDArray[np.floating]
Outline = Callable[[Array, Array], Array]  # offsets from the centre -> signed distance
Window = tuple[slice, slice]
RedCell = tuple[float, float, float]  # x, y, radius


def _rgb(*values: float) -> Array:
    return np.array(values, np.float32)


@dataclass(frozen=True)
class WhiteCellKind:
    """Proportions of a kind of white cell; lengths as fractions of the cell's radius."""

    radius: tuple[float, float]  # of the cell, in frame units
    lobes: tuple[int, int]  # smallest and largest number of lobes of the nucleus
    lobe_radius: float  # of a nucleus with two lobes (one for the lymphocyte)
    arc_radius: float  # distance of the lobes from the cell's centre
    strand_radius: float  # half the thickness of what joins the lobes
    sweep: tuple[float, float]  # angle between first and last lobe, radians
    cytoplasm: Array  # absorbance of red, green and blue light
    granules: Array  # what a granule adds to it
    frequency: float


KINDS = (
    # Neutrophil: pale cytoplasm, fine dust, lobes joined by thin strands.
    WhiteCellKind((13.5, 17.0), (2, 5), 0.38, 0.45, 0.09, (2.2, 4.4),
                  _rgb(0.14, 0.30, 0.15), _rgb(0.09, 0.15, 0.07), 0.40),
    # Lymphocyte: a large round nucleus in a narrow sky-blue rim.
    WhiteCellKind((12.5, 15.0), (1, 1), 0.74, 0.08, 0.0, (0.0, 0.0),
                  _rgb(0.42, 0.29, 0.08), _rgb(0.04, 0.04, 0.01), 0.23),
    # Monocyte: a kidney or horseshoe in grey-blue cytoplasm.
    WhiteCellKind((15.0, 17.6), (3, 3), 0.42, 0.40, 0.37, (1.9, 3.3),
                  _rgb(0.36, 0.36, 0.18), _rgb(0.06, 0.08, 0.03), 0.20),
    # Eosinophil: two lobes among large orange granules.
    WhiteCellKind((14.0, 16.5), (2, 3), 0.38, 0.44, 0.10, (1.8, 2.6),
                  _rgb(0.08, 0.32, 0.25), _rgb(0.07, 0.42, 0.46), 0.17),
)  # fmt: skip


@dataclass(frozen=True)
class Stain:
    """Absorbances of one slide's stain: every slide comes out of the bath a little different."""

    light: Array  # intensity of the bare slide, 0-1
    red_cell: Array
    nucleus: Array
    platelet: Array
    cytoplasm_gain: Array

    @staticmethod
    def draw(rng: np.random.Generator) -> Stain:
        warmth, lilac = rng.uniform(-1, 1), rng.uniform(0, 1)
        light = _rgb(0.945 + 0.02 * warmth, 0.925 - 0.03 * lilac, 0.925 - 0.055 * warmth)
        # Eosin ranges from salmon through pink to the greyish tan of an old or alkaline slide.
        salmon, pink, tan = _rgb(0.07, 0.42, 0.42), _rgb(0.10, 0.46, 0.27), _rgb(0.24, 0.42, 0.36)
        eosin = rng.dirichlet((1.0, 1.0, 0.7)).astype(np.float32)
        red_cell = eosin[0] * salmon + eosin[1] * pink + eosin[2] * tan
        # Azure turns the nucleus blue-violet or, with more eosin, red-purple.
        blueness = rng.uniform()
        nucleus = _rgb(0.70 + 0.45 * blueness, 1.55, 0.62 - 0.15 * blueness)
        return Stain(
            light=light,
            red_cell=red_cell * rng.uniform(0.75, 1.25),
            nucleus=nucleus * rng.uniform(0.8, 1.2),
            platelet=_rgb(0.50, 0.80, 0.32) * rng.uniform(0.8, 1.2),
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
        self.absorbance[(slice(None), *where)] += colour[:, None, None] * amount

    def texture(self, rng: np.random.Generator, where: Window, wavelength: float) -> Array:
        """Smooth noise of unit variance, about, in a window; the same field at every size."""
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
        return np.asarray(fine, np.float32) * 1.3  # interpolation takes some variance away


def _coverage(distance: Array, softness: float = 0.8) -> Array:
    """1 inside, 0 outside, with an edge `softness` wide."""
    return np.clip(0.5 - distance / softness, 0, 1)


def _smooth_min(a: Array, b: Array, blend: float) -> Array:
    """Union of two signed distances with a fillet of size `blend` (Quilez's polynomial minimum)."""
    h = np.clip(0.5 + (b - a) / (2 * blend), 0, 1)
    return b + (a - b) * h - blend * h * (1 - h)


def _blob(rng: np.random.Generator, radius: float, wobble: float) -> Outline:
    """An irregular disc: its radius is modulated by harmonics 2 to 5 of the angle."""
    a, b, c, d = rng.normal(0, wobble, 4) / (1, 2, 3, 4) * np.exp(2j * np.pi * rng.uniform(size=4))
    a, b, c, d = complex(a), complex(b), complex(c), complex(d)

    def distance(dx: Array, dy: Array) -> Array:
        r: Array = np.sqrt(dx * dx + dy * dy) + 1e-6
        z = (dx + 1j * dy) / r  # powers of z are the harmonics: no trigonometry in each pixel
        modulation: Array = (z * z * (a + z * (b + z * (c + z * d)))).real
        return r - radius * (1 + modulation)

    return distance


def _turned(rng: np.random.Generator, outline: Outline, squeeze: float) -> Outline:
    """The shape made `squeeze` times narrower along a random axis."""
    turn = rng.uniform(0, np.pi)
    c, s = float(np.cos(turn)), float(np.sin(turn))
    return lambda dx, dy: outline((c * dx + s * dy) / squeeze, c * dy - s * dx)


def _segment(dx: Array, dy: Array, start: Array, end: Array, radius: float) -> Array:
    """Signed distance to the segment from `start` to `end`, `radius` thick."""
    along = end - start
    t = np.clip(((dx - start[0]) * along[0] + (dy - start[1]) * along[1]) / (along @ along), 0, 1)
    return np.hypot(dx - start[0] - t * along[0], dy - start[1] - t * along[1]) - radius


@dataclass(frozen=True)
class WhiteCell:
    x: float
    y: float
    radius: float
    kind: WhiteCellKind
    outline: Outline

    def away(self, x: float, y: float) -> float:
        """Distance of a point from the centre."""
        return math.dist((self.x, self.y), (x, y))


def _draw_white_cells(rng: np.random.Generator) -> list[WhiteCell]:
    """Usually one near the middle; at times none, or two side by side, partly out of the frame."""
    count = rng.choice(3, p=(0.07, 0.75, 0.18))
    bearing, cells = rng.uniform(0, 2 * np.pi), []
    for i in range(count):
        kind = KINDS[rng.choice(len(KINDS), p=[k.frequency for k in KINDS])]
        radius = rng.uniform(*kind.radius)
        away = 0.0 if count == 1 else 17.6 * (1 if i == 0 else -1)
        spread = 9.0 if count == 1 else 0.0
        x = FRAME / 2 + away * float(np.cos(bearing)) + rng.uniform(-spread, spread)
        y = FRAME / 2 + away * float(np.sin(bearing)) + rng.uniform(-spread, spread)
        cells.append(WhiteCell(x, y, radius, kind, _blob(rng, radius, 0.025)))
    return cells


def _nucleus(rng: np.random.Generator, cell: WhiteCell, dx: Array, dy: Array) -> Array:
    """Signed distance of the nucleus: a chain of lobes along an arc, joined by strands."""
    kind, r = cell.kind, cell.radius
    # Binomial: three or four lobes are commoner than two or five.
    few, many = kind.lobes
    n = few + int(rng.binomial(many - few, 0.5))
    # More lobes share about the same amount of chromatin.
    lobe_radius = kind.lobe_radius * r * (n / few) ** -0.4
    sweep = min(rng.uniform(*kind.sweep) * (0.75 + 0.1 * n), 4.6)
    angles = rng.uniform(0, 2 * np.pi) + np.linspace(0, sweep, n) + rng.normal(0, 0.16, n)
    arc = kind.arc_radius * r * rng.uniform(0.72, 1.15, n)
    centres = np.stack([arc * np.cos(angles), arc * np.sin(angles)], 1).astype(np.float32)
    distance = None
    for i, (cx, cy) in enumerate(centres):
        lobe = _blob(rng, lobe_radius * rng.uniform(0.9, 1.15), 0.06)
        piece = _turned(rng, lobe, rng.uniform(0.78, 1.0))(dx - cx, dy - cy)
        distance = piece if distance is None else _smooth_min(distance, piece, 0.07 * r)
        if i > 0:
            strand = _segment(dx, dy, centres[i - 1], centres[i], kind.strand_radius * r)
            distance = _smooth_min(distance, strand, 0.07 * r)
    assert distance is not None
    return np.maximum(distance, cell.outline(dx, dy) + 0.8)


def _paint_white_cell(
    rng: np.random.Generator, slide: Slide, stain: Stain, cell: WhiteCell
) -> None:
    where, dx, dy = slide.window(cell.x, cell.y, cell.radius * 1.25)
    body = cell.outline(dx, dy)
    nucleus = _nucleus(rng, cell, dx, dy)
    inside, in_nucleus = _coverage(body), _coverage(nucleus, 1.0)
    granules = np.clip(slide.texture(rng, where, 2.0) * 0.5 + 0.45, 0, 1.5)
    # The membrane stands a little darker; the nucleus pushes the cytoplasm aside.
    rim = np.exp(-np.square((body + 1.0) / 1.1))
    cytoplasm = inside * (1 - in_nucleus)
    gain = stain.cytoplasm_gain * rng.uniform(0.85, 1.15)
    slide.add(where, cytoplasm * (0.9 + 0.3 * rim), cell.kind.cytoplasm * gain)
    slide.add(where, cytoplasm * granules * _coverage(body + 1.2, 1.5), cell.kind.granules * gain)
    # Chromatin: clumps, and a nucleus thicker in the middle than at its edge.
    clumps = 1 + 0.12 * slide.texture(rng, where, 3.2) + 0.06 * slide.texture(rng, where, 6.0)
    thickness = 0.82 + 0.22 * np.clip(-nucleus / (0.25 * cell.radius), 0, 1)
    # Segmented nuclei are condensed, round and kidney-shaped ones more open.
    density = rng.uniform(0.95, 1.15) if cell.kind.lobes[0] == 2 else rng.uniform(0.78, 0.95)
    slide.add(where, in_nucleus * clumps * thickness * density, stain.nucleus)
    slide.labels[where][body < 0] = CYTOPLASM
    slide.labels[where][nucleus < 0] = NUCLEUS


def _place_red_cells(rng: np.random.Generator, whites: list[WhiteCell]) -> list[RedCell]:
    """Thrown at random; a throw too close to another cell is lost."""
    crowding = rng.uniform(0.62, 1.02)  # centre distance over sum of radii: below 1, cells overlap
    typical, cells = rng.uniform(10.2, 12.2), list[RedCell]()
    for _ in range(int(rng.integers(10, 45))):
        x, y = rng.uniform(-8, FRAME + 8, 2).tolist()
        radius = typical * rng.uniform(0.92, 1.08)
        apart = all(math.dist((x, y), (a, b)) > crowding * (radius + r) for a, b, r in cells)
        if apart and all(w.away(x, y) > w.radius + 0.72 * radius for w in whites):
            cells.append((x, y, radius))
    return cells


def _paint_red_cell(
    rng: np.random.Generator,
    slide: Slide,
    stain: Stain,
    whites: list[WhiteCell],
    cell: RedCell,
    pallor: float,
) -> None:
    """A biconcave disc, pressed flat where it meets a white cell."""
    x, y, radius = cell
    outline = _turned(rng, _blob(rng, radius, 0.02), rng.uniform(0.88, 1.0))
    depth = min(max(pallor + rng.normal(0, 0.1), 0.0), 1.0)
    where, dx, dy = slide.window(x, y, radius * 1.25)
    distance = outline(dx, dy)
    for white in whites:
        if white.away(x, y) < white.radius + 1.5 * radius:
            gap = white.outline(dx + (x - white.x), dy + (y - white.y))
            distance = -_smooth_min(-distance, gap - 0.5, 1.2)
    # Thickness of a red cell over its radius u (Evans & Fung 1972), 1 at its thickest.
    u2 = np.square(np.clip(1 + distance / radius, 0, 1))
    biconcave = np.sqrt(1 - u2) * (0.81 + 7.83 * u2 - 4.39 * u2 * u2) / 2.55
    flat = (1 - u2**6) * 0.85
    thickness = depth * biconcave + (1 - depth) * flat + 0.14 * _coverage(distance)
    slide.add(where, thickness * rng.uniform(0.85, 1.1), stain.red_cell)
    slide.labels[where][distance < 0] = RED_CELL


def _paint_platelets(
    rng: np.random.Generator, slide: Slide, stain: Stain, whites: list[WhiteCell]
) -> None:
    """None on almost half of the slides, else a few small granular discs beside the white cells."""
    for _ in range(int(rng.choice(5, p=(0.28, 0.30, 0.22, 0.13, 0.07)))):
        x, y = rng.uniform(3, FRAME - 3, 2).tolist()
        radius = rng.uniform(2.8, 4.4)
        if any(w.away(x, y) < w.radius + radius for w in whites):
            continue
        where, dx, dy = slide.window(x, y, radius * 1.8)
        distance = _turned(rng, _blob(rng, radius, 0.09), rng.uniform(0.68, 1.0))(dx, dy)
        grains = np.clip(1 + 0.35 * slide.texture(rng, where, 1.8), 0.3, 1.8)
        # Granules gather in the middle (granulomere); the margin (hyalomere) stays pale.
        core = np.exp(-np.square(1 + distance / radius) / 0.55)
        body = _coverage(distance, 1.0)
        slide.add(where, body * (0.32 + 0.68 * core * grains), stain.platelet)
        slide.labels[where][distance < 0] = PLATELET


def _expose(rng: np.random.Generator, slide: Slide, stain: Stain, size: int) -> NDArray[np.uint8]:
    """Beer-Lambert, lens, uneven lamp, sensor noise: uint8 `[size, size, 3]`."""
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
    """Defocus: a Gaussian of `sigma` frame units over `[3, H, W]`, the border pixels repeated."""
    size = image.shape[-1]
    step = sigma * size / FRAME
    reach = max(1, int(np.ceil(3 * step)))
    taps = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / step))
    taps = (taps / taps.sum()).astype(np.float32)
    padded = np.pad(image, ((0, 0), (reach, reach), (0, 0)), mode="edge")
    image = sum(t * padded[:, i : i + size] for i, t in enumerate(taps))
    padded = np.pad(image, ((0, 0), (0, 0), (reach, reach)), mode="edge")
    return sum(t * padded[:, :, i : i + size] for i, t in enumerate(taps))


def render(index: int, size: int = 64) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw smear number `index`.

    Returns the image, uint8 `[size, size, 3]` RGB, and its mask, uint8 `[size, size]` of ids into
    `CLASSES`. Both depend on the arguments only; another `size` shows the same smear, with other
    sensor noise.
    Raises `ValueError` for a negative index or a size below 16.
    """
    if index < 0:
        raise ValueError(f"index is {index}, expected 0 or more: smears are numbered from 0")
    if size < 16:
        raise ValueError(f"size is {size}, expected at least 16 px: smaller frames show no cells")
    rng = np.random.default_rng(np.random.SeedSequence(index))
    slide, stain = Slide(size), Stain.draw(rng)
    whites = _draw_white_cells(rng)
    pallor = rng.uniform(0.6, 1.05)  # how biconcave the red cells of this smear are
    for cell in _place_red_cells(rng, whites):
        _paint_red_cell(rng, slide, stain, whites, cell, pallor)
    _paint_platelets(rng, slide, stain, whites)
    for white in whites:
        _paint_white_cell(rng, slide, stain, white)
    mask = slide.labels[OVERSAMPLING // 2 :: OVERSAMPLING, OVERSAMPLING // 2 :: OVERSAMPLING]
    return _expose(rng, slide, stain, size), np.ascontiguousarray(mask)


def render_folder(out: Path, indices: range, size: int = 64) -> None:
    """Write `classes.json`, `images/%06d.png` and `masks/%06d.png` (palette PNGs of ids).

    Every file is complete before it gets its name. Files of an earlier rendering are replaced;
    raises FileExistsError if `out` holds anything else, NotADirectoryError if it is a file.
    """
    out = Path(out)
    refuse_file(out)
    described = {"classes": list(CLASSES), "palette": [list(colour) for colour in PALETTE]}
    text, names = (json.dumps(described, indent=2) + "\n").encode(), out / "classes.json"
    if found := contents(out):
        if not (names.is_file() and names.read_bytes() == text):
            raise FileExistsError(
                f"{out} holds {found[0]}, no rendering: give a new or empty folder"
            )
    else:  # first of all, so that an interrupted rendering is known for one
        out.mkdir(parents=True, exist_ok=True)
        temporary = out / ".classes.json.tmp"
        temporary.write_bytes(text)
        os.replace(temporary, names)
    for name in ("images", "masks"):
        (out / name).mkdir(parents=True, exist_ok=True)
    for index in indices:
        pixels, ids = render(index, size)
        mask = Image.fromarray(ids)
        mask.putpalette([value for colour in PALETTE for value in colour])
        _save_png(Image.fromarray(pixels), out / "images" / f"{index:06d}.png")
        _save_png(mask, out / "masks" / f"{index:06d}.png")


def _save_png(image: Image.Image, path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    image.save(temporary, format="PNG")
    os.replace(temporary, path)
