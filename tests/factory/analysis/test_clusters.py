"""Clusters: their fit, their colours, their agreement with classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from factory.analysis.agreement import mutual_information
from factory.analysis.clusters import matched
from tests.factory.analysis.conftest import GRID, Analyse


def test_clusters(analyse: Analyse, photographs: Path, tmp_path: Path) -> None:
    settings = GRID | {"images": 2, "k": 3}
    result = analyse("clusters", "--images", photographs, **settings)
    assert result.code == 0, result.err
    out = tmp_path / "out"
    content = json.loads((out / "clusters.json").read_text())
    assert all(0 <= row["t = 0"]["mean"] <= 1 for row in content["rows"])
    assert {p.name for p in out.glob("*.png")} == {"clusters-1.png", "clusters-2.png"}
    assert content["notes"] == ["The sheets show 000, 103."]


def test_a_folder_without_images_is_refused_before_any_work(
    analyse: Analyse, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    result = analyse("clusters", "--images", tmp_path / "empty", **GRID)
    assert result.code == 1
    assert "no images in" in result.err
    assert not (tmp_path / "out").exists()


def test_matching_undoes_a_renumbering() -> None:
    truth = np.repeat(np.arange(3), 50)
    assert (matched((truth + 1) % 3, truth, 3) == truth).all()


def test_mutual_information_by_hand() -> None:
    a = np.array([0, 0, 1, 1])
    assert mutual_information(a, np.array([0, 1, 0, 1])) == pytest.approx(0)
    assert mutual_information(a, a) == pytest.approx(1)
    assert mutual_information(a, np.zeros(4, int)) == pytest.approx(0)
    assert mutual_information(np.zeros(4, int), np.zeros(4, int)) == 0
