"""Polygons to pixels and back, exactly.

Coordinates are those of all these formats: (x, y), the first pixel lies between 0 and 1. A pixel
belongs to a polygon if its centre does, by the even-odd rule: where a polygon overlaps itself,
every second layer is a hole. Outlines follow the edges of pixels, so filling an outline gives
back its pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from factory_core.annotated.formats.regions import Region, Tally
from factory_core.images import Size

FARTHEST = 1e7  # px
MOST_CROSSINGS = 4_000_000  # of edges with rows of pixels: more than any outline in a picture has
BAND = 4_000_000  # pixels filled at a time
ELLIPSE_POINTS = 256

# Directions along the edges of pixels, clockwise; the inside lies to the right of each.
EAST, SOUTH, WEST, NORTH = range(4)


def fill(label: str, points: np.ndarray, size: Size) -> tuple[Region | None, bool]:
    """The region of a picture of `size` (H, W) that lies in the polygon float `[N, 2]` (x, y).

    Of a polygon that holds no pixel's centre, the pixel around its middle is taken. The region is
    None if it lies outside the picture; the flag says whether the polygon crosses itself. Raises
    ValueError for fewer than three points, NaN, coordinates far away, and polygons that cross the
    rows of pixels more often than drawings do.
    """
    points = _checked(points)
    (height, width), (low, high) = size, (points.min(0), points.max(0))
    left, right = (int(np.clip(math.ceil(v - 0.5), 0, width)) for v in (low[0], high[0]))
    top, bottom = (int(np.clip(math.ceil(v - 0.5), 0, height)) for v in (low[1], high[1]))
    inside, crossed = np.zeros((bottom - top, right - left), bool), False
    if inside.size:
        rows, columns, signs = _crossings(points, top, bottom)
        columns = np.clip(columns, left, right) - left
        inside, crossed = _filled(inside.shape, rows - top, columns, signs)
    if inside.any():
        return Region(label, inside, top, left), crossed
    x, y = (math.floor(v) for v in points.mean(0))
    if 0 <= x < width and 0 <= y < height:
        return Region(label, np.ones((1, 1), bool), y, x), crossed
    return None, crossed


def noted(label: str, points: np.ndarray, size: Size, tally: Tally) -> Region | None:
    """As `fill`; counts polygons that cross themselves or lie outside the picture."""
    region, crossed = fill(label, points, size)
    tally.crossed += crossed
    if region is None:
        tally.left_out["region outside its picture"] += 1
    return region


def ellipse(
    centre: tuple[float, float], radii: tuple[float, float], degrees: float = 0
) -> np.ndarray:
    """A polygon float64 `[N, 2]` around an ellipse, turned clockwise as it is seen."""
    angles = np.linspace(0, 2 * np.pi, ELLIPSE_POINTS, endpoint=False)
    points = np.stack([np.cos(angles), np.sin(angles)], 1) * radii
    return turned(points + centre, centre, degrees)


def rectangle(x0: float, y0: float, x1: float, y1: float, degrees: float = 0) -> np.ndarray:
    """A polygon float64 `[4, 2]` around a rectangle, turned clockwise about its middle."""
    corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float64)
    return turned(corners, ((x0 + x1) / 2, (y0 + y1) / 2), degrees)


def turned(points: np.ndarray, about: tuple[float, float], degrees: float) -> np.ndarray:
    """Points `[N, 2]` turned clockwise, as it is seen, about a point."""
    angle = math.radians(degrees)
    matrix = [(math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))]
    return (points - about) @ np.array(matrix) + about


def outlines(region: Region) -> list[np.ndarray]:
    """The rings int `[N, 2]` (x, y) around a region, corners only, in the picture's coordinates.

    Those around it come clockwise as it is seen, so their `area` is positive, those around holes
    the other way. Pixels that touch by a corner only get rings of their own.
    """
    inside = np.pad(region.inside, 1)
    up_left, up_right = inside[:-1, :-1], inside[:-1, 1:]
    down_left, down_right = inside[1:, :-1], inside[1:, 1:]
    leaving = (
        (down_right & ~up_right) << EAST
        | (down_left & ~down_right) << SOUTH
        | (up_left & ~down_left) << WEST
        | (up_right & ~up_left) << NORTH
    ).astype(np.uint8)
    across = leaving.shape[1]
    flags, step = leaving.tobytes(), (1, across, -1, -across)
    seen = bytearray(len(flags))  # whether the edge that leaves to the east was followed
    rings = []
    for start in np.flatnonzero(leaving & 1 << EAST).tolist():
        if seen[start]:
            continue
        corners, place, heading = [start], start, EAST
        while True:
            if heading == EAST:
                seen[place] = 1
            place += step[heading]
            # To the right first, which stays on the same pixel where two touch by a corner.
            turn = next(t for t in (1, 0, 3) if flags[place] >> (heading + t) % 4 & 1)
            heading = (heading + turn) % 4
            if place == start and heading == EAST:
                break
            if turn:
                corners.append(place)
        y, x = np.divmod(np.array(corners), across)
        rings.append(np.stack([x + region.left, y + region.top], 1))
    return rings


def area(ring: np.ndarray) -> float:
    """The signed area of a ring `[N, 2]`: positive if it runs clockwise as it is seen."""
    x, y = ring[:, 0], ring[:, 1]
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2


def joined(rings: Sequence[np.ndarray]) -> np.ndarray:
    """One polygon `[N, 2]` of a ring and its holes, joined by bridges without width.

    A bridge is crossed once each way, so it changes no pixel by the even-odd rule.
    """
    outer, *holes = sorted(rings, key=area, reverse=True)
    for hole in holes:
        near = int(np.abs(outer - hole[0]).sum(1).argmin())
        parts = (outer[: near + 1], hole, hole[:1], outer[near:])
        outer = np.concatenate(parts)
    return outer


def _checked(points: np.ndarray) -> np.ndarray:
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3:
        raise ValueError(f"found a polygon of {len(points)} points, expected three or more")
    if not np.isfinite(points).all() or np.abs(points).max() > FARTHEST:
        bad = points[~(np.abs(points) <= FARTHEST)][0]
        raise ValueError(f"found a polygon with the coordinate {bad:g}, expected pixels")
    return points


def _crossings(
    points: np.ndarray, top: int, bottom: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where edges cross the middles of the rows `top` to `bottom`.

    Returns for each crossing its row, the first column whose centre lies to its right (int64), and
    1 for an edge that runs down, else -1 (int8).
    """
    start, end = points, np.roll(points, -1, axis=0)
    first = np.clip(np.ceil(np.minimum(start, end)[:, 1] - 0.5), top, bottom).astype(np.int64)
    last = np.clip(np.ceil(np.maximum(start, end)[:, 1] - 0.5), top, bottom).astype(np.int64)
    number = last - first
    total = int(number.sum())
    if total > MOST_CROSSINGS:
        raise ValueError(
            f"found a polygon of {len(points)} points that crosses {total} rows of pixels, "
            f"expected at most {MOST_CROSSINGS}: simplify it"
        )
    edge = np.repeat(np.arange(len(points)), number)
    rows = np.arange(total) - np.repeat(np.cumsum(number) - number, number) + first[edge]
    slope = np.zeros(len(points))
    (x, y), (dx, dy) = start.T, (end - start).T
    np.divide(dx, dy, out=slope, where=number > 0)
    columns = np.ceil(x[edge] + (rows + 0.5 - y[edge]) * slope[edge] - 0.5)
    return rows, columns.astype(np.int64), np.sign(dy).astype(np.int8)[edge]


def _filled(
    shape: tuple[int, ...], rows: np.ndarray, columns: np.ndarray, signs: np.ndarray
) -> tuple[np.ndarray, bool]:
    """Pixels bool `[h, w]` with an odd number of crossings to their left.

    And whether the polygon winds around a pixel twice, or around pixels in both senses.
    """
    height, width = shape
    inside = np.zeros(shape, bool)
    lowest = highest = 0
    step = max(1, BAND // width)
    for top in range(0, height, step):
        band = min(step, height - top)
        here = (rows >= top) & (rows < top + band)
        places = (rows[here] - top) * (width + 1) + columns[here]
        turns = np.bincount(places, signs[here], band * (width + 1)).astype(np.int32)
        winding = turns.reshape(band, width + 1).cumsum(1, dtype=np.int32)[:, :width]
        inside[top : top + band] = winding & 1
        lowest, highest = min(lowest, int(winding.min())), max(highest, int(winding.max()))
    return inside, highest - lowest > 1
