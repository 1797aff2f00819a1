"""What the factory is worth on a data set with a test set: label budgets x contenders x seeds.

    python -m benchmarks.worth_it --data DIR --generator G --out OUT [--budgets 4 8 24]
        [--draws 3] [--seeds 3] [--contenders unet round-2 ...] [--set KEY=VALUE]
        [--json FILE] [--plot FILE]

DIR holds `labeled`, `unlabeled` and `test`. Draw 0 of a budget takes the first images of `labeled`
by name, the others a random order; smaller budgets are parts of larger ones. The contenders are
those of `factory compare`, with its settings. Every cell trains on one draw with one seed and is
scored on `test`; nothing is chosen there. Finished cells are kept in OUT and never repeated.
OUT/models holds the segmenters of the first draw and seed, for `factory evaluate --corruptions`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from factory.locking.lock import exclusive
from factory.terminal.text import duration
from factory.verdict.bench import Bench, Materials
from factory.verdict.comparison import choose
from factory.verdict.contenders import Contender
from factory.verdict.inputs import Given, identity, read
from factory.verdict.models import SegmenterModel
from factory.verdict.results import PARTS_DIR, Cell, Results
from factory.verdict.settings import compare_config
from factory_core.pictures import remember
from factory_core.storage import write_bytes, write_json
from train_seg.evaluation import metrics
from train_seg.evaluation.plots import encode_png, figure_type

MOST_SEEDS = 1000


@dataclass(frozen=True)
class Place:
    """Where a contender is trained: `rows` of the annotated images, drawn by `draw`."""

    budget: int
    draw: int
    seed: int
    rows: tuple[int, ...]

    @property
    def number(self) -> int:
        """That of its cells, the same whatever draws and seeds were asked for."""
        return MOST_SEEDS * self.draw + self.seed

    @property
    def name(self) -> str:
        return f"{self.budget}-labels-draw-{self.draw}-seed-{self.seed}"


def places(images: int, budgets: Sequence[int], draws: int, seeds: int) -> list[Place]:
    """All draws and seeds of each budget; there is only one way to draw all images.

    All draws of the first seed come first, so that an unfinished run has seen them all.
    """
    found = []
    for budget in budgets:
        for seed, draw in product(range(seeds), range(draws if budget < images else 1)):
            order = np.random.default_rng(draw).permutation(images) if draw else np.arange(images)
            rows = tuple(sorted(order[:budget].tolist()))
            found.append(Place(budget, draw, seed, rows))
    return found


def run_cell(contender: Contender, place: Place, m: Materials, models: Path) -> Cell:
    """Train a contender and score it on the test set; keep the first segmenter in `models`."""
    began = time.monotonic()
    bench = Bench(m, place.name, place.rows, place.seed)
    with bench.costs.part(contender.name):
        model = contender.make(bench)
    made = time.monotonic()
    if place.number == 0 and isinstance(model, SegmenterModel):
        folder = models / f"{place.budget}-labels" / contender.name
        remember(folder, m.pictures)
        model.segmenter.save(folder)
    assert m.also is not None
    pool, masks = m.also
    confusion = metrics.Confusion(len(m.classes))
    confusion.update(model.predict(pool, range(len(masks))), masks)
    found = metrics.scores(confusion, m.classes, len(masks))
    return Cell(
        contender=contender.name,
        split=place.number,
        images=place.budget,
        miou=found.miou,
        iou=dict(zip(found.classes, found.iou, strict=True)),
        seconds=time.monotonic() - began,
        parts_sec=bench.costs.needed(contender.name),
        scoring_sec=time.monotonic() - made,
    )


@dataclass(frozen=True)
class Row:
    """A contender at a budget: scores by place, and their differences from the baseline's."""

    contender: str
    scores: Mapping[int, float]
    baseline: Mapping[int, float]

    @property
    def differences(self) -> list[float]:
        return [score - self.baseline[n] for n, score in self.scores.items() if n in self.baseline]


def summarise(results: Results, contenders: Sequence[Contender], budget: int) -> list[Row]:
    """The finished contenders of a budget; the baseline is the best that uses labels alone.

    It is chosen on the test set, which favours it and none of the others.
    """
    found = {
        c.name: {
            split: cell.miou
            for (name, split, images), cell in sorted(results.cells.items())
            if (name, images) == (c.name, budget)
        }
        for c in contenders
    }
    alone = [c.name for c in contenders if c.group == "labels" and found[c.name]]
    best = max(alone, key=lambda name: statistics.mean(found[name].values()), default=None)
    baseline = found[best] if best else {}
    return [Row(name, scores, baseline) for name, scores in found.items() if scores]


def spread(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation."""
    if not values:
        return "-"
    std = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{std}"


def show(budget: int, rows: Sequence[Row], console: Console) -> None:
    table = Table(title=f"{budget} labels: mIoU on the test set, over draws and seeds")
    for column in ("contender", "mIoU", "minus the best of the labels alone", "trainings"):
        table.add_column(column, justify="left" if column == "contender" else "right")
    for row in sorted(rows, key=lambda r: -statistics.mean(r.scores.values())):
        scores = list(row.scores.values())
        table.add_row(row.contender, spread(scores), spread(row.differences), str(len(scores)))
    console.print(table)


def plot(path: Path, tables: Mapping[int, Sequence[Row]], labels_only: Collection[str]) -> None:
    """A PNG of mIoU by label budget, mean ± std: dashed lines are trained on labels alone."""
    figure = figure_type()(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    found = {
        name: {b: r.scores for b, rows in tables.items() for r in rows if r.contender == name}
        for name in dict.fromkeys(row.contender for rows in tables.values() for row in rows)
    }
    for name, by_budget in found.items():
        budgets = sorted(by_budget)
        values = [list(by_budget[budget].values()) for budget in budgets]
        axes.errorbar(
            budgets,
            [statistics.mean(v) for v in values],
            [statistics.stdev(v) if len(v) > 1 else 0.0 for v in values],
            fmt="--o" if name in labels_only else "-o",
            capsize=3,
            label=name,
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(tables), [str(budget) for budget in tables])
    axes.set_xlabel("annotated images")
    axes.set_ylabel("mIoU on the test images")
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    write_bytes(path, encode_png(figure))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--generator", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budgets", type=int, nargs="+", default=[4, 8, 24])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--contenders", nargs="*", default=[])
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    console = Console()
    config = compare_config(given.overrides)
    found = read(
        Given(
            labeled=given.data / "labeled",
            out=given.out,
            images=given.data / "unlabeled",
            generator=given.generator,
            also=given.data / "test",
        ),
        config,
        given.out / PARTS_DIR,
    )
    m = found.materials
    if max(given.budgets) > len(m.masks):
        parser.error(f"--budgets {max(given.budgets)}: {given.data} has {len(m.masks)} annotations")
    contenders, _ = choose(m, given.contenders)
    if given.contenders:  # without the controls that a verdict needs
        contenders = [c for c in contenders if c.name in given.contenders]
    with exclusive(given.out):
        results = Results.begin(given.out, identity(m, []))
        for place in places(len(m.masks), given.budgets, given.draws, given.seeds):
            for contender in contenders:
                if results.find(contender.name, place.number, place.budget) is None:
                    cell = run_cell(contender, place, m, given.out / "models")
                    results.add(cell)
                    console.print(
                        f"{place.name}: {contender.name} {cell.miou:.3f} ({duration(cell.seconds)})"
                    )
            Bench(m, place.name, place.rows, place.seed).delete()
    tables = {budget: summarise(results, contenders, budget) for budget in given.budgets}
    for budget, rows in tables.items():
        show(budget, rows, console)
    if given.plot:
        plot(given.plot, tables, [c.name for c in contenders if c.group == "labels"])
    if given.json:
        content = {
            str(budget): {
                row.contender: {"miou": list(row.scores.values()), "paired": row.differences}
                for row in rows
            }
            for budget, rows in tables.items()
        }
        write_json(given.json, content)


if __name__ == "__main__":
    main()
