"""Every kind of mistake is found, and the verdict is that of the training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from factory.annotation.checking.findings import Checked, check_folder
from factory.demo.render import render_folder
from factory_core.annotated.annotations import annotated_size, read_annotations

HALVES = np.repeat(np.array([[0, 1]], np.uint8), 8, 1).repeat(8, 0)  # 8 x 16


def add(folder: Path, name: str, ids: np.ndarray | None, image: bool = True) -> None:
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    if image:
        Image.new("RGB", (16, 8)).save(folder / "images" / f"{name}.png")
    if ids is not None:
        Image.fromarray(ids).save(folder / "masks" / f"{name}.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An annotated folder without mistakes."""
    (tmp_path / "x").mkdir()
    (tmp_path / "x/classes.json").write_text('{"classes": ["background", "cell"]}')
    add(tmp_path / "x", "good", HALVES)
    return tmp_path / "x"


def kinds(checked: Checked) -> dict[str, str]:
    return {f"{finding.kind} {finding.file}": finding.text for finding in checked.findings}


def refused(folder: Path) -> str | None:
    """What a training says."""
    try:
        read_annotations(folder, annotated_size(folder))
    except (ValueError, OSError) as error:
        return str(error)
    return None


def test_counts(folder: Path) -> None:
    ids = HALVES.copy()
    ids[0] = 255
    ids[4, 2] = 1  # a speck
    ids[6, 4] = ids[7, 5] = 1  # touch by a corner
    add(folder, "other", ids)
    checked = check_folder(folder)
    background, cell = checked.classes
    assert (checked.images, checked.pixels, checked.unlabelled) == (2, 256, 16)
    assert (background.images, background.pixels, background.specks) == (2, 64 + 53, 0)
    assert (cell.images, cell.pixels, cell.specks) == (2, 64 + 59, 1)
    assert kinds(checked) == {"specks other.png": "1 region of one pixel"}
    assert checked.refused is None


def test_near_empty_and_unlabelled(folder: Path) -> None:
    add(folder, "empty", np.zeros((8, 16), np.uint8))
    ignored = np.full((8, 16), 255, np.uint8)
    ignored[:2] = 1
    add(folder, "ignored", ignored)
    checked = check_folder(folder)
    assert kinds(checked) == {
        "near-empty empty.png": "0 of 128 pixels are drawn on",
        "unlabelled ignored.png": "75 % of the pixels are ignored",
    }
    assert checked.refused is None


def test_pairs_that_are_incomplete_are_all_named(folder: Path) -> None:
    for name in ("b", "c"):
        add(folder, name, None)
        add(folder, f"lonely_{name}", HALVES, image=False)
    checked = check_folder(folder)
    assert list(kinds(checked)) == [
        *("no-mask b.png", "no-mask c.png", "no-image lonely_b.png", "no-image lonely_c.png"),
    ]
    assert checked.images == 1  # the complete pair is looked at all the same
    assert checked.refused == refused(folder)
    assert checked.refused is not None


def test_wrong_sizes_and_files_that_cannot_be_read(folder: Path) -> None:
    add(folder, "small", HALVES[:4])
    add(folder, "broken", HALVES)
    (folder / "masks/broken.png").write_bytes(b"not a picture")
    found = kinds(checked := check_folder(folder))
    assert "is 16x4 pixels but its image small.png is 16x8" in found["unreadable small.png"]
    assert "not an image" in found["unreadable broken.png"]
    assert checked.refused == refused(folder)
    assert checked.refused in found.values()


def test_colours_off_the_palette(folder: Path) -> None:
    about = {"classes": ["background", "cell"], "palette": [[0, 0, 0], [250, 50, 80]]}
    (folder / "classes.json").write_text(json.dumps(about))
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8] = 250, 50, 80
    pixels[:2, :3] = 253, 46, 80
    pixels[7, 15] = 0, 3, 0
    add(folder, "good", pixels)
    checked = check_folder(folder)
    found = [finding.text for finding in checked.findings if finding.kind == "colour"]
    assert found == [
        "6 pixels of colour [253, 46, 80], which is no class: nearest is cell [250, 50, 80], at a "
        "distance of 5.0",
        "1 pixels of colour [0, 3, 0], which is no class: nearest is background [0, 0, 0], at a "
        "distance of 3.0",
    ]
    assert checked.refused == refused(folder)
    assert "not in the palette" in str(checked.refused)


def test_black_and_white_masks(folder: Path) -> None:
    add(folder, "good", HALVES * 255)
    checked = check_folder(folder)
    assert kinds(checked)["black-and-white good.png"] == (
        "holds 0 and 255 only: taken for background and for pixels to ignore"
    )
    assert "the masks hold only 0 and 255" in str(checked.refused)
    add(folder, "proper", HALVES)
    checked = check_folder(folder)
    assert "black-and-white good.png" in kinds(checked)
    assert checked.refused is None
    assert any("black-and-white" in note for note in checked.notes)


def test_ids_beyond_the_list(folder: Path) -> None:
    add(folder, "a", HALVES * 3)
    add(folder, "b", HALVES * 7)
    checked = check_folder(folder)
    assert kinds(checked)["id a.png"] == "class ids [3] on 64 pixels, there are 2 classes"
    assert kinds(checked)["id b.png"] == "class ids [7] on 64 pixels, there are 2 classes"
    assert checked.refused == refused(folder)
    assert checked.refused is not None


def test_one_class_cannot_be_trained_on(folder: Path) -> None:
    add(folder, "good", np.zeros((8, 16), np.uint8))
    assert refused(folder) is None
    assert check_folder(folder).refused is not None  # the training's next check


def test_command(tmp_path: Path, factory: Callable) -> None:
    render_folder(tmp_path / "x", range(3))
    found = factory("annotations", "check", tmp_path / "x", "--json", tmp_path / "found.json")
    assert (found.code, found.err) == (0, "")
    assert "│ nucleus      │   3 │" in found.out
    assert "can be trained on" in found.out
    with Image.open(tmp_path / "x/check.png") as sheet:
        assert sheet.width > 256
    about = json.loads((tmp_path / "found.json").read_text())
    assert (about["accepted"], about["refused"], about["images"]) == (True, None, 3)
    assert sum(row["pixels"] for row in about["classes"]) == 3 * 64 * 64
    (tmp_path / "x/masks/000001.png").unlink()
    json_file = tmp_path / "found.json"
    found = factory("annotations", "check", tmp_path / "x", "--json", json_file)
    assert found.code == 1
    assert found.err.startswith("error: a training would refuse it: ")
    assert found.err.count("\n") == 1
    assert "000001.png: image without a mask" in found.out
    assert json.loads(json_file.read_text())["accepted"] is False
    assert refused(tmp_path / "x") in found.err


def test_a_folder_of_images_and_masks_side_by_side(tmp_path: Path, factory: Callable) -> None:
    render_folder(tmp_path / "x", range(2))
    flat = tmp_path / "flat"
    flat.mkdir()
    shutil.copy(tmp_path / "x/classes.json", flat)
    for path in (tmp_path / "x/images").iterdir():
        shutil.copy(path, flat / path.name)
        shutil.copy(tmp_path / "x/masks" / path.name, flat / f"{path.stem}_mask.png")
    before = sorted(path.name for path in flat.iterdir())
    assert factory("annotations", "check", flat).code == 0
    assert sorted(path.name for path in flat.iterdir()) == before  # no picture was added
    assert factory("annotations", "check", flat, "--sheet", tmp_path / "sheet.png").code == 0
    assert (tmp_path / "sheet.png").exists()
    missing = factory("annotations", "check", tmp_path / "nothing")
    assert "nothing does not exist" in missing.err
