"""Table 2: labelers on the features of several networks, at equal labelled images."""

from __future__ import annotations

from factory.analysis.base import (
    Analysis,
    Cell,
    Findings,
    Numbers,
    Results,
    Table,
    Value,
    on_all_splits,
)
from factory.analysis.drawing import score_bars
from factory.analysis.judging import (
    ABOVE,
    all_of,
    difference,
    is_above,
    points,
    sentence,
)
from factory.analysis.representing import (
    PIXELS,
    RANDOM,
    Representation,
    notes_on,
    representations,
)
from factory.analysis.study import Study

BASELINES = (RANDOM, PIXELS)


def compared(study: Study) -> list[Representation]:
    """A diffusion model first, then the others and the baselines."""
    return representations(study, BASELINES)


def check(study: Study) -> None:
    """Raise ValueError or OSError for encoders that cannot be used."""
    compared(study)


def prepare(study: Study) -> None:
    """Encode the annotated images with all of them."""
    for found in compared(study):
        found.compute(study)


def run(study: Study, cell: Cell) -> Numbers:
    """A labeler on one representation."""
    found = next(r for r in compared(study) if r.variant == cell.variant)
    labeler = found.fit(study, cell.split)
    return study.score(labeler, study.split(cell.split).test, found.pool)


def summarise(study: Study, results: Results) -> Findings:
    """mIoU by representation, the best first."""
    found = compared(study)
    ours, *others = found
    scores = {r.name: results.spread(r.variant) for r in found}
    gains = {
        r.name: difference(results.by_split(ours.variant), results.by_split(r.variant))
        for r in others
    }
    rows: list[list[Value]] = [
        [
            r.name,
            r.channels,
            scores[r.name],
            difference(results.by_split(r.variant), results.by_split(ours.variant)),
        ]
        for r in sorted(found, key=lambda r: -(scores[r.name].mean or 0))
    ]
    evidence = f"mIoU is {points(scores[ours.name])} with {ours.name}" + "".join(
        f", {points(scores[r.name])} with {r.name}" for r in others
    )
    names = [str(row[0]) for row in rows]
    return Findings(
        Table(["representation", "channels", "mIoU", f"minus {ours.name}"], rows),
        sentence(
            "the features of a diffusion model are better than others",
            all_of(is_above(gain) for gain in gains.values()),
            evidence,
        ),
        f"{ABOVE} {ours.name} has to be better than each of the others.",
        {"representations": lambda: score_bars(names, [scores[name] for name in names])},
        notes_on(found, study),
    )


ANALYSIS = Analysis(
    name="representations",
    title="mIoU by representation (Table 2)",
    cells=lambda study: on_all_splits(study, [r.variant for r in compared(study)]),
    run=run,
    summarise=summarise,
    check=check,
    prepare=prepare,
)
