"""Figures of an evaluation: confusion matrix, IoU per class, mIoU under corruption."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from train_seg.evaluation.report import Report, row_shares
from train_seg.evaluation.robustness import Robustness

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150
MOST_NUMBERED = 20  # with more classes, numbers in the cells would not be legible
COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#9c6b4e")
GROUPS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "gaussian_blur"),
    "weather": ("snow", "frost", "fog", "brightness", "spatter"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression", "saturate"),
}


def draw(report: Report) -> dict[str, bytes]:
    """PNG files by name: confusion.png, iou.png, and corruptions.png if these were measured.

    Raises:
        ImportError: matplotlib is not installed, with the command that installs it.
    """
    figures = {"confusion.png": _confusion(report), "iou.png": _iou(report)}
    if report.robustness:
        figures["corruptions.png"] = _corruptions(Robustness.average(report.robustness))
    return {name: encode_png(figure) for name, figure in figures.items()}


def figure_type() -> Callable[..., Figure]:
    """matplotlib's Figure, without its global state: no window, no backend.

    Raises ImportError if matplotlib is not installed, with the command that installs it.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("plots need matplotlib: pip install 'dataset-factory[plots]'") from None
    return Figure


def encode_png(figure: Figure) -> bytes:
    """The figure as a PNG file; equal figures give equal bytes."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # names in other scripts become boxes
        # Without the version of matplotlib, so that equal numbers give equal files.
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def _confusion(report: Report) -> Figure:
    """Share of each true class (row) that is predicted as each class (column)."""
    k, shares = len(report.classes), row_shares(report.confusion)
    side = min(12.0, 2.2 + 0.55 * k)
    figure = figure_type()(figsize=(side + 1, side), layout="constrained")
    axes = figure.add_subplot()
    picture = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100)
    axes.set_xticks(range(k), report.classes, rotation=90 if k > 6 else 30, ha="right")
    axes.set_yticks(range(k), report.classes)
    axes.set(xlabel="seen as", ylabel="true class", title="Confusion, % of the true pixels")
    if k <= MOST_NUMBERED:
        for row, column in np.argwhere(~np.isnan(shares)):
            share = shares[row, column]
            colour = "white" if share > 0.5 else "black"
            text = f"{100 * share:.1f}"
            axes.text(column, row, text, color=colour, fontsize=8, ha="center", va="center")
    figure.colorbar(picture, shrink=0.8)
    return figure


def _iou(report: Report) -> Figure:
    """One bar per class; a line shows the standard deviation over several models."""
    spreads = [report.iou(k) for k in range(len(report.classes))]
    k = len(spreads)
    figure = figure_type()(figsize=(6.4, 1.2 + 0.28 * k), layout="constrained")
    axes = figure.add_subplot()
    means = [s.mean or 0.0 for s in spreads]
    axes.barh(range(k), means, xerr=[s.std or 0.0 for s in spreads], color=COLOURS[0])
    axes.set_yticks(range(k), report.classes)
    axes.invert_yaxis()
    miou = report.over_models("miou").mean or 0.0
    axes.axvline(miou, color="black", linewidth=0.8, linestyle="--", label=f"mIoU {miou:.3f}")
    axes.set(xlim=(0, 1), xlabel="IoU")
    axes.legend(loc="lower right")
    return figure


def _corruptions(result: Robustness) -> Figure:
    """One panel per group: mIoU against severity, where 0 is the clean images."""
    groups = {
        group: [name for name in result.names if name in members]
        for group, members in GROUPS.items()
    }
    shown = {group: names for group, names in groups.items() if names}
    rows = -(-len(shown) // 2)
    figure = figure_type()(figsize=(9, 0.6 + 3 * rows), layout="constrained")
    panels = figure.subplots(rows, min(2, len(shown)), squeeze=False, sharey=True).ravel()
    severities = [0, *result.severities]
    for axes, (group, names) in zip(panels, shown.items(), strict=False):
        for name, colour in zip(names, COLOURS, strict=False):
            line = [result.clean, *result.miou[result.names.index(name)]]
            axes.plot(severities, line, marker="o", color=colour, label=name.replace("_", " "))
        axes.axhline(result.clean, color="grey", linewidth=0.8, linestyle="--")
        axes.set(title=group, xlabel="severity", ylabel="mIoU", ylim=(0, 1), xticks=severities)
        axes.legend(fontsize=7, loc="best")
    for axes in panels[len(shown) :]:
        axes.remove()
    figure.suptitle(f"mIoU under corruption: clean {result.clean:.3f}, mPC {result.mpc:.3f}")
    return figure
