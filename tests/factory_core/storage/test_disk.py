"""Folders by the names that people give them."""

from __future__ import annotations

from pathlib import Path

import pytest

from factory_core.storage import DiskStore, open_store


def test_a_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_store("~/x") == DiskStore(tmp_path / "x")


def test_an_empty_path_is_refused() -> None:
    with pytest.raises(ValueError, match="found an empty path, expected a folder"):
        open_store("")


def test_a_file_in_the_way(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert open_store(file).obstacle() == str(file)
    assert open_store(file / "deeper" / "still").obstacle() == str(file)
    assert open_store(tmp_path / "new").obstacle() is None
