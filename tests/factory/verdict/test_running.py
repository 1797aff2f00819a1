"""The time that a comparison has left."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rich.console import Console

from factory.verdict.results import Cell, Results
from factory.verdict.running import Runner


def cell(split: int, images: int, seconds: float) -> Cell:
    return Cell(
        contender="unet", split=split, images=images, miou=0.5, iou={}, seconds=seconds, cost_sec=1
    )


def test_splits_run_at_once_and_the_learning_curve_does_not(tmp_path: Path) -> None:
    results = Results.begin(tmp_path, {})
    results.note(shared_sec=10.0)
    for found in (cell(0, 9, 40.0), cell(1, 8, 40.0), cell(0, 4, 7.0)):
        results.add(found)
    splits: Any = [SimpleNamespace(number=n, train=range(k)) for n, k in ((0, 9), (1, 8))]
    crew: Any = SimpleNamespace(at_once=2)
    materials: Any = None
    runner = Runner(materials, results, splits, Console(), 100.0, crew)
    assert runner.left_sec() == 100 - (10 + 80 / 2 + 7)
    assert runner.left_sec(0.75) == 75 - (10 + 80 / 2 + 7)
    assert Runner(materials, results, splits, Console()).left_sec() == math.inf
