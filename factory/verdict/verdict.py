"""The verdict of a comparison, as numbers: what the table, the plot and the JSON show."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from factory.verdict.contenders import Contender
from factory.verdict.decision import Decision, decide
from factory.verdict.learning_curve import MORE_IMAGES, Curve
from factory.verdict.results import Cell, Results, scores
from factory.verdict.statistics import CONFIDENCE, Interval


@dataclass(frozen=True)
class Row:
    """One contender: mean and sample standard deviation of mIoU over its splits.

    `difference` is that from the best labels-only contender on the same splits, None for this one;
    `also` the mean mIoU on the second labelled set; `note` why it has few splits, or none.
    """

    name: str
    description: str
    group: str
    splits: int
    mean: float | None = None
    std: float | None = None
    difference: Interval | None = None
    cost_sec: float | None = None
    also: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Verdict:
    """Everything a comparison found."""

    images: int
    splits: int
    rows: list[Row]
    decision: Decision
    sentence: str
    commands: list[str]
    curves: dict[str, Curve] = field(default_factory=dict)
    next_images: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """For JSON; mIoU and differences are 0-1."""
        d = self.decision
        return {
            "sentence": self.sentence,
            "recommended": d.winner if d.is_learned else None,
            "is_learned": d.is_learned,
            "best_labels_only": d.baseline,
            "best_mean": d.best,
            "over_blind": _interval(d.over_blind),
            "closest_blind": d.blind,
            "images": self.images,
            "splits": self.splits,
            "confidence": CONFIDENCE,
            "commands": self.commands,
            "contenders": [_row(row) for row in self.rows],
            "learning_curves": {name: _curve(curve) for name, curve in self.curves.items()},
            "annotate_next": self.next_images,
            "notes": self.notes,
            "seconds": round(self.seconds, 1),
        }


def decide_on(
    results: dict[str, dict[int, Cell]], contenders: Sequence[Contender], test_share: float
) -> Decision:
    """The decision on finished cells; at least one contender uses the labels alone."""
    groups: dict[str, dict[str, dict[int, float]]] = {"labels": {}, "factory": {}, "blind": {}}
    for contender in contenders:
        if cells := results[contender.name]:
            groups[contender.group][contender.name] = scores(cells)
    return decide(groups["labels"], groups["factory"], groups["blind"], test_share)


def table_rows(
    results: dict[str, dict[int, Cell]],
    contenders: Sequence[Contender],
    decision: Decision,
    store: Results,
    left_out: dict[str, str],
    splits: int,
) -> list[Row]:
    """One row per contender, best first; those without scores last, with the reason.

    Means over different splits cannot be compared, so the order is that of the differences.
    """
    rows = []
    for contender in contenders:
        name, about = contender.name, (contender.description, contender.group)
        cells = list(results.get(name, {}).values())
        is_complete = len(cells) == splits
        note = left_out.get(name, "") or ("" if is_complete else _why_few(name, store))
        if not cells:
            rows.append(Row(name, *about, 0, note=note))
            continue
        values = [cell.miou for cell in cells]
        also = [cell.also_miou for cell in cells if cell.also_miou is not None]
        rows.append(
            Row(
                name,
                *about,
                len(cells),
                statistics.fmean(values),
                statistics.stdev(values) if len(values) > 1 else None,
                decision.differences.get(name),
                statistics.fmean(cell.cost_sec for cell in cells),
                statistics.fmean(also) if also else None,
                note,
            )
        )
    measure = next(row.mean or 0.0 for row in rows if row.name == decision.baseline)

    def lead(row: Row) -> float:
        if row.difference is not None:
            return row.difference.mean
        return -1.0 if row.mean is None else row.mean - measure

    return sorted(rows, key=lead, reverse=True)


def _why_few(name: str, store: Results) -> str:
    if any(name in names for names in store.progress.cuts.values()):
        return "cut"
    return "no time left" if name in store.progress.unmeasured else ""


def _interval(found: Interval | None) -> dict[str, float | int | None] | None:
    if found is None:
        return None
    half_width = found.half_width if found.cells > 1 else None
    return {"mean": found.mean, "half_width": half_width, "splits": found.cells}


def _row(row: Row) -> dict[str, Any]:
    return {**vars(row), "difference": _interval(row.difference)}


def _curve(curve: Curve) -> dict[str, Any]:
    return {"miou": curve.means, "more_images": MORE_IMAGES, "gain": _interval(curve.gain)}
