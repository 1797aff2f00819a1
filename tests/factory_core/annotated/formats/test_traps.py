"""What goes wrong in other converters: one test per trap."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from factory_core.annotated.formats import brush
from tests.factory_core.annotated.formats.written import BOX, boxed, labelme


def turned(how: int = 6) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = how
    return exif


def png(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


# --- LabelMe ---------------------------------------------------------------------------------


def test_labelme_annotates_the_upright_photograph(
    tmp_path: Path, picture: Callable, back: Callable
) -> None:
    picture(tmp_path / "x/a.jpg", exif=turned())  # 6 x 8 in the file, 8 x 6 as it is shown
    folder = labelme(tmp_path / "x/a.json", {}, imagePath="a.jpg", imageHeight=8, imageWidth=6)
    assert np.array_equal(back("labelme", folder).ids["a"], boxed(8, 6))
    labelme(tmp_path / "x/a.json", {}, imagePath="a.jpg", imageHeight=6, imageWidth=8)
    with pytest.raises(ValueError, match=r"regions for 8x6 pixels, but .*a.jpg is 6x8: .*upright"):
        back("labelme", folder, "again")


def test_labelme_draws_on_its_copy_of_the_picture(
    tmp_path: Path, picture: Callable, back: Callable
) -> None:
    copy = np.random.default_rng(5).integers(0, 256, (6, 8, 3), np.uint8)
    picture(tmp_path / "x/a.png")  # other pixels
    folder = labelme(tmp_path / "x/a.json", {}, imageData=png(copy))
    found = back("labelme", folder)
    assert found.tally.copies == 1
    assert np.array_equal(Image.open(found.folder / "images/a.png"), copy)
    picture(tmp_path / "x/a.png", 12, 16)  # another size
    found = back("labelme", folder, "other_size")
    assert (found.tally.copies, found.ids["a"].shape) == (1, (6, 8))
    (tmp_path / "x/a.png").unlink()  # the copy is all there is
    found = back("labelme", folder, "no_file")
    assert found.tally.copies == 0
    assert np.array_equal(Image.open(found.folder / "images/a.png"), copy)


def test_labelme_compresses_the_copy_of_a_jpeg_again(
    tmp_path: Path, picture: Callable, back: Callable
) -> None:
    smooth = np.linspace(0, 250, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    (tmp_path / "x").mkdir()
    Image.fromarray(smooth).save(tmp_path / "x/a.jpg", quality=95)
    buffer = io.BytesIO()
    Image.open(tmp_path / "x/a.jpg").save(buffer, "JPEG", quality=60)
    data = base64.b64encode(buffer.getvalue()).decode()
    size = {"imageHeight": 64, "imageWidth": 64, "imagePath": "a.jpg"}
    found = back("labelme", labelme(tmp_path / "x/a.json", {}, imageData=data, **size))
    assert found.tally.copies == 0
    original = (tmp_path / "x/a.jpg").read_bytes()
    assert (found.folder / "images/a.jpg").read_bytes() == original


def test_labelme_mask_shapes(tmp_path: Path, picture: Callable, back: Callable) -> None:
    picture(tmp_path / "x/a.png")
    inside = np.array([[1, 0, 1], [1, 1, 1]], bool)
    mask = {"shape_type": "mask", "points": [[2.0, 3.0], [4.0, 4.0]], "mask": png(inside)}
    found = back("labelme", labelme(tmp_path / "x/a.json", mask))
    expected = np.zeros((6, 8), np.uint8)
    expected[3:5, 2:5] = inside
    assert np.array_equal(found.ids["a"], expected)
    outside = mask | {"points": [[6.0, 3.0], [8.0, 4.0]]}
    with pytest.raises(ValueError, match=r"mask of 3x2 pixels at \(6, 3\), expected one inside"):
        back("labelme", labelme(tmp_path / "x/a.json", outside), "again")


def test_labelme_shapes_overlap_in_their_order_and_some_have_no_area(
    tmp_path: Path, picture: Callable, back: Callable
) -> None:
    picture(tmp_path / "x/a.png")
    folder = labelme(
        tmp_path / "x/a.json",
        {},
        {"label": "nucleus", "shape_type": "rectangle", "points": [[3, 2], [7, 5]]},
        {"label": "mark", "shape_type": "point", "points": [[1, 1]]},
        {"label": "__ignore__", "shape_type": "circle", "points": [[7.5, 0.5], [7.5, 1.2]]},
    )
    found = back("labelme", folder)
    expected = boxed()
    expected[2:5, 3:7] = 2
    expected[0, 7] = expected[1, 7] = expected[0, 6] = 0
    expected[0, 7] = 255
    assert np.array_equal(found.ids["a"], expected)
    assert found.classes == ["background", "cell", "nucleus"]
    assert found.overlapped == 4
    assert found.tally.left_out == {"point, which has no area": 1}


def test_labelme_files_beside_a_folder_of_pictures(
    tmp_path: Path, picture: Callable, back: Callable
) -> None:
    picture(tmp_path / "x/photos/a.png")
    labelme(tmp_path / "x/labels/a.json", {}, imagePath="..\\photos\\a.png")
    assert np.array_equal(back("labelme", tmp_path / "x").ids["a"], boxed())


# --- CVAT ------------------------------------------------------------------------------------


def cvat(folder: Path, shapes: str, about: str = 'name="a.png" width="8" height="6"') -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "annotations.xml").write_text(
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version><meta><task>'
        "<labels><label><name>nucleus</name><color>#fa3253</color></label>"
        "<label><name>cell</name><color>#33ddff</color></label></labels></task></meta>"
        f'<image id="0" {about}>{shapes}</image></annotations>'
    )
    return folder


def polygon(label: str, points: str, z: int = 0) -> str:
    return f'<polygon label="{label}" occluded="0" points="{points}" z_order="{z}"></polygon>'


def test_cvat_draws_by_z_order(tmp_path: Path, picture: Callable, back: Callable) -> None:
    picture(tmp_path / "x/a.png")
    above = polygon("nucleus", "1,1;3,1;3,3;1,3", z=2)
    below = polygon("cell", "0,0;8,0;8,6;0,6", z=-1)
    found = back("cvat", cvat(tmp_path / "x", above + below))
    assert found.classes == ["background", "nucleus", "cell"]  # in the order of the task
    expected = np.full((6, 8), 2, np.uint8)
    expected[1:3, 1:3] = 1
    assert np.array_equal(found.ids["a"], expected)
    assert found.overlapped == 4
    about = json.loads((found.folder / "classes.json").read_text())
    assert about["palette"] == [[0, 0, 0], [250, 50, 83], [51, 221, 255]]


def test_cvat_counts_along_the_rows_of_a_window(
    tmp_path: Path, picture: Callable, back: Callable
) -> None:
    picture(tmp_path / "x/a.png")
    # The window 3 wide and 2 high holds 0 1 1 / 1 0 0; COCO would count down the whole picture.
    mask = '<mask label="cell" rle="1, 3, 2" left="2" top="1" width="3" height="2" z_order="0"/>'
    found = back("cvat", cvat(tmp_path / "x", mask))
    expected = np.zeros((6, 8), np.uint8)
    expected[1, 3:5] = expected[2, 2] = 2
    assert np.array_equal(found.ids["a"], expected)


def test_cvat_shows_photographs_upright(tmp_path: Path, picture: Callable, back: Callable) -> None:
    picture(tmp_path / "x/a.jpg", exif=turned(8))
    shapes = polygon("cell", "1,1;5,1;5,4;1,4")
    cvat(tmp_path / "x", shapes, 'name="a.jpg" width="6" height="8"')
    assert np.array_equal(back("cvat", tmp_path / "x").ids["a"], 2 * boxed(8, 6))


def test_cvat_boxes_ellipses_and_shapes_without_area(
    tmp_path: Path, picture: Callable, back: Callable
) -> None:
    picture(tmp_path / "x/a.png", 20, 20)
    shapes = (
        '<box label="cell" xtl="2" ytl="8" xbr="18" ybr="12" rotation="90" z_order="0"/>'
        '<ellipse label="nucleus" cx="10" cy="10" rx="3" ry="1.5" z_order="1"/>'
        '<polyline label="cell" points="0,0;9,9" z_order="0"/><tag label="cell"/>'
    )
    cvat(tmp_path / "x", shapes, 'name="a.png" width="20" height="20"')
    found = back("cvat", tmp_path / "x")
    expected = np.zeros((20, 20), np.uint8)
    expected[2:18, 8:12] = 2
    rows, columns = np.indices((20, 20)) + 0.5
    expected[((columns - 10) / 3) ** 2 + ((rows - 10) / 1.5) ** 2 < 1] = 1
    assert np.array_equal(found.ids["a"], expected)
    assert sum(found.tally.left_out.values()) == 2


def test_cvat_pictures_without_a_region(tmp_path: Path, picture: Callable, back: Callable) -> None:
    picture(tmp_path / "x/a.png")
    with pytest.raises(ValueError, match=r"no annotated picture .*: picture without a region"):
        back("cvat", cvat(tmp_path / "x", ""))
    assert not back("cvat", tmp_path / "x", keep_empty=True).ids["a"].any()


def masks(folder: Path, labelmap: str, pixels: np.ndarray, **how: Any) -> Path:
    (folder / "SegmentationClass").mkdir(parents=True)
    Image.fromarray(pixels).save(folder / "SegmentationClass/a.png", **how)
    (folder / "labelmap.txt").write_text(f"# label:color_rgb:parts:actions\n{labelmap}")
    return folder


@pytest.mark.parametrize("lines", ["cell:9,0,0::\nbackground:0,0,0::\n", "cell:9,0,0::\n"])
def test_the_first_line_of_a_labelmap_is_not_the_background(
    lines: str, tmp_path: Path, picture: Callable, back: Callable
) -> None:
    picture(tmp_path / "photos/a.png")
    colours = np.zeros((6, 8, 3), np.uint8)
    colours[1:4, 1:5] = 9, 0, 0
    colours[5] = 224, 224, 192  # the border of Pascal VOC
    found = back("cvat-mask", masks(tmp_path / "x", lines, colours), images=tmp_path / "photos")
    assert found.classes == ["background", "cell"]
    expected = boxed()
    expected[5] = 255
    assert np.array_equal(found.ids["a"], expected)


# --- COCO ------------------------------------------------------------------------------------


def coco(folder: Path, *annotations: dict[str, Any]) -> Path:
    content = {
        "images": [{"id": 7, "file_name": "a.png", "height": 6, "width": 8}],
        "annotations": [
            {"id": i, "image_id": 7, "iscrowd": 0, "category_id": 18} | annotation
            for i, annotation in enumerate(annotations)
        ],
        "categories": [{"id": 90, "name": "nucleus"}, {"id": 18, "name": "cell"}],
    }
    folder.mkdir(exist_ok=True)
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


def test_coco_holes_are_crowds_with_plain_counts(
    tmp_path: Path, picture: Callable, back: Callable
) -> None:
    picture(tmp_path / "x/a.png")
    ring = boxed()
    ring[2, 2:4] = 0
    counts, value = [0], 0
    for pixel in ring.T.ravel().tolist():  # down the columns, the first run outside
        if pixel != value:
            counts, value = [*counts, 0], pixel
        counts[-1] += 1
    crowd = {"segmentation": {"size": [6, 8], "counts": counts}, "iscrowd": 1}
    found = back("coco", coco(tmp_path / "x", crowd))
    assert found.classes == ["background", "cell", "nucleus"]  # by the ids of the categories
    assert np.array_equal(found.ids["a"], ring)


def test_coco_parts_packed_runs_and_order(
    tmp_path: Path, picture: Callable, back: Callable
) -> None:
    from pycocotools import mask

    picture(tmp_path / "x/a.png")
    inside = np.zeros((6, 8), np.uint8)
    inside[3:6, 4:8] = 1
    packed = mask.encode(np.asfortranarray(inside))
    found = back(
        "coco",
        coco(
            tmp_path / "x",
            {"segmentation": [[0, 0, 2, 0, 2, 1, 0, 1], np.ravel(BOX).tolist()]},
            {
                "segmentation": {"size": [6, 8], "counts": packed["counts"].decode()},
                "category_id": 90,
            },
            {"bbox": [0, 0, 2, 2]},
        ),
    )
    expected = boxed()
    expected[0, :2] = 1
    expected[inside > 0] = 2
    assert np.array_equal(found.ids["a"], expected)
    assert found.overlapped == 1
    assert sum(found.tally.left_out.values()) == 1


# --- Label Studio ----------------------------------------------------------------------------


def task(*results: dict[str, Any], image: str = "/data/upload/1/0a1b2c3d-a.png") -> dict[str, Any]:
    about = {"original_width": 8, "original_height": 6, "image_rotation": 0, "id": "r"}
    found = [about | {"type": "brushlabels"} | result for result in results]
    return {"id": 1, "data": {"image": image}, "annotations": [{"result": found}]}


def test_label_studio_brushes_have_four_channels_and_several_regions_of_a_class(
    tmp_path: Path, picture: Callable, back: Callable
) -> None:
    picture(tmp_path / "x/a.png")
    first, second = boxed() > 0, np.zeros((6, 8), bool)
    second[4:, 6:] = True
    results = [
        {"value": {"format": "rle", "rle": brush.encode(inside), "brushlabels": ["cell"]}}
        for inside in (first, second)
    ]
    (tmp_path / "x/export.json").write_text(json.dumps([task(*results)]))
    found = back("label-studio", tmp_path / "x")
    assert np.array_equal(found.ids["a"], first | second)
    assert found.overlapped == 0


def test_label_studio_single_values_in_a_brush() -> None:
    """Runs without repetition, and colours that are not opaque: by hand from the definition."""
    channels = [10, 20, 30, 255, 10, 20, 30, 0]  # two pixels, the first one opaque
    bits = f"{8:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"
    bits += "0" + "00" + f"{4:03b}" + "".join(f"{v:08b}" for v in channels[:5])  # five values
    bits += "0" + "00" + f"{1:03b}" + "".join(f"{v:08b}" for v in channels[5:7])
    bits += "1" + "11" + f"{0:016b}" + f"{0:08b}"  # one zero
    bits += "0" * (-len(bits) % 8)
    data = [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]
    assert brush.decode(data, (1, 2)).tolist() == [[True, False]]
    with pytest.raises(ValueError, match="brush for 2 pixels, expected 2x2"):
        brush.decode(data, (2, 2))
    with pytest.raises(ValueError, match="ends too early"):
        brush.decode(data[:9], (1, 2))


def test_label_studio_other_shapes_and_labels_apart_from_regions(
    tmp_path: Path, picture: Callable, back: Callable
) -> None:
    picture(tmp_path / "x/a.png", 10, 20)
    box = {"x": 10, "y": 20, "width": 30, "height": 40}
    corners = [[50, 0], [100, 0], [100, 50], [50, 50]]
    results = [
        {"type": "rectanglelabels", "value": box | {"rectanglelabels": ["cell"]}},
        {"type": "polygon", "id": "p", "value": {"points": corners}},
        {"type": "labels", "id": "p", "value": {"labels": ["nucleus"]}},
        {"type": "keypointlabels", "value": {"x": 1, "y": 1, "labels": ["cell"]}},
    ]
    for result in results:
        result |= {"original_width": 20, "original_height": 10}
    done = task(*results, image="/data/local-files/?d=sub%20folder/a.png")
    done["annotations"].insert(0, {"result": [], "was_cancelled": True})
    undone = {"data": {"image": "b.png"}, "annotations": []}
    (tmp_path / "x/export.json").write_text(json.dumps([done, undone]))
    found = back("label-studio", tmp_path / "x")
    expected = np.zeros((10, 20), np.uint8)
    expected[2:6, 2:8] = 1
    expected[:5, 10:] = 2
    assert np.array_equal(found.ids["a"], expected)
    assert +found.tally.left_out == {
        "keypointlabels, which has no area": 1,
        "task that nobody has annotated": 1,
    }
