"""A folder belongs to one set of inputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from factory.recipe.claiming import claim


def test_only_equal_inputs_resume(tmp_path: Path) -> None:
    claim(tmp_path / "out", "inputs.json", {"a": 1, "b": {"c": 2}}, "an analysis")
    claim(tmp_path / "out", "inputs.json", {"a": 1, "b": {"c": 2}}, "an analysis")
    with pytest.raises(ValueError, match=r"holds an analysis with other inputs \(b.c\)"):
        claim(tmp_path / "out", "inputs.json", {"a": 1, "b": {"c": 3}}, "an analysis")


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(ValueError, match=r"holds no analysis but holiday\.jpg"):
        claim(tmp_path, "inputs.json", {}, "an analysis")


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "inputs.json").write_text("{")
    with pytest.raises(ValueError, match=r"inputs.json is damaged: delete its folder"):
        claim(tmp_path, "inputs.json", {}, "an analysis")
