"""A dataset in a folder of any name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from factory.pipeline.verify import verify
from factory_core.dataset import open_dataset


@pytest.mark.parametrize("name", ["run:1", "a b", "ä", "../up", "file.tar"])
def test_any_name_of_a_folder_works(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    tiny.make(name)
    assert tiny.make(name) == open_dataset(name).manifest
    assert verify(name) == []
