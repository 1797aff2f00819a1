"""The verdict as a table, as Markdown and as a plot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from factory.terminal.text import duration
from factory.verdict.learning_curve import MORE_IMAGES
from factory.verdict.verdict import Row, Verdict
from factory.verdict.wording import points
from factory_core.storage import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

JSON_NAME, MARKDOWN_NAME, PLOT_NAME = "verdict.json", "verdict.md", "verdict.png"
HEADER = ("contender", "mIoU", "over labels alone", "time", "splits")
COLOURS = {"labels": "#4269d0", "factory": "#ff725c", "blind": "#9498a0"}
HOW = "To train it on all labels:"
EXPLANATION = (
    "mIoU in points (0-100), mean ± standard deviation over the splits. Differences are paired on "
    "the same splits, ± a 95 % interval (corrected resampled t-test). Nothing is recommended over "
    "the best labels-only contender unless its interval is above 0. The time is that of one "
    "training with all that it needs, without features and samples, which are made once."
)


def show(verdict: Verdict, console: Console) -> None:
    """Print the table and the sentence."""
    table = Table(title=f"{verdict.images} annotated images, {verdict.splits} splits")
    has_also = any(row.also is not None for row in verdict.rows)
    for column in _header(has_also):
        is_name = column == HEADER[0]  # whole, or several would look alike
        table.add_column(column, justify="left" if is_name else "right", no_wrap=is_name)
    for row in verdict.rows:
        if row.mean is not None:
            style = "bold" if row.name == verdict.decision.winner else None
            table.add_row(*_cells(row, row.mean, verdict, has_also), style=style)
    console.print(table)
    for line in (verdict.sentence, *_facts(verdict)):
        console.print(line)
    if verdict.decision.is_learned:
        console.print(HOW)
        for line in verdict.commands:  # unbroken, to be copied
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)


def write(verdict: Verdict, folder: Path, console: Console) -> list[str]:
    """Write JSON, Markdown and, if matplotlib is installed, a plot; the names of the files."""
    names = [JSON_NAME, MARKDOWN_NAME]
    try:
        write_bytes(folder / PLOT_NAME, _plot(verdict))
        names.append(PLOT_NAME)
    except ImportError as error:
        console.print(f"no plot: {error}")
    text = json.dumps(verdict.to_dict(), indent=1, ensure_ascii=False)
    write_bytes(folder / JSON_NAME, f"{text}\n".encode())
    write_bytes(folder / MARKDOWN_NAME, _markdown(verdict, PLOT_NAME in names).encode())
    return names


def _header(has_also: bool) -> Sequence[str]:
    return (*HEADER, "second set") if has_also else HEADER


def _cells(row: Row, mean: float, verdict: Verdict, has_also: bool) -> list[str]:
    std = "" if row.std is None else f" ± {100 * row.std:.1f}"
    difference = "" if row.difference is None else points(row.difference)
    if row.name == verdict.decision.baseline:
        difference = "best labels only"
    return [
        row.name,
        f"{100 * mean:.1f}{std}",
        difference,
        duration(row.cost_sec or 0),
        f"{row.splits}, {row.note}" if row.note else str(row.splits),
        *([_percent(row.also)] if has_also else []),
    ]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _facts(verdict: Verdict) -> list[str]:
    """What else was found."""
    lines = []
    for name, curve in verdict.curves.items():
        steps = ", ".join(f"{100 * v:.1f} with {n}" for n, v in sorted(curve.means.items()))
        gain = (
            ""
            if curve.gain is None
            else (f"; {MORE_IMAGES} more would probably bring {points(curve.gain)}")
        )
        lines.append(f"More labels, {name}: mIoU {steps} training images{gain}.")
    if verdict.next_images:
        lines.append(f"Annotate next: {', '.join(verdict.next_images)}")
    left_out: dict[str, list[str]] = {}
    for row in verdict.rows:
        if row.mean is None:
            left_out.setdefault(row.note, []).append(row.name)
    lines += [f"Not measured, {why}: {', '.join(names)}" for why, names in left_out.items()]
    return [*lines, *verdict.notes]


def _markdown(verdict: Verdict, has_plot: bool) -> str:
    has_also = any(row.also is not None for row in verdict.rows)
    header = list(_header(has_also))
    lines = ["# Verdict", "", verdict.sentence, ""]
    lines += [f"![]({PLOT_NAME})", ""] if has_plot else []
    lines += ["| " + " | ".join(header) + " |", "| --- " * len(header) + "|"]
    for row in verdict.rows:
        if row.mean is None:
            continue
        cells = _cells(row, row.mean, verdict, has_also)
        if row.name == verdict.decision.winner:
            cells[0] = f"**{cells[0]}**"
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", EXPLANATION, "", "| contender | |", "| --- | --- |"]
    lines += [f"| {row.name} | {row.description} |" for row in verdict.rows]
    lines += ["", *(f"- {line}" for line in _facts(verdict))]
    if verdict.decision.is_learned:
        lines += ["", HOW, "", "```bash", *verdict.commands, "```"]
    return "\n".join(lines) + "\n"


def _plot(verdict: Verdict) -> bytes:
    """Scores of all contenders, and the learning curves if there are any."""
    from train_seg.evaluation.plots import encode_png, figure_type

    rows = [row for row in reversed(verdict.rows) if row.mean is not None]
    panels = 2 if verdict.curves else 1
    figure = figure_type()(figsize=(6.0 * panels, 1.2 + 0.3 * len(rows)), layout="constrained")
    axes = figure.add_subplot(1, panels, 1)
    for place, row in enumerate(rows):
        assert row.mean is not None
        axes.errorbar(
            100 * row.mean, place, xerr=100 * (row.std or 0), fmt="o", color=COLOURS[row.group]
        )
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set(xlabel="mIoU, mean ± std over the splits", title=f"{verdict.images} annotated images")
    axes.grid(axis="x", alpha=0.3)
    if verdict.curves:
        _draw_curves(figure, verdict)
    return encode_png(figure)


def _draw_curves(figure: Figure, verdict: Verdict) -> None:
    axes = figure.add_subplot(1, 2, 2)
    groups = {row.name: row.group for row in verdict.rows}
    for name, curve in verdict.curves.items():
        sizes = sorted(curve.means)
        values = [100 * curve.means[n] for n in sizes]
        axes.plot(sizes, values, "o-", color=COLOURS[groups[name]], label=name)
    axes.set_xscale("log", base=2)
    sizes = sorted({n for curve in verdict.curves.values() for n in curve.means})
    axes.set_xticks(sizes, [str(n) for n in sizes])
    axes.set(xlabel="annotated training images", ylabel="mIoU", title="more labels")
    axes.legend()
    axes.grid(alpha=0.3)
