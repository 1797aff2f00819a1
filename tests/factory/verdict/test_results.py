"""Cells on disk: found again, refused for other inputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from factory.verdict.results import Cell, Results, expected_sec, needed, scores

IDENTITY = {"labeled": "abc", "settings": {"folds": 4}}


def make_cell(split: int = 0, miou: float = 0.5, images: int = 6) -> Cell:
    """A cell of the contender `unet`."""
    return Cell(
        contender="unet",
        split=split,
        images=images,
        miou=miou,
        iou={"cell": None},
        seconds=2,
        parts_sec={"unet": 0.0, "student": 2.5, "labels": 0.5},
        scoring_sec=1,
    )


def test_cells_survive_a_restart(tmp_path: Path) -> None:
    results = Results.begin(tmp_path / "out", IDENTITY)
    results.add(make_cell(0, 0.5))
    results.add(make_cell(1, 0.7))
    results.add(make_cell(1, 0.1, images=3))
    again = Results.begin(tmp_path / "out", IDENTITY)
    assert again.cells == results.cells
    assert again.seconds == 6
    found = again.of("unet", {0: 6, 1: 6, 2: 6})
    assert scores(found) == {0: 0.5, 1: 0.7}
    assert found[0].cost_sec == 3
    assert again.of("deeplab", {0: 6}) == {}


def test_what_is_shared_is_expected_once() -> None:
    unet, again = make_cell(0), make_cell(1)
    shared = {"mean": 0.0, "student": 2.5, "other": 4.0}
    mean = unet.model_copy(update={"contender": "mean", "parts_sec": shared})
    assert needed("mean", [mean]) == {"student", "other"}
    assert expected_sec([]) == 0
    assert expected_sec([unet, again]) == 3 + 1
    assert expected_sec([unet, again, mean]) == 3 + 4 + 1 + 1
    assert expected_sec([unet, mean], made={"student", "other"}) == 0.5 + 1 + 1


def test_other_inputs_are_refused(tmp_path: Path) -> None:
    Results.begin(tmp_path / "out", IDENTITY)
    with pytest.raises(ValueError, match=r"other inputs \(settings.folds\)"):
        Results.begin(tmp_path / "out", {**IDENTITY, "settings": {"folds": 3}})


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds no comparison but notes\.txt"):
        Results.begin(tmp_path, IDENTITY)


@pytest.mark.parametrize(("name", "cells"), [("compare.json", ()), ("cells/unet.json", (1,))])
def test_damage_is_one_line(tmp_path: Path, name: str, cells: tuple[int, ...]) -> None:
    Results.begin(tmp_path / "out", IDENTITY)
    (tmp_path / "out" / name).write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        Results.begin(tmp_path / "out", IDENTITY)
