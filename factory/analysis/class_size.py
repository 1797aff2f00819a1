"""Figure 3: blocks and timesteps for small and for large classes; shares the cells of `blocks`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from factory.analysis import grid
from factory.analysis.base import Analysis, Findings, Results, Table, Value
from factory.analysis.grid_figures import heat_map
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
from train_seg.evaluation.evaluate import Spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FINDING = (
    "large classes appear at larger timesteps than small ones, large ones in deep blocks and small "
    "ones in shallow blocks"
)
RULE = (
    "Small and large are the lower and upper third of the classes by mean area in the images in "
    "which they occur. The share of the mIoU at the first third of the timesteps that is left at "
    "the last third must be larger for large classes; and the difference between the shallower and "
    "the deeper half of the blocks at the first third of the timesteps, as a share of their sum, "
    "must be larger for small classes. Both must exceed the standard deviation over the splits."
)


def mean_areas(study: Study) -> dict[str, float]:
    """Mean share of the pixels of each class in the images in which it occurs, ascending."""
    masks = study.masks.flatten(1)
    areas = {}
    for number, name in enumerate(study.classes):
        shares = (masks == number).float().mean(1)
        if (shares > 0).any():
            areas[name] = float(shares[shares > 0].mean())
    return dict(sorted(areas.items(), key=lambda item: item[1]))


def sizes(study: Study) -> dict[str, list[str]]:
    """The small and the large classes."""
    names = list(mean_areas(study))
    third = max(1, len(names) // 3)
    return {"small": names[:third], "large": names[-third:]}


def check(study: Study) -> None:
    """Raise ValueError if there is one class only, or as `grid.check`."""
    grid.check(study)
    if len(mean_areas(study)) < 2:
        raise ValueError("class-size: found one class in the masks, expected two or more")


def summarise(study: Study, results: Results) -> Findings:
    """IoU of small and of large classes in every place."""
    axes, groups, areas = grid.axes(study), sizes(study), mean_areas(study)
    scores = {
        size: [
            [_spread(results, axes.variant(row, column), names) for column in _columns(axes)]
            for row in range(len(axes.rows))
        ]
        for size, names in groups.items()
    }
    rows: list[list[Value]] = [
        [size, name, *row]
        for size, found in scores.items()
        for name, row in zip(axes.rows, found, strict=True)
    ]
    outcome, evidence = _compare(axes, results, groups)
    notes = [
        f"{size}: " + ", ".join(f"{n} ({100 * areas[n]:.1f} % of the pixels)" for n in names)
        for size, names in groups.items()
    ]
    return Findings(
        Table(["classes", "block" if axes.blocks else "map", *axes.columns], rows),
        sentence(FINDING, outcome, evidence),
        f"{ABOVE} {RULE}",
        {"class-size": lambda: _draw(axes, scores)},
        notes,
    )


def _columns(axes: grid.Axes) -> range:
    return range(len(axes.columns))


def _numbers(names: Sequence[str]) -> list[str]:
    return [f"iou.{name}" for name in names]


def _spread(results: Results, variant: str, names: Sequence[str]) -> Spread:
    return Spread.of(list(grid.mean_over(results, [variant], _numbers(names)).values()))


def _compare(
    axes: grid.Axes, results: Results, groups: dict[str, list[str]]
) -> tuple[Outcome, str]:
    """The outcome of RULE, and what was found, in words."""
    rows, columns = range(len(axes.rows)), _columns(axes)
    early, _, late = grid.thirds(len(columns))
    half = len(rows) // 2
    parts = {
        "early": axes.variants(rows, early),
        "late": axes.variants(rows, late),
        "deep": axes.variants(rows[:half], early),
        "shallow": axes.variants(rows[len(rows) - half :], early),
    }
    left: dict[str, dict[int, float]] = {}
    lean: dict[str, dict[int, float]] = {}
    for size, names in groups.items():
        found = {k: grid.mean_over(results, v, _numbers(names)) for k, v in parts.items()}
        left[size] = {i: _share(found["late"][i], found["early"][i]) for i in found["early"]}
        lean[size] = {
            i: _share(
                found["shallow"][i] - found["deep"][i], found["shallow"][i] + found["deep"][i]
            )
            for i in found["deep"]
        }
    outcomes: list[Outcome] = []
    evidence = []
    if len(columns) > 1:
        outcomes.append(is_above(difference(left["large"], left["small"])))
        texts = [points(Spread.of(list(left[size].values()))) for size in ("large", "small")]
        evidence.append(
            f"large classes keep {texts[0]} % of their mIoU at the largest timesteps, small ones "
            f"{texts[1]} %"
        )
    if half:
        outcomes.append(is_above(difference(lean["small"], lean["large"])))
        texts = [points(Spread.of(list(lean[size].values()))) for size in ("small", "large")]
        evidence.append(
            f"shallow blocks lead deep ones by {texts[0]} % for small classes and by {texts[1]} % "
            "for large ones"
        )
    if len(outcomes) < 2:
        outcomes.append("undecided")  # one timestep, or one block
    return all_of(outcomes), "; ".join(evidence) or "there is one map only"


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _draw(axes: grid.Axes, scores: dict[str, list[list[Spread]]]) -> Figure:
    """Two heat maps, or two columns of points without timesteps, on one scale."""
    from train_seg.evaluation.plots import COLOURS, figure_type

    height = max(3.2, 1.2 + 0.22 * len(axes.rows))
    figure = figure_type()(figsize=(9 if axes.timesteps else 5, height), layout="constrained")
    if not axes.timesteps:
        panel = figure.add_subplot()
        for (size, found), colour in zip(scores.items(), COLOURS, strict=False):
            means = [100 * (row[0].mean or 0.0) for row in found]
            panel.plot(means, range(len(means)), "o", color=colour, label=f"{size} classes")
        panel.set_yticks(range(len(axes.rows)), axes.rows)
        panel.invert_yaxis()
        panel.set(xlabel="mIoU")
        panel.legend()
        return figure
    means = [s.mean for found in scores.values() for row in found for s in row if s.mean]
    most = 100 * float(np.max(means or [1.0]))
    panels = figure.subplots(1, 2, sharey=True)
    for panel, (size, found) in zip(panels, scores.items(), strict=True):
        image = heat_map(panel, axes, found, most)
        panel.set_title(f"{size} classes")
        panel.label_outer()
    figure.colorbar(image, ax=panels, label="mIoU")
    return figure


ANALYSIS = Analysis(
    name="class-size",
    title="mIoU of small and of large classes (Figure 3)",
    cells=grid.cells,
    run=grid.run,
    summarise=summarise,
    settings=grid.GridSettings,
    check=check,
    prepare=grid.prepare,
    uses_default_maps=False,
    shares_cells_of=grid.GROUP,
)
