"""The figures that several analyses share: scores as bars and as lines, in points (0-100)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from train_seg.evaluation.evaluate import Spread
from train_seg.evaluation.plots import COLOURS, figure_type

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROW_INCHES = 0.32
MIOU_LABEL = "mIoU"


def score_bars(names: Sequence[str], scores: Sequence[Spread], label: str = MIOU_LABEL) -> Figure:
    """One bar per name, with its standard deviation."""
    figure = figure_type()(figsize=(5.2, 1.0 + ROW_INCHES * len(names)), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(names))
    means, stds = _means(scores), _stds(scores)
    axes.barh(places, means, xerr=stds, color=COLOURS[0], capsize=3)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set(xlabel=label, xlim=(0, 100))
    axes.grid(axis="x", alpha=0.3)
    return figure


def score_lines(
    x: Sequence[float],
    lines: Mapping[str, Sequence[Spread]],
    x_label: str,
    ticks: Sequence[str] | None = None,
) -> Figure:
    """One line per name over the numbers `x`, with standard deviations."""
    figure = figure_type()(figsize=(4.8, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for i, (name, scores) in enumerate(lines.items()):
        colour = COLOURS[i % len(COLOURS)]
        style = "o-" if i < len(COLOURS) else "s--"
        axes.errorbar(x, _means(scores), yerr=_stds(scores), fmt=style, color=colour, label=name)
    axes.set_xticks(x, ticks or [f"{value:g}" for value in x])
    axes.set(xlabel=x_label, ylabel=MIOU_LABEL)
    axes.grid(alpha=0.3)
    if len(lines) > 1:
        axes.legend(fontsize=8)
    return figure


def class_bars(
    classes: Sequence[str],
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    errors: Mapping[str, Sequence[float]] | None = None,
) -> Figure:
    """One panel per label; in it, one bar per class and series.

    All panels have the same series. `errors` are the standard deviations of each.
    """
    names = list(next(iter(panels.values())))
    height = 1.2 + 0.14 * len(classes) * (len(names) + 1)
    figure = figure_type()(figsize=(1.6 + 4 * len(panels), height), layout="constrained")
    width = 1 / (len(names) + 1)
    all_axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, (label, series) in zip(all_axes, panels.items(), strict=True):
        for i, name in enumerate(names):
            places = [place + i * width for place in range(len(classes))]
            stds = None if errors is None else errors[name]
            colour = COLOURS[i % len(COLOURS)]
            axes.barh(places, series[name], width, xerr=stds, color=colour, label=name)
        axes.set(xlabel=label)
        axes.grid(axis="x", alpha=0.3)
    middle = (len(names) - 1) * width / 2
    all_axes[0].set_yticks([place + middle for place in range(len(classes))], classes)
    all_axes[0].invert_yaxis()
    if len(names) > 1:
        all_axes[-1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _means(scores: Sequence[Spread]) -> list[float]:
    return [100 * (s.mean or 0.0) for s in scores]


def _stds(scores: Sequence[Spread]) -> list[float]:
    return [100 * (s.std or 0.0) for s in scores]
