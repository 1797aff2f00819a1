"""What labels and names of pictures become."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.factory_core.annotated.formats.written import boxed, labelme


def test_classes_given(tmp_path: Path, picture: Callable, back: Callable) -> None:
    picture(tmp_path / "x/a.png")
    folder = labelme(tmp_path / "x/a.json", {})
    found = back("labelme", folder, classes=["dust", "cell"])
    assert found.classes == ["dust", "cell"]
    assert np.array_equal(found.ids["a"], np.where(boxed(), 1, 255))  # no background: ignored
    with pytest.raises(ValueError, match="found the label 'cell', expected one of --classes"):
        back("labelme", folder, "again", classes=["background", "nucleus"])
    (folder / "classes.json").write_text('{"classes": ["background", "nucleus"]}')
    found = back("labelme", folder, "third")  # drawn since the export
    assert found.classes == ["background", "nucleus", "cell"]
    assert np.array_equal(found.ids["a"], 2 * boxed())


def test_pictures_of_one_name_in_two_folders(
    tmp_path: Path, picture: Callable, back: Callable
) -> None:
    for day, seed in (("day1", 1), ("day2", 2)):
        picture(tmp_path / f"photos/{day}/a.png", seed=seed)
    labelme(tmp_path / "x/1.json", {}, imagePath="day1/a.png")
    labelme(tmp_path / "x/2.json", imagePath="day2/a.png")
    found = back("labelme", tmp_path / "x", images=tmp_path / "photos")
    assert sorted(found.ids) == ["day1_a", "day2_a"]
    assert np.array_equal(found.ids["day1_a"], boxed())
    labelme(tmp_path / "x/2.json", imagePath="a.png")
    with pytest.raises(ValueError, match=r"'a.png' may be day1/a.png or day2/a.png"):
        back("labelme", tmp_path / "x", "again", images=tmp_path / "photos")
    labelme(tmp_path / "x/2.json", imagePath="day1/a.png")
    with pytest.raises(ValueError, match="day1_a is annotated twice"):
        back("labelme", tmp_path / "x", "third", images=tmp_path / "photos")
    assert not (tmp_path / "third").exists()
