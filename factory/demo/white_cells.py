"""White blood cells: their kinds, where they lie, and how they are painted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from factory.demo.classes import CYTOPLASM, NUCLEUS
from factory.demo.shapes import Array, Outline, blob, coverage, segment, smooth_min, turned
from factory.demo.slide import FRAME, Slide, Stain, rgb


@dataclass(frozen=True)
class WhiteCellKind:
    """Proportions of a kind of white cell; lengths are fractions of the cell's radius."""

    radius: tuple[float, float]  # of the cell, in frame units
    lobes: tuple[int, int]  # smallest and largest number of lobes of the nucleus
    lobe_radius: float  # of a nucleus with two lobes (one for the lymphocyte)
    arc_radius: float  # distance of the lobes from the cell's centre
    strand_radius: float  # half the thickness of the strands between lobes
    sweep: tuple[float, float]  # angle between first and last lobe, radians
    cytoplasm: Array  # absorbance of red, green and blue light
    granules: Array  # absorbance that a granule adds
    frequency: float  # share of the white cells, 0-1


KINDS = (
    # Neutrophil: pale cytoplasm, fine dust, lobes joined by thin strands.
    WhiteCellKind((13.5, 17.0), (2, 5), 0.38, 0.45, 0.09, (2.2, 4.4),
                  rgb(0.14, 0.30, 0.15), rgb(0.09, 0.15, 0.07), 0.40),
    # Lymphocyte: a large round nucleus in a narrow sky-blue rim.
    WhiteCellKind((12.5, 15.0), (1, 1), 0.74, 0.08, 0.0, (0.0, 0.0),
                  rgb(0.42, 0.29, 0.08), rgb(0.04, 0.04, 0.01), 0.23),
    # Monocyte: a kidney or horseshoe in grey-blue cytoplasm.
    WhiteCellKind((15.0, 17.6), (3, 3), 0.42, 0.40, 0.37, (1.9, 3.3),
                  rgb(0.36, 0.36, 0.18), rgb(0.06, 0.08, 0.03), 0.20),
    # Eosinophil: two lobes among large orange granules.
    WhiteCellKind((14.0, 16.5), (2, 3), 0.38, 0.44, 0.10, (1.8, 2.6),
                  rgb(0.08, 0.32, 0.25), rgb(0.07, 0.42, 0.46), 0.17),
)  # fmt: skip


@dataclass(frozen=True)
class WhiteCell:
    """A white cell on the slide; position and radius in frame units."""

    x: float
    y: float
    radius: float
    kind: WhiteCellKind
    outline: Outline

    def away(self, x: float, y: float) -> float:
        """Distance of a point from the centre."""
        return math.dist((self.x, self.y), (x, y))


def draw_white_cells(rng: np.random.Generator) -> list[WhiteCell]:
    """Usually one near the middle; sometimes none, or two side by side, partly out of the frame."""
    count = rng.choice(3, p=(0.07, 0.75, 0.18))
    bearing, cells = rng.uniform(0, 2 * np.pi), []
    for i in range(count):
        kind = KINDS[rng.choice(len(KINDS), p=[k.frequency for k in KINDS])]
        radius = rng.uniform(*kind.radius)
        away = 0.0 if count == 1 else 17.6 * (1 if i == 0 else -1)
        spread = 9.0 if count == 1 else 0.0
        x = FRAME / 2 + away * float(np.cos(bearing)) + rng.uniform(-spread, spread)
        y = FRAME / 2 + away * float(np.sin(bearing)) + rng.uniform(-spread, spread)
        cells.append(WhiteCell(x, y, radius, kind, blob(rng, radius, 0.025)))
    return cells


def _nucleus(rng: np.random.Generator, cell: WhiteCell, dx: Array, dy: Array) -> Array:
    """Signed distance of the nucleus: a chain of lobes along an arc, joined by strands."""
    kind, r = cell.kind, cell.radius
    # Binomial: three or four lobes are more common than two or five.
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
        lobe = blob(rng, lobe_radius * rng.uniform(0.9, 1.15), 0.06)
        piece = turned(rng, lobe, rng.uniform(0.78, 1.0))(dx - cx, dy - cy)
        distance = piece if distance is None else smooth_min(distance, piece, 0.07 * r)
        if i > 0:
            strand = segment(dx, dy, centres[i - 1], centres[i], kind.strand_radius * r)
            distance = smooth_min(distance, strand, 0.07 * r)
    assert distance is not None
    return np.maximum(distance, cell.outline(dx, dy) + 0.8)


def paint_white_cell(rng: np.random.Generator, slide: Slide, stain: Stain, cell: WhiteCell) -> None:
    """Add the cell to the slide: cytoplasm with granules, and the nucleus."""
    where, dx, dy = slide.window(cell.x, cell.y, cell.radius * 1.25)
    body = cell.outline(dx, dy)
    nucleus = _nucleus(rng, cell, dx, dy)
    inside, in_nucleus = coverage(body), coverage(nucleus, 1.0)
    granules = np.clip(slide.texture(rng, where, 2.0) * 0.5 + 0.45, 0, 1.5)
    # The membrane is a little darker; the nucleus displaces the cytoplasm.
    rim = np.exp(-np.square((body + 1.0) / 1.1))
    cytoplasm = inside * (1 - in_nucleus)
    gain = stain.cytoplasm_gain * rng.uniform(0.85, 1.15)
    slide.add(where, cytoplasm * (0.9 + 0.3 * rim), cell.kind.cytoplasm * gain)
    slide.add(where, cytoplasm * granules * coverage(body + 1.2, 1.5), cell.kind.granules * gain)
    # Chromatin: clumps, and a nucleus thicker in the middle than at its edge.
    clumps = 1 + 0.12 * slide.texture(rng, where, 3.2) + 0.06 * slide.texture(rng, where, 6.0)
    thickness = 0.82 + 0.22 * np.clip(-nucleus / (0.25 * cell.radius), 0, 1)
    # Segmented nuclei are condensed; round and kidney-shaped ones are more open.
    density = rng.uniform(0.95, 1.15) if cell.kind.lobes[0] == 2 else rng.uniform(0.78, 0.95)
    slide.add(where, in_nucleus * clumps * thickness * density, stain.nucleus)
    slide.labels[where][body < 0] = CYTOPLASM
    slide.labels[where][nucleus < 0] = NUCLEUS
