"""Names as people have them: accents, words that mark a mask, other programs' folders."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from factory_core.annotated.annotations import read_annotations

IDS = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
COLOURS = np.array([[0, 0, 0], [250, 50, 83], [40, 80, 200]], np.uint8)
LABELMAP = """# label:color_rgb:parts:actions
background:0,0,0::
cell:250,50,83::
nucleus:40,80,200::
"""


def save(path: Path, values: np.ndarray = IDS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(values).save(path)


def photo(path: Path) -> None:
    save(path, np.full((2, 3, 3), 7, np.uint8))


def refused(folder: Path, pattern: str) -> None:
    with pytest.raises((ValueError, OSError), match=pattern) as caught:
        read_annotations(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_composed_and_decomposed_names(tmp_path, forms):
    of_image, of_mask = (unicodedata.normalize(form, "Präparat 1") for form in forms)
    photo(tmp_path / "images" / f"{of_image}.jpg")
    save(tmp_path / "masks" / f"{of_mask}.png")
    found = read_annotations(tmp_path)
    assert found.stems == [unicodedata.normalize("NFC", of_image)]
    assert np.array_equal(found.masks[0], IDS)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("x.jpg", "x_mask.png"),
        ("x.png", "x_mask.png"),
        ("x.png", "x_label.png"),
        ("x.png", "x_seg.tif"),
        ("x.png", "x-mask.bmp"),
        ("x.png", "x.mask.png"),
        ("x.png", "x_Masks.npy"),
        ("x.png", "x_GT.png"),
        ("x.png", "mask_x.png"),
        ("x.jpg", "x.jpg.png"),
        ("x_img.png", "x_mask.png"),
        ("image_x.jpg", "label_x.png"),
    ],
)
@pytest.mark.parametrize("folders", [("images", "masks"), (".", ".")])
def test_words_that_mark_a_mask(tmp_path, image, mask, folders):
    photo(tmp_path / folders[0] / image)
    save(tmp_path / folders[1] / mask)
    found = read_annotations(tmp_path)
    assert found.stems == [Path(image).stem]
    assert np.array_equal(found.masks[0], IDS)


def test_words_that_belong_to_the_name(tmp_path):
    """Only where the rest is the name of an image does a word mark a mask."""
    for name in ("face_mask", "seg_1", "x"):
        photo(tmp_path / "images" / f"{name}.png")
        save(tmp_path / "masks" / f"{name}.png")
    assert read_annotations(tmp_path).stems == ["face_mask", "seg_1", "x"]


def test_two_masks_of_one_image(tmp_path):
    photo(tmp_path / "images" / "x.png")
    for name in ("x.png", "x_mask.png"):
        save(tmp_path / "masks" / name)
    refused(tmp_path, r"masks/x\.png and x_mask\.png are both masks of x: expected one")
    photo(tmp_path / "beside" / "x.png")
    save(tmp_path / "beside" / "x_mask.jpg")
    refused(tmp_path / "beside", r"mask .*x_mask\.jpg is in a format that may alter ids")


def test_names_that_lead_nowhere(tmp_path):
    photo(tmp_path / "images" / "x.png")
    save(tmp_path / "masks" / "task-1-annotation-4-by-1-tag-cell-0.png")
    refused(tmp_path, r"x\.png has no mask: .*names that Label Studio gives, such as task-1-anno")
    (tmp_path / "masks" / "task-1-annotation-4-by-1-tag-cell-0.png").rename(
        tmp_path / "masks" / "other.png"
    )
    refused(
        tmp_path, r"x\.png has no mask: .*masks/x\.png or \.npy; found masks such as other\.png"
    )
    for name in ("imgs", "labels"):
        photo(tmp_path / "set" / name / "x.png")
    refused(tmp_path / "set", r"found the folders imgs, labels: rename those two")


def test_what_was_left_out_is_said(tmp_path):
    photo(tmp_path / "images" / "x.png")
    save(tmp_path / "masks" / "x.png")
    (tmp_path / "images" / "y.dcm").touch()
    photo(tmp_path / "images" / "more" / "z.png")
    first, second = read_annotations(tmp_path).notes
    assert first == f"1 file of other kinds left out in {tmp_path}/images (1 .dcm)"
    assert f"the subfolders of {tmp_path}/images hold 1 image, left out" in second


# --- Pascal VOC ------------------------------------------------------------------------------


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A folder as CVAT exports it: two annotated images of three."""
    for stem in "abc":
        photo(tmp_path / "JPEGImages" / f"{stem}.jpg")
    for stem in "ab":
        save(tmp_path / "SegmentationClass" / f"{stem}.png", COLOURS[IDS])
        save(tmp_path / "SegmentationObject" / f"{stem}.png", COLOURS[IDS])
    (tmp_path / "labelmap.txt").write_text(LABELMAP, encoding="utf-8-sig")
    return tmp_path


def test_an_export_of_a_labelling_program(exported):
    found = read_annotations(exported)
    assert found.stems == ["a", "b"]
    assert found.classes == ["background", "cell", "nucleus"]
    assert found.palette == COLOURS.tolist()
    assert all(np.array_equal(mask, IDS) for mask in found.masks)
    assert found.notes == (f"1 image without a mask left out in {exported}/JPEGImages",)


@pytest.mark.parametrize("stored_as", ["colours", "ids"])
def test_an_export_in_the_order_of_a_recipe(exported, stored_as):
    """The program chose the order of the classes, the recipe's is used."""
    if stored_as == "ids":
        for stem in "ab":
            save(exported / "SegmentationClass" / f"{stem}.png")
    found = read_annotations(exported, classes=["nucleus", "background", "cell"])
    assert found.classes == ["nucleus", "background", "cell"]
    assert np.array_equal(found.masks[0], np.array([1, 2, 0])[IDS])
    with pytest.raises(ValueError, match=r"labelmap\.txt has the classes .* expected \['other'\]"):
        read_annotations(exported, classes=["other"])


def test_an_export_without_colours(exported):
    """Pascal VOC itself: palette files of ids, without labelmap.txt; 255 around the objects."""
    (exported / "labelmap.txt").unlink()
    ids = IDS.copy()
    ids[0, 0] = 255
    for stem in "ab":
        save(exported / "SegmentationClass" / f"{stem}.png", ids)
    found = read_annotations(exported)
    assert found.classes == ["class_0", "class_1", "class_2"]
    assert np.array_equal(found.masks[0], ids)


def test_exports_with_parts_missing(exported):
    (exported / "labelmap.txt").write_text("cell 250,50,83")
    refused(exported, r"labelmap\.txt: found 'cell 250,50,83', expected 'name:r,g,b::'")
    (exported / "labelmap.txt").write_text("# nothing\n")
    refused(exported, r"labelmap\.txt names no class")
    (exported / "JPEGImages" / "a.jpg").unlink()
    refused(exported, r"mask .*a\.png has no image named a")
    for path in (exported / "JPEGImages").iterdir():
        path.unlink()
    (exported / "JPEGImages").rmdir()
    refused(exported, r"JPEGImages does not exist: export the images with the masks")


def test_colours_of_a_program_in_folders_of_ours(exported):
    (exported / "JPEGImages" / "c.jpg").unlink()
    (exported / "JPEGImages").rename(exported / "images")
    (exported / "SegmentationClass").rename(exported / "masks")
    found = read_annotations(exported)
    assert (found.classes[1], np.array_equal(found.masks[0], IDS)) == ("cell", True)
