"""Table 4: fewer labelled images. The training sets are nested subsets of each split's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from factory.analysis.base import Analysis, Cell, Findings, Numbers, Results, Settings, Table, Value
from factory.analysis.base import on_all_splits as on_all
from factory.analysis.judging import ABOVE, difference, is_above, points, sentence
from factory.analysis.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class LabelsSettings(Settings):
    """Also: how many labelled images."""

    choosing = frozenset({"sizes"})

    sizes: tuple[int, ...] | None = Field(
        default=None,
        min_length=1,
        description="numbers of labelled images to train on; none: all, half, and a quarter",
    )


def sizes(study: Study) -> list[int]:
    """Numbers of labelled images, descending."""
    assert isinstance(study.settings, LabelsSettings)
    every = len(study.splits[0].train)
    fractions = {max(1, size) for size in (every, every // 2, every // 4)}
    return sorted(set(study.settings.sizes or fractions), reverse=True)


def check(study: Study) -> None:
    """Raise ValueError for sizes that the splits do not have, or fewer than two."""
    every, found = len(study.splits[0].train), sizes(study)
    if found[0] > every or found[-1] < 1 or len(found) < 2:
        raise ValueError(
            f"labels: found sizes {found}, expected two or more from 1 to {every}, the training "
            "images of a split: set sizes=[...], or annotate more images"
        )


def run(study: Study, cell: Cell) -> Numbers:
    """A labeler on the first images of the split's order."""
    split = study.split(cell.split)
    rows = split.subset(int(cell.variant))
    labeler = study.fit(study.default_maps, rows, split.seed)
    return study.score(labeler, split.test)


def summarise(study: Study, results: Results) -> Findings:
    """mIoU by number of labelled images."""
    found = [str(size) for size in sizes(study)]
    most, least = found[0], found[-1]
    loss = difference(results.by_split(most), results.by_split(least))
    rows: list[list[Value]] = [
        [
            int(name),
            results.spread(name),
            difference(results.by_split(name), results.by_split(most)),
        ]
        for name in found
    ]
    evidence = (
        f"mIoU is {points(results.spread(most))} with {most} labelled images and "
        f"{points(results.spread(least))} with {least}, a difference of {points(loss)}"
    )
    return Findings(
        Table(["labelled images", "mIoU", "minus all images"], rows),
        sentence("fewer labels lower the mIoU", is_above(loss), evidence),
        f"{ABOVE} Compared are the most and the fewest labelled images.",
        {"labels": lambda: _draw(results, found)},
    )


def _draw(results: Results, names: list[str]) -> Figure:
    from train_seg.evaluation.plots import COLOURS, figure_type

    figure = figure_type()(figsize=(4.5, 3.2), layout="constrained")
    axes = figure.add_subplot()
    spreads = [results.spread(name) for name in names]
    counts = [int(name) for name in names]
    means = [100 * (s.mean or 0) for s in spreads]
    stds = [100 * (s.std or 0) for s in spreads]
    axes.errorbar(counts, means, yerr=stds, fmt="o-", color=COLOURS[0], capsize=3)
    axes.set_xticks(counts, names)
    axes.set(xlabel="labelled images", ylabel="mIoU")
    axes.grid(alpha=0.3)
    return figure


ANALYSIS = Analysis(
    name="labels",
    title="mIoU with fewer labelled images (Table 4)",
    cells=lambda study: on_all(study, map(str, sizes(study))),
    run=run,
    summarise=summarise,
    settings=LabelsSettings,
    check=check,
)
