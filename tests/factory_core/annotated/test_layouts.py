"""Datasets in their published layouts, and parts of folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from factory_core.annotated.annotations import annotated_size, read_annotations
from factory_core.annotated.layouts import CELEBA_PARTS, open_layout

CATEGORIES = ("wall", "floor, flooring", "bed ", "chest of drawers, chest, dresser", "chest, box")
SCENES = ("bedroom", "bedroom", "kitchen")


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def refused(
    folder: Path | str, pattern: str, error: type[Exception] = ValueError, **kwargs
) -> None:
    with pytest.raises(error, match=pattern) as caught:
        read_annotations(folder, (8, 8), **kwargs)
    assert "\n" not in str(caught.value)


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """CelebAMask-HQ: images 0, 9, 2000 of 16 x 16, masks of 8 x 8 with skin on the left half."""
    folder = tmp_path / "CelebAMask-HQ"
    for number, where in ((0, "0"), (9, "0"), (2000, "1")):
        save(folder / "CelebA-HQ-img" / f"{number}.jpg", np.full((16, 16, 3), 7, np.uint8))
        for part, columns in (("skin", slice(0, 4)), ("hair", slice(2, 6)), ("l_eye", slice(0, 1))):
            inside = np.zeros((8, 8), np.uint8)
            inside[:, columns] = 255
            name = f"{number:05d}_{part}.png"
            save(folder / "CelebAMask-HQ-mask-anno" / where / name, inside)
    return folder


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """ADE20K: two bedrooms and a kitchen of 24 x 8 pixels; the middle third has id 3."""
    folder = tmp_path / "ADEChallengeData2016"
    ids = np.repeat(np.array([0, 1, 3, 3, 5, 2], np.uint8), 4)[None].repeat(8, 0)
    stems = ("ADE_val_00000001", "ADE_train_00000003", "ADE_train_00000002")
    for stem in stems:
        split = "validation" if "val" in stem else "training"
        save(folder / "images" / split / f"{stem}.jpg", np.full((8, 24, 3), 7, np.uint8))
        save(folder / "annotations" / split / f"{stem}.png", ids)
    lines = [f"{i}\t0.1\t10\t1\t{names}" for i, names in enumerate(CATEGORIES, 1)]
    (folder / "objectInfo150.txt").write_text("\n".join(["Idx\tRatio\tTrain\tVal\tName", *lines]))
    pairs = zip(stems, SCENES, strict=True)
    (folder / "sceneCategories.txt").write_text("".join(f"{s} {scene}\n" for s, scene in pairs))
    return folder


def test_celebamask_hq(faces: Path) -> None:
    found = read_annotations(faces, (8, 8))
    assert found.stems == ["0", "9", "2000"]  # by number
    assert found.classes == ["background", *CELEBA_PARTS]
    row = [found.classes[i] for i in found.masks[2, 5]]
    assert row == ["l_eye", "skin", *["hair"] * 4, *["background"] * 2]  # hair is drawn last
    assert annotated_size(faces) == (16, 16)
    assert read_annotations(faces).masks.shape == (3, 16, 16)


def test_celebamask_hq_in_the_classes_of_a_recipe(faces: Path) -> None:
    found = read_annotations(faces, (8, 8), ["hair", "background"])
    assert found.classes == ["hair", "background"]
    assert found.masks[0, 0].tolist() == [255, 255, 0, 0, 0, 0, 1, 1]
    found = read_annotations(faces, (8, 8), ["skin", "hair"])
    assert found.masks[0, 0].tolist() == [255, 0, 1, 1, 1, 1, 255, 255]
    refused(faces, r"CelebAMask-HQ\) has no part 'beard': its classes are", classes=["beard"])


def test_celebamask_hq_with_files_missing(faces: Path) -> None:
    masks = faces / "CelebAMask-HQ-mask-anno" / "0"
    save(masks / "00009_hair.png", np.zeros((4, 4), np.uint8))
    refused(faces, r"00009_hair\.png is 4x4 pixels, other parts are 8x8")
    for path in masks.glob("00009_*"):
        path.unlink()
    refused(faces, r"9\.jpg has no masks: expected .*0/00009_skin\.png", FileNotFoundError)
    assert read_annotations(f"{faces}[:1]", (8, 8)).stems == ["0"]  # nothing else is opened
    (faces / "CelebA-HQ-img" / "0.jpg").rename(faces / "CelebA-HQ-img" / "first.jpg")
    refused(faces, r"first\.jpg: expected numbers as names")
    (faces / "CelebA-HQ-img").rename(faces / "elsewhere")
    refused(faces, "folder .*CelebA-HQ-img does not exist", FileNotFoundError)


def test_ade20k(scenes: Path) -> None:
    found = read_annotations(scenes, (4, 4))
    assert found.stems == [
        "bedroom/ADE_train_00000003",
        "bedroom/ADE_val_00000001",
        "kitchen/ADE_train_00000002",
    ]
    assert found.classes == ["wall", "floor", "bed", "chest of drawers", "chest"]
    assert found.masks.unique().tolist() == [2]  # the middle of the image, not all of it
    assert read_annotations(scenes).masks[0, 0, ::4].tolist() == [255, 0, 2, 2, 4, 1]


def test_ade20k_in_the_classes_of_a_recipe(scenes: Path) -> None:
    found = read_annotations(f"{scenes}[bedroom/*]", classes=["bed", "flooring", "chest"])
    assert len(found.stems) == 2
    # A category's first name precedes the synonyms of others: chest is id 5, not 4.
    assert found.masks[0, 0, ::4].tolist() == [255, 255, 0, 0, 2, 1]
    refused(scenes, r"ADE20K\) has no category 'sofa': expected names of", classes=["sofa"])


def test_ade20k_with_files_missing(scenes: Path) -> None:
    (scenes / "images" / "training" / "ADE_train_00000002.jpg").unlink()
    refused(scenes, r"ADE_train_00000002\.jpg does not exist", FileNotFoundError)
    assert len(read_annotations(f"{scenes}[bedroom/*]", (4, 4)).stems) == 2
    (scenes / "sceneCategories.txt").write_text("ADE_train_00000002\n")
    refused(scenes, r"sceneCategories\.txt: found 'ADE_train_00000002', expected")
    (scenes / "sceneCategories.txt").unlink()
    refused(scenes, r"sceneCategories\.txt does not exist", FileNotFoundError)
    (scenes / "objectInfo150.txt").write_text("Idx\n")
    refused(scenes, r"objectInfo150\.txt: expected a heading and one line per category")


@pytest.mark.parametrize(
    ("selection", "stems"),
    [
        ("[:2]", "ab"),
        ("[1:]", "bcd"),
        ("[-1:]", "d"),
        ("[1:][:2]", "bc"),
        ("[c]", "c"),
        ("[?][2:9]", "cd"),
    ],
)
def test_parts_of_a_folder(tmp_path: Path, selection: str, stems: str) -> None:
    for stem in "abcd":
        save(tmp_path / "set" / f"{stem}.jpg", np.zeros((4, 4, 3), np.uint8))
        np.save(tmp_path / "set" / f"{stem}.npy", np.zeros((4, 4), np.uint8))
    assert read_annotations(Path(f"{tmp_path}/set{selection}")).stems == list(stems)


@pytest.mark.parametrize("selection", ["[9:]", "[x*]", "[:0]"])
def test_an_empty_part(faces: Path, selection: str) -> None:
    refused(f"{faces}{selection}", r"none of the 3 annotated images .* a name from 0 to 2000")


def test_a_folder_with_brackets_in_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "set[1]"
    save(folder / "a.jpg", np.zeros((4, 4, 3), np.uint8))
    np.save(folder / "a.npy", np.zeros((4, 4), np.uint8))
    assert read_annotations(folder).stems == ["a"]
    refused(tmp_path / "other[1]", "folder .*other does not exist", FileNotFoundError)


def test_ids_that_start_at_one(tmp_path: Path) -> None:
    save(tmp_path / "set" / "a.png", np.zeros((1, 4, 3), np.uint8))
    np.save(tmp_path / "set" / "a.npy", np.array([[0, 1, 2, 255]]))
    hint = r'class id 2, but there are 2 classes .* write "reduce_zero_label": true'
    refused(tmp_path / "set", hint, classes=["x", "y"])
    for about in ({}, {"classes": ["x", "y"]}):
        content = json.dumps(about | {"reduce_zero_label": True})
        (tmp_path / "classes.json").write_text(content)
        found = read_annotations(tmp_path / "set", classes=["x", "y"])
        assert found.masks[0, 0].tolist() == [255, 0, 1, 255]
    (tmp_path / "classes.json").write_text('{"reduce_zero_label": "false"}')
    refused(tmp_path / "set", '"reduce_zero_label" as true or false', classes=["x", "y"])
    for wrong, says in (
        ('{"classes": ["x", "y"], "pallete": []}', "unknown key 'pallete': did you mean 'palette'"),
        ('{"clases": ["x", "y"]}', "unknown key 'clases': did you mean 'classes'"),
    ):
        (tmp_path / "classes.json").write_text(wrong)
        refused(tmp_path / "set", says, classes=["x", "y"])
    (tmp_path / "classes.json").write_text('{"reduce_zero_label": true}')
    refused(tmp_path / "set", r'expected \{"classes": \["name", \.\.\.\]\}')


def test_finding_images_does_not_open_them(faces: Path) -> None:
    for path in faces.rglob("*.jpg"):
        path.write_bytes(b"no picture")
    assert [item.name for item in open_layout(f"{faces}[1:]").items] == ["9", "2000"]
