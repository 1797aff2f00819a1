"""Figure 2: which blocks and timesteps are informative; one classifier on each map alone."""

from __future__ import annotations

from collections.abc import Sequence

from factory.analysis import grid
from factory.analysis.base import MIOU, Analysis, Findings, Results, Table, Value
from factory.analysis.grid_figures import draw_grid
from factory.analysis.judging import (
    ABOVE,
    Outcome,
    all_of,
    difference,
    is_above,
    points,
    sentence,
)
from factory.analysis.study import Study
from generators.ddpm.model import map_place
from train_seg.evaluation.evaluate import Spread

FINDING = "features are best in the middle blocks and at small timesteps"
RULE = (
    "Compared are the mean over the first third of the timesteps and that over the last, in all "
    "blocks; and, at the first third of the timesteps, the middle third of the blocks with the "
    "deepest and with the shallowest third. All three must hold."
)


def summarise(study: Study, results: Results) -> Findings:
    """mIoU of every place, and the comparisons of RULE."""
    axes = grid.axes(study)
    places = range(len(axes.rows))
    scores = [
        [results.spread(axes.variant(row, column)) for column in range(len(axes.columns))]
        for row in places
    ]
    rows: list[list[Value]] = [[name, *row] for name, row in zip(axes.rows, scores, strict=True)]
    outcomes, evidence = _compare(axes, results)
    best, score = grid.best_place(results, axes)
    evidence.append(f"the best is {describe(best)} with {points(score)}")
    return Findings(
        Table(["block" if axes.blocks else "map", *axes.columns], rows),
        sentence(FINDING, all_of(outcomes), "; ".join(evidence)),
        f"{ABOVE} {RULE}",
        {"blocks": lambda: draw_grid(axes, scores, "mIoU")},
    )


def describe(variant: str) -> str:
    """A map in words: `block 5 at t = 50`."""
    place = map_place(variant)
    return variant if place is None else f"block {place[1]} at t = {place[0]}"


def _compare(axes: grid.Axes, results: Results) -> tuple[list[Outcome], list[str]]:
    """The outcomes of RULE, and what was found, in words."""

    def mean(rows: Sequence[int], columns: Sequence[int]) -> dict[int, float]:
        return grid.mean_over(results, axes.variants(rows, columns), [MIOU])

    outcomes: list[Outcome] = []
    evidence = []
    rows, columns = range(len(axes.rows)), range(len(axes.columns))
    early, _, late = grid.thirds(len(columns))
    if len(columns) > 1:
        low, high = mean(rows, early), mean(rows, late)
        outcomes.append(is_above(difference(low, high)))
        evidence.append(
            f"mIoU is {_points(low)} at {_span(axes, early)} and {_points(high)} at "
            f"{_span(axes, late)}"
        )
    deep, middle, shallow = grid.thirds(len(rows))
    if len(middle):
        means = [mean(part, early) for part in (deep, middle, shallow)]
        outcomes += [is_above(difference(means[1], other)) for other in (means[0], means[2])]
        texts = [_points(each) for each in means]
        evidence.append(
            f"it is {texts[0]} in the deepest, {texts[1]} in the middle and {texts[2]} in the "
            "shallowest third of the blocks"
        )
    if len(outcomes) < 3:
        outcomes.append("undecided")  # too few blocks or timesteps for all comparisons
    return outcomes, evidence


def _points(by_split: dict[int, float]) -> str:
    return points(Spread.of(list(by_split.values())))


def _span(axes: grid.Axes, columns: Sequence[int]) -> str:
    first, last = axes.timesteps[columns[0]], axes.timesteps[columns[-1]]
    return f"t = {first}" if first == last else f"t = {first} to {last}"


ANALYSIS = Analysis(
    name=grid.GROUP,
    title="mIoU of one block at one timestep (Figure 2)",
    cells=grid.cells,
    run=grid.run,
    summarise=summarise,
    settings=grid.GridSettings,
    check=grid.check,
    prepare=grid.prepare,
    uses_default_maps=False,
)
