"""Red cells and platelets: where they lie, and how they are painted."""

from __future__ import annotations

import math

import numpy as np

from factory.demo.classes import PLATELET, RED_CELL
from factory.demo.shapes import blob, coverage, smooth_min, turned
from factory.demo.slide import FRAME, Slide, Stain
from factory.demo.white_cells import WhiteCell

RedCell = tuple[float, float, float]  # x, y, radius


def place_red_cells(rng: np.random.Generator, whites: list[WhiteCell]) -> list[RedCell]:
    """Random positions; one too close to another cell is dropped."""
    crowding = rng.uniform(0.62, 1.02)  # centre distance over sum of radii: below 1, cells overlap
    typical, cells = rng.uniform(10.2, 12.2), list[RedCell]()
    for _ in range(int(rng.integers(10, 45))):
        x, y = rng.uniform(-8, FRAME + 8, 2).tolist()
        radius = typical * rng.uniform(0.92, 1.08)
        apart = all(math.dist((x, y), (a, b)) > crowding * (radius + r) for a, b, r in cells)
        if apart and all(w.away(x, y) > w.radius + 0.72 * radius for w in whites):
            cells.append((x, y, radius))
    return cells


def paint_red_cell(
    rng: np.random.Generator,
    slide: Slide,
    stain: Stain,
    whites: list[WhiteCell],
    cell: RedCell,
    pallor: float,
) -> None:
    """Add a biconcave disc, flattened where it meets a white cell.

    `pallor` (about 0-1) is how biconcave the cells of this smear are.
    """
    x, y, radius = cell
    outline = turned(rng, blob(rng, radius, 0.02), rng.uniform(0.88, 1.0))
    depth = min(max(pallor + rng.normal(0, 0.1), 0.0), 1.0)
    where, dx, dy = slide.window(x, y, radius * 1.25)
    distance = outline(dx, dy)
    for white in whites:
        if white.away(x, y) < white.radius + 1.5 * radius:
            gap = white.outline(dx + (x - white.x), dy + (y - white.y))
            distance = -smooth_min(-distance, gap - 0.5, 1.2)
    # Thickness of a red cell over its radius u (Evans & Fung 1972), 1 at its thickest.
    u2 = np.square(np.clip(1 + distance / radius, 0, 1))
    biconcave = np.sqrt(1 - u2) * (0.81 + 7.83 * u2 - 4.39 * u2 * u2) / 2.55
    flat = (1 - u2**6) * 0.85
    thickness = depth * biconcave + (1 - depth) * flat + 0.14 * coverage(distance)
    slide.add(where, thickness * rng.uniform(0.85, 1.1), stain.red_cell)
    slide.labels[where][distance < 0] = RED_CELL


def paint_platelets(
    rng: np.random.Generator, slide: Slide, stain: Stain, whites: list[WhiteCell]
) -> None:
    """Add up to four small granular discs beside the white cells."""
    for _ in range(int(rng.choice(5, p=(0.28, 0.30, 0.22, 0.13, 0.07)))):
        x, y = rng.uniform(3, FRAME - 3, 2).tolist()
        radius = rng.uniform(2.8, 4.4)
        if any(w.away(x, y) < w.radius + radius for w in whites):
            continue
        where, dx, dy = slide.window(x, y, radius * 1.8)
        distance = turned(rng, blob(rng, radius, 0.09), rng.uniform(0.68, 1.0))(dx, dy)
        grains = np.clip(1 + 0.35 * slide.texture(rng, where, 1.8), 0.3, 1.8)
        # Granules gather in the middle (granulomere); the margin (hyalomere) stays pale.
        core = np.exp(-np.square(1 + distance / radius) / 0.55)
        body = coverage(distance, 1.0)
        slide.add(where, body * (0.32 + 0.68 * core * grains), stain.platelet)
        slide.labels[where][distance < 0] = PLATELET
