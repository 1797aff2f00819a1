"""Numbers that are no class ids: the whole folder shows it, and the user reads it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from factory_core.annotated.annotations import Annotations, read_annotations

TWICE = b'{"classes": ["a"], "classes": ["b"]}'
BLACK_AND_WHITE = [[0, 0, 0], [255, 255, 255]]
NAMES = ["background", "cell", "nucleus"]


def annotated(folder: Path, *masks: np.ndarray | Image.Image, **about: Any) -> Path:
    """Images and masks m0, m1, ... and, if anything is said about them, classes.json."""
    for i, mask in enumerate(masks):
        picture = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
        for path, content in (
            (folder / "images" / f"m{i}.png", Image.new("RGB", picture.size)),
            (folder / "masks" / f"m{i}.png", picture),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            content.save(path)
    if about:
        (folder / "classes.json").write_text(json.dumps(about))
    return folder


def row(*ids: int) -> np.ndarray:
    return np.array([ids], np.uint8)


def indexed(ids: Sequence[int], colours: Sequence[Sequence[int]]) -> Image.Image:
    picture = Image.fromarray(row(*ids))
    picture.putpalette([v for colour in colours for v in colour])
    return picture


def refused(folder: Path, pattern: str) -> None:
    with pytest.raises(ValueError, match=pattern) as caught:
        read_annotations(folder)
    assert "\n" not in str(caught.value)


def only_note(found: Annotations) -> str:
    [note] = found.notes
    return note


# --- black and white -------------------------------------------------------------------------


@pytest.mark.parametrize("about", [{}, {"classes": NAMES[:2]}, {"classes": NAMES}])
def test_black_and_white_masks_are_refused(tmp_path, about):
    name = "cell" if about else "the object"
    says = rf"the masks hold only 0 and 255, .*write 1 instead of 255 for {name}, or give \"pal"
    refused(annotated(tmp_path, row(0, 255), row(0, 0), **about), says)
    for path in (tmp_path / "masks").iterdir():
        np.save(path.with_suffix(".npy"), np.asarray(Image.open(path)))
        path.unlink()
    refused(tmp_path, says)


def test_black_and_white_masks_through_the_palette(tmp_path):
    about = {"classes": NAMES[:2], "palette": BLACK_AND_WHITE}
    found = read_annotations(annotated(tmp_path, row(0, 255), row(0, 0), row(255, 255), **about))
    assert found.masks[:, 0].tolist() == [[0, 1], [0, 0], [1, 1]]
    assert found.notes == ()
    annotated(tmp_path, row(0, 1), row(0, 255), row(1, 1), **about)  # with 1, these are ids
    found = read_annotations(tmp_path)
    assert found.masks[:, 0].tolist() == [[0, 1], [0, 255], [1, 1]]
    assert only_note(found).startswith("1 of 3 masks, such as m1.png, hold only 0 and 255")


def test_nothing_but_ignore(tmp_path):
    refused(annotated(tmp_path, row(255, 255)), "every pixel of the masks is 255, which means")


def test_one_class_may_be_all_there_is(tmp_path):
    found = read_annotations(annotated(tmp_path, row(0, 255), classes=["cell"]))
    assert found.masks[0, 0].tolist() == [0, 255]


# --- absent classes, gaps --------------------------------------------------------------------


def test_a_class_without_pixels_is_named(tmp_path):
    found = read_annotations(annotated(tmp_path, row(0, 2), row(0, 255), classes=NAMES))
    assert found.notes[0] == "no mask has a pixel of cell"
    many = [f"c{i}" for i in range(12)]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": many}))
    assert "of c1, c3, c4, c5, c6, c7 and 4 more" in read_annotations(tmp_path).notes[0]


def test_gaps_are_doubted(tmp_path):
    found = read_annotations(annotated(tmp_path, row(0, 3, 5)))
    assert "hold 3 different ids (0, 3, 5): are they class ids, or grey levels?" in only_note(found)
    assert read_annotations(annotated(tmp_path / "b", row(0, 1, 2))).notes == ()


def test_grey_levels_without_names_are_refused(tmp_path):
    """Three values must not become 128 classes."""
    refused(
        annotated(tmp_path, row(0, 127, 0), row(127, 127, 255)),
        r"hold only the values 0, 127, 255: if they are grey levels, name the classes in classes\."
        r'json .* "palette": \[\[0, 0, 0\], \[127, 127, 127\], \[255, 255, 255\]\]; .* all 128 cl',
    )


def test_grey_levels_need_a_palette(tmp_path):
    folder = annotated(tmp_path, row(0, 127, 0), row(0, 127, 255), classes=NAMES)
    refused(folder, r'm0\.png has the value 127.*if 0, 127, 255 are grey levels, .* as "palette"')
    greys = [[v, v, v] for v in (0, 127, 255)]
    annotated(folder, row(0, 127, 0), row(0, 127, 255), classes=NAMES, palette=greys)
    assert read_annotations(folder, (1, 3)).masks[1].tolist() == [[0, 1, 2]]


def test_shades_are_no_ids(tmp_path):
    """A mask that was saved with loss, or a photograph in its place."""
    shades = np.arange(120, dtype=np.uint8)[None]
    refused(annotated(tmp_path, shades, classes=NAMES), r"m0\.png holds 120 different values up to")
    (tmp_path / "classes.json").unlink()
    assert only_note(read_annotations(tmp_path)).startswith(
        "the masks hold 120 different ids (0, 1"
    )


# --- palette files that contradict each other ------------------------------------------------


def test_indices_reordered_by_a_program(tmp_path):
    red, blue = (255, 0, 0), (0, 0, 255)
    masks = indexed([0, 1, 2], [(0, 0, 0), red, blue]), indexed([0, 1, 2], [(0, 0, 0), blue, red])
    folder = annotated(tmp_path, *masks, classes=NAMES)
    refused(folder, r"the colour \[0, 0, 255\] is index 2 in .*m0\.png and index 1 in m1\.png")
    palette = [[0, 0, 0], list(red), list(blue)]
    found = read_annotations(annotated(tmp_path, *masks, classes=NAMES, palette=palette))
    assert found.masks[:, 0].tolist() == [[0, 1, 2], [0, 2, 1]]
    assert found.notes == ()


def test_one_index_in_two_colours(tmp_path):
    masks = indexed([0, 1], [(0, 0, 0), (9, 0, 0)]), indexed([0, 1], [(0, 0, 0), (0, 9, 0)])
    found = read_annotations(annotated(tmp_path, *masks))
    assert found.masks[:, 0].tolist() == [[0, 1], [0, 1]]
    assert only_note(found).startswith("index 1 is [9, 0, 0] in m0.png and [0, 9, 0] in m1.png")


def test_fillers_are_no_contradiction(tmp_path):
    """Black fills a palette up, so it stands for several ids and says nothing about any."""
    black, red = (0, 0, 0), (255, 0, 0)
    masks = indexed([0, 1], [black, red]), indexed([1, 2], [black, red, black, black])
    found = read_annotations(annotated(tmp_path, *masks))
    assert found.masks[:, 0].tolist() == [[0, 1], [1, 2]]
    assert found.notes == ()


# --- resizing --------------------------------------------------------------------------------


def test_what_resizing_loses_is_named(tmp_path):
    ids = np.zeros((64, 64), np.uint8)
    ids[:, :32] = 1
    ids[3, :] = 2  # a scratch of one pixel
    folder = annotated(tmp_path, ids, ids * (ids < 2), classes=["background", "cell", "scratch"])
    found = read_annotations(folder, (8, 8))
    assert only_note(found) == (
        "resizing to 8x8 removes scratch from 1 of 2 masks (0.78 % of the pixels before, 0 % after)"
    )
    assert read_annotations(folder).notes == ()


# --- turned images ---------------------------------------------------------------------------


def test_a_turned_image_with_a_mask_that_is_not(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    folder = annotated(tmp_path, np.zeros((4, 6), np.uint8))
    Image.new("RGB", (6, 4)).save(folder / "images" / "m0.png", exif=exif)
    refused(folder, r"6x4 pixels but its image m0\.png is 4x6: the image is turned upright by its")
    Image.fromarray(np.zeros((6, 4), np.uint8)).save(folder / "masks" / "m0.png")
    assert only_note(read_annotations(folder)).startswith("1 image: 1 turned upright by their EX")
    Image.new("RGB", (6, 4)).save(folder / "images" / "m0.png")
    Image.fromarray(np.zeros((6, 4), np.uint8)).save(folder / "masks" / "m0.png", exif=exif)
    found = read_annotations(folder)
    assert found.masks.shape == (1, 4, 6)  # the tag of a mask counts as well
    assert only_note(found) == (
        "1 mask turned upright by an EXIF tag that the image lacks, such as m0.png: check that "
        "they match"
    )


# --- classes.json ----------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_of_windows(tmp_path, encoding):
    folder = annotated(tmp_path, row(0, 1))
    (folder / "classes.json").write_text('{"classes": ["Grund", "Kern é"]}', encoding=encoding)
    assert read_annotations(folder).classes == ["Grund", "Kern é"]


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b"\xff\xfe\x00",
        b'{"classes": [\xe9]}',
        b'{"classes": ["a"], "classes": ["b"]}',
    ],
)
def test_class_lists_that_are_no_json(tmp_path, content):
    folder = annotated(tmp_path, row(0, 1))
    (folder / "classes.json").write_bytes(content)
    refused(folder, r"classes\.json is not valid JSON")
