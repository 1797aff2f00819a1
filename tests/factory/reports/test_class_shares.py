"""Class shares before and after dropping, and the warning for a class that loses too much."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from factory.reports.class_shares import ClassShares, read_class_shares, show_class_shares, warnings
from factory_core.dataset import Manifest

CLASSES = ["ground", "cell", "never"]
SHARES = ClassShares.of(np.array([800, 200, 0]), np.array([760, 100, 0]))


def shown(manifest: Manifest, folder: Path) -> str:
    console = Console(record=True, file=io.StringIO(), width=200)
    show_class_shares(manifest, folder, console)
    return console.export_text()


def test_shares_and_changes_by_hand() -> None:
    np.testing.assert_allclose(SHARES.before, [0.8, 0.2, 0])
    np.testing.assert_allclose(SHARES.after, [760 / 860, 100 / 860, 0])
    np.testing.assert_allclose(SHARES.changes, [760 / 688 - 1, 100 / 172 - 1, np.nan])


@pytest.mark.parametrize(("kept", "warned"), [(151, False), (149, True)])
def test_a_warning_from_a_quarter_on(kept: int, warned: bool) -> None:
    """Of 200 of 1000 pixels, the class keeps `kept` of 1000."""
    shares = ClassShares.of(np.array([800, 200, 0]), np.array([1000 - kept, kept, 0]))
    lines = warnings(shares, CLASSES, "uncertain")
    assert [line[:36] for line in lines] == ["warning: dropping costs class 'cell'"] * warned
    assert all("selection.policy=per_class" in line for line in lines)
    assert not any("per_class" in line for line in warnings(shares, CLASSES, "per_class"))


def test_of_a_dataset_equals_its_rows(tiny: Any, tmp_path: Path) -> None:
    manifest = tiny.make(tmp_path / "out")
    shares = read_class_shares(tmp_path / "out")
    rows = pd.read_parquet(tmp_path / "out/samples.parquet")
    everything = np.stack(rows["class_pixels"].to_list()).sum(0)
    np.testing.assert_array_equal(shares.before, everything / everything.sum())
    kept = np.array(manifest.totals.class_pixels)
    np.testing.assert_array_equal(shares.after, kept / kept.sum())


def test_what_is_printed(tiny: Any, tmp_path: Path) -> None:
    """A sample is bright in one part of eight and uncertain, or dark and certain."""

    def draw(index: int) -> np.ndarray:
        image = np.zeros((3, 16, 16), np.uint8)
        if index % 8 == 0:
            image[:, :2], image[:, 2:] = 129, 126
        return image

    tiny.models.draw = draw
    manifest = tiny.make(tmp_path / "out", n=40)
    lines = shown(manifest, tmp_path / "out").splitlines()
    row = next(line for line in lines if "bright" in line)
    assert [cell.strip() for cell in row.split("│")[1:5]] == ["bright", "1.56%", "0.35%", "-77.8%"]
    assert any(line.startswith("warning: dropping costs class 'bright' 78%") for line in lines)
    per_class = tiny.make(tmp_path / "fair", n=40, overrides=["selection.policy=per_class"])
    assert "warning" not in shown(per_class, tmp_path / "fair")
    everything = tiny.make(tmp_path / "all", n=40, overrides=["selection.policy=none"])
    assert shown(everything, tmp_path / "all") == ""
