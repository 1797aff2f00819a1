"""Factorized Diffusion against a plain diffusion model with k-means, and against its ablations.

    python -m benchmarks.factorized --out OUT [--data DIR] [--steps 4000] [--seeds 3]
    python -m benchmarks.factorized --out OUT --only factorized --seed 0    one training alone
    python -m benchmarks.factorized --out OUT --table [--json FILE]         of what is finished

DIR holds `unlabeled`, `labeled` and `test`; without it, the embedded domain is rendered into OUT. A
cell is one training, by variant and seed: all have equal steps, sizes and objectives. Its regions
are scored on `test`; the grouping into foreground and background is chosen on `labeled`. Finished
cells are kept in OUT and never repeated, and interrupted trainings resume, so several processes may
each run cells of their own.

`plain` is DatasetDDPM-unsup: the usual network, whose convolutions pad with zeros, and k-means on
its features, the centres fitted on pixels of the unlabelled images; `pixels` is k-means on the
colours alone. `published` has the paper's masks, without our padding, start and balance, but our
optimiser; the others are the ablations of its Table 6.

Fréchet ratios are taken in the features of one generator, `--encoder`, the same for all cells; 1 is
the distance of two sets of real images. `--fid FILE` adds the FID of a kept library, with weights
from that file. Mask consistency: a small U-Net, trained on `labeled`, segments the samples; the
share of pixels whose foreground agrees with the sample's own regions after matching.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.factorized_parts import (
    VARIANTS,
    Material,
    Settings,
    measure,
    train_cell,
)
from factory.terminal.progress import quiet_libraries
from factory_core.storage import write_json

CELLS, SETTINGS = "cells", "settings.json"
NAMES = {
    "pixels": "k-means of colours",
    "plain": "DatasetDDPM-unsup",
    "published": "factorized, as published",
}
# Name -> where the number is in a cell, and its digits.
MEASURES = {
    "Acc": ("regions.dataset.accuracy", 3),
    "IoU": ("regions.dataset.iou", 3),
    "DICE": ("regions.dataset.dice", 3),
    "Acc, oracle": ("regions.oracle.accuracy", 3),
    "IoU, oracle": ("regions.oracle.iou", 3),
    "DICE, oracle": ("regions.oracle.dice", 3),
    "mIoU of the classes": ("regions.miou", 3),
    "mIoU, foreground and background": ("regions.miou_foreground", 3),
    "Fréchet ratio": ("frechet_ratio", 2),
    "FID": ("fid", 2),
    "mask consistency": ("consistency", 3),
    "mask consistency of the classes": ("consistency_of_classes", 3),
    "entropy of the masks, of ln K": ("entropy", 2),
    "minutes of training": ("train_min", 0),
}


def value_at(cell: Mapping[str, Any], path: str) -> float | None:
    """The number at a dotted path; None if the cell has none."""
    found: Any = cell
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def spread(values: Sequence[float], digits: int) -> str:
    """Mean ± sample standard deviation."""
    if not values:
        return "-"
    std = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{std}"


def table_of(cells: Sequence[Mapping[str, Any]], title: str) -> Table:
    """A column per structure: means over seeds; rows that no cell has are left out."""
    by_structure = {
        structure: [cell for cell in cells if cell["structure"] == structure]
        for structure in VARIANTS
    }
    shown = {structure: rows for structure, rows in by_structure.items() if rows}
    table = Table(title=title)
    table.add_column("")
    for structure in shown:
        table.add_column(NAMES.get(structure, structure), justify="right")
    for name, (path, digits) in MEASURES.items():
        values = [
            [v for row in rows if (v := value_at(row, path)) is not None] for rows in shown.values()
        ]
        if any(values):
            table.add_row(name, *(spread(found, digits) for found in values))
    collapsed = [
        f"{sum(row['collapsed'] for row in rows)} of {len(rows)}" for rows in shown.values()
    ]
    table.add_row("collapsed", *collapsed)
    return table


def cell_file(out: Path, structure: str, seed: int) -> Path:
    return out / CELLS / f"{structure}-seed-{seed}.json"


def finished(out: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted((out / CELLS).glob("*.json"))]


def run_cell(material: Material, structure: str, seed: int, console: Console) -> None:
    """Train, measure and record one cell, unless it is recorded."""
    file = cell_file(material.out, structure, seed)
    if file.is_file():
        return
    trained = train_cell(material, structure, seed, console)
    cell = measure(material, trained, structure, seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, cell)
    dataset = cell["regions"]["dataset"]
    console.print(f"{structure}, seed {seed}: IoU {dataset['iou']:.3f}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="default: the embedded domain")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--channels", type=int, nargs="+", default=[16, 32, 64, 128])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--only", choices=VARIANTS, nargs="+", default=list(VARIANTS))
    parser.add_argument("--foreground", action="append", default=[], metavar="CLASS")
    parser.add_argument("--samples", type=int, default=400, help="for Fréchet and consistency")
    parser.add_argument("--judge-steps", type=int, default=600, help="of the U-Net")
    parser.add_argument("--encoder", default="package:factory.demo/generator")
    parser.add_argument("--fid", type=Path, help="weights of Inception v3 (torch-fidelity)")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--table", action="store_true", help="only print the table")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


def claim(out: Path, settings: Settings) -> None:
    """Note the settings in `out`; raises SystemExit if it holds cells of others."""
    file, ours = out / SETTINGS, settings.record()
    out.mkdir(parents=True, exist_ok=True)
    if not file.is_file():
        write_json(file, ours)
        return
    theirs = json.loads(file.read_text())
    if different := [key for key in ours if theirs.get(key) != ours[key]]:
        raise SystemExit(
            f"{out} holds cells with {different[0]} {theirs.get(different[0])}, not "
            f"{ours[different[0]]}: give another --out"
        )


def main() -> None:
    given, console = parse(), Console()
    quiet_libraries()
    if not given.table:
        settings = Settings.of(given)
        claim(given.out, settings)
        material = Material.prepare(given.out, settings, console)
        seeds = range(given.seeds) if given.seed is None else [given.seed]
        for seed in seeds:
            for structure in given.only:
                run_cell(material, structure, seed, console)
    cells = finished(given.out)
    record = json.loads((given.out / SETTINGS).read_text())
    name = Path(record["data"]).name if record["data"] else "embedded domain"
    console.print(table_of(cells, f"{name}, {len(cells)} trainings, means over seeds"))
    if given.json:
        write_json(given.json, {"settings": record, "cells": cells})


if __name__ == "__main__":
    main()
