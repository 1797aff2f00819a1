"""The time that a comparison has left."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from factory.verdict.results import Cell, Results
from factory.verdict.running import Runner

SPLITS: Any = [SimpleNamespace(number=n, train=range(9)) for n in range(4)]


def cell(split: int, images: int, seconds: float) -> Cell:
    return Cell(
        contender="unet",
        split=split,
        images=images,
        miou=0.5,
        iou={},
        seconds=seconds,
        parts_sec={"student": seconds},
        scoring_sec=0,
    )


@pytest.fixture(autouse=True)
def bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """Splits on which nothing has been made."""
    made = SimpleNamespace(costs=SimpleNamespace(own={}), delete=lambda: None)
    monkeypatch.setattr(Runner, "bench", lambda *_: made)


def test_splits_run_at_once_and_the_learning_curve_does_not(tmp_path: Path) -> None:
    results = Results.begin(tmp_path, {})
    results.note(shared_sec=10.0)
    for found in (cell(0, 9, 40.0), cell(1, 8, 40.0), cell(0, 4, 7.0)):
        results.add(found)
    splits: Any = [SimpleNamespace(number=n, train=range(k)) for n, k in ((0, 9), (1, 8))]
    crew: Any = SimpleNamespace(at_once=2)
    materials: Any = None
    runner = Runner(materials, results, splits, Console(), 100.0, crew)
    assert runner.left_sec() == pytest.approx(100 - (10 + 80 / 2 + 7), abs=1)
    assert runner.left_sec(0.75) == pytest.approx(75 - (10 + 80 / 2 + 7), abs=1)
    runner.results.add(cell(1, 7, 30.0))  # of this run: the clock counts it
    assert runner.left_sec() == pytest.approx(100 - (10 + 80 / 2 + 7), abs=1)
    assert Runner(materials, results, splits, Console()).left_sec() == math.inf


def scored(results: Results, mious: dict[str, float]) -> Any:
    """Contenders with these scores on the first of four splits."""
    for name, miou in mious.items():
        found = {"contender": name, "miou": miou, "parts_sec": {f"student-{name}": 40.0}}
        results.add(cell(0, 9, 40.0).model_copy(update=found))
    groups = {name: "labels" if name == "unet" else "factory" for name in mious}
    return [SimpleNamespace(name=name, group=group) for name, group in groups.items()]


def test_more_time_brings_back_what_was_cut(tmp_path: Path) -> None:
    results = Results.begin(tmp_path, {})
    names = ("unet", "deeplab", "round-1", "mixture")
    contenders = scored(results, dict(zip(names, (0.5, 0.6, 0.7, 0.4), strict=True)))

    def left_after_one_split(budget_sec: float | None) -> list[str]:
        runner = Runner(None, Results(tmp_path), SPLITS, Console(quiet=True), budget_sec)  # type: ignore[arg-type]
        return [c.name for c in runner._cut(contenders, 1, 0)]

    assert left_after_one_split(300.0) == ["unet", "round-1", "deeplab"]
    assert left_after_one_split(200.0) == ["unet", "round-1", "deeplab"]  # as before
    every = ["unet", "round-1", "deeplab", "mixture"]
    assert left_after_one_split(None) == every
    assert left_after_one_split(300.0) == every  # once there was time for all


def test_a_cut_compares_the_same_splits(tmp_path: Path) -> None:
    """The first split is an easy one: what was scored on it alone must not look better."""
    results = Results.begin(tmp_path, {})
    mious = {"unet": 0.6, "round-1": 0.8, "mixture": 0.7, "synthetic": 0.7}
    contenders = scored(results, mious)
    for split in (1, 2):  # of an earlier run, which went on with two
        for name in ("unet", "round-1"):
            found = {"contender": name, "miou": 0.3, "parts_sec": {f"student-{name}": 40.0}}
            results.add(cell(split, 9, 40.0).model_copy(update=found))
    runner = Runner(None, results, SPLITS, Console(quiet=True), 500.0)  # type: ignore[arg-type]
    assert [c.name for c in runner._cut(contenders, 1, 0)] == ["unet", "round-1", "mixture"]


@pytest.mark.parametrize(("budget_sec", "rest"), [(None, ["synthetic"] * 3), (8.0, [])])
def test_those_that_never_won_race_in_the_time_that_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget_sec: float | None, rest: list[str]
) -> None:
    """With what the others have made."""
    ran: list[str] = []
    deleted: list[str] = []
    clock = SimpleNamespace(monotonic=lambda: float(len(ran)))  # a second each
    monkeypatch.setattr("factory.verdict.running.time", clock)

    def train(self: Runner, contender: Any, split: Any, _: object) -> None:
        ran.append(contender.name)
        found = cell(split.number, 9, 0.5)
        self.results.add(found.model_copy(update={"contender": contender.name}))

    monkeypatch.setattr(Runner, "cell", train)
    monkeypatch.setattr(
        Runner,
        "bench",
        lambda _, split, *rest: SimpleNamespace(
            costs=SimpleNamespace(own={}), delete=lambda: deleted.append(ran[-1])
        ),
    )
    splits: Any = [SimpleNamespace(number=n, train=range(9)) for n in range(3)]
    contenders: Any = [
        SimpleNamespace(name=name, group=group, is_last=name == "synthetic")
        for name, group in (("synthetic", "factory"), ("round-1", "factory"), ("unet", "labels"))
    ]
    runner = Runner(None, Results.begin(tmp_path, {}), splits, Console(quiet=True), budget_sec)  # type: ignore[arg-type]
    prepared: list[list[str]] = []
    runner.race(contenders, lambda racing: prepared.append([c.name for c in racing]))
    assert ran == ["round-1", *["unet"] * 2, "round-1", "unet", "round-1", *rest]
    assert deleted == (rest or ["round-1"])
    assert prepared == [["round-1", "unet"], ["synthetic"]][: 1 + bool(rest)]
    assert runner.results.progress.unmeasured == (() if rest else ("synthetic",))


def test_a_race_is_over_within_the_same_time_only(tmp_path: Path) -> None:
    def runner(budget_sec: float | None) -> Runner:
        splits: Any = []
        return Runner(None, Results.begin(tmp_path, {}), splits, Console(), budget_sec)  # type: ignore[arg-type]

    assert not runner(60.0).is_over
    runner(60.0).race([])
    assert runner(60.0).is_over
    assert runner(30.0).is_over
    assert not runner(90.0).is_over
    runner(None).race([])
    assert runner(90.0).is_over
    assert runner(None).is_over
