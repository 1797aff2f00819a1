"""The grid of blocks and timesteps as a heat map, and as one curve per block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from factory.analysis.grid import Axes
from train_seg.evaluation.evaluate import Spread
from train_seg.evaluation.plots import figure_type

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_CURVES = 8
MOST_NUMBERED = 120  # places of a heat map that are labelled with their number
Scores = list[list[Spread]]  # by row and column


def draw_grid(grid: Axes, scores: Scores, label: str) -> Figure:
    """A heat map beside curves; without timesteps, one point per map."""
    if not grid.timesteps:
        figure = figure_type()(figsize=(5, 1.2 + 0.28 * len(grid.rows)), layout="constrained")
        _points(figure.add_subplot(), grid, [row[0] for row in scores], label)
        return figure
    height = max(3.2, 1.2 + 0.22 * len(grid.rows))
    figure = figure_type()(figsize=(10, height), layout="constrained")
    heat, curves = figure.subplots(1, 2)
    figure.colorbar(heat_map(heat, grid, scores), ax=heat, label=label, shrink=0.9)
    _curves(curves, grid, scores, label)
    return figure


def heat_map(axes: Any, grid: Axes, scores: Scores, most: float | None = None) -> Any:
    """Means in points, rows deep to shallow; the image, for a colour bar. `most` ends the scale."""
    values = np.array([[100 * (s.mean or 0.0) for s in row] for row in scores])
    image = axes.imshow(values, cmap="viridis", aspect="auto", vmin=0 if most else None, vmax=most)
    axes.set_xticks(range(len(grid.timesteps)), [str(t) for t in grid.timesteps], rotation=45)
    axes.set_yticks(range(len(grid.rows)), grid.rows)
    axes.set(xlabel="timestep t", ylabel="block, deep to shallow")
    if values.size <= MOST_NUMBERED:
        dark = image.norm(values) < 0.6
        for row, column in np.ndindex(*values.shape):
            colour = "white" if dark[row, column] else "black"
            text = f"{values[row, column]:.0f}"
            axes.text(column, row, text, color=colour, fontsize=7, ha="center", va="center")
    return image


def _curves(axes: Any, grid: Axes, scores: Scores, label: str) -> None:
    """Mean against timestep, one curve per block, a band of one standard deviation."""
    from matplotlib import colormaps

    count = len(grid.rows)
    shown = sorted({round(i) for i in np.linspace(0, count - 1, min(count, MOST_CURVES))})
    for place, row in enumerate(shown):
        colour = colormaps["plasma"](0.85 * place / max(1, len(shown) - 1))
        means = np.array([100 * (s.mean or 0.0) for s in scores[row]])
        stds = np.array([100 * (s.std or 0.0) for s in scores[row]])
        axes.plot(grid.timesteps, means, "o-", ms=3, color=colour, label=f"block {grid.rows[row]}")
        axes.fill_between(grid.timesteps, means - stds, means + stds, color=colour, alpha=0.15)
    axes.set(xlabel="timestep t", ylabel=label)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))


def _points(axes: Any, grid: Axes, column: list[Spread], label: str) -> None:
    means = [100 * (s.mean or 0.0) for s in column]
    stds = [100 * (s.std or 0.0) for s in column]
    axes.errorbar(means, range(len(means)), xerr=stds, fmt="o", capsize=3)
    axes.set_yticks(range(len(means)), grid.rows)
    axes.invert_yaxis()
    axes.set(xlabel=label)
    axes.grid(axis="x", alpha=0.3)
