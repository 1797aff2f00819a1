"""The curves of a training: curves.csv after each round, curves.png at the end."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from factory_core.storage import write_bytes
from train_seg.evaluation.plots import COLOURS, encode_png, figure_type

TABLE_NAME = "curves.csv"
PLOT_NAME = "curves.png"


def write_table(out: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Write `out`/curves.csv; all rows of `history` have the same keys."""
    text = io.StringIO()
    writer = csv.DictWriter(text, history[-1])
    writer.writeheader()
    writer.writerows(history)
    write_bytes(out / TABLE_NAME, text.getvalue().encode())


def write_plot(out: Path, history: Sequence[Mapping[str, float]], first: int = 0) -> None:
    """Write `out`/curves.png if matplotlib is installed; curves.csv has the same numbers."""
    try:
        picture = draw_curves(history, first)
    except ImportError:
        return
    write_bytes(out / PLOT_NAME, picture)


def draw_curves(history: Sequence[Mapping[str, float]], first: int = 0) -> bytes:
    """PNG of the loss over the steps and, if there was validation, of the mIoU.

    `history` holds the rows of curves.csv; the last stage begins with row `first`. Raises
    ImportError if matplotlib is not installed.
    """
    steps = [row["step"] for row in history]
    figure = figure_type()(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    marker = "o" if len(steps) < 30 else None
    axes.plot(steps, [row["loss"] for row in history], color=COLOURS[0], marker=marker)
    axes.set(xlabel="step", ylim=(0, None))
    axes.set_ylabel("loss, mean since the last point", color=COLOURS[0])
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.3)
    if first:
        axes.axvline(steps[first - 1], color="grey", linestyle=":")
    if history and "miou" in history[0]:
        right, miou = axes.twinx(), [row["miou"] for row in history]
        right.plot(steps, miou, color=COLOURS[2], marker=marker)
        right.set(ylim=(0, 1))
        right.set_ylabel("validation mIoU", color=COLOURS[2])
        best = first + int(np.argmax(miou[first:]))
        axes.set_title(f"best mIoU {miou[best]:.3f} at step {int(steps[best])}")
    return encode_png(figure)
