"""24 annotated images through every format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from factory_core.annotated.annotations import read_annotations
from factory_core.annotated.formats import FORMATS, READABLE, reader, writer
from factory_core.annotated.formats.exporting import export_annotations, of_folder
from factory_core.annotated.formats.polygons import fill

SIZE = (64, 64)


def stored(folder: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.array(Image.open(path)) for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("name", READABLE)
def test_every_pixel_comes_back(name: str, annotated: Path, tmp_path: Path, back: Callable) -> None:
    assert export_annotations(name, of_folder(annotated), tmp_path / "out") == 24
    found = back(name, tmp_path / "out")
    before, after = read_annotations(annotated), read_annotations(found.folder)
    assert after.stems == before.stems
    assert after.classes == before.classes
    assert (after.masks == before.masks).all()  # 255 too
    assert (after.images == before.images).all()
    assert (before.masks == 255).any()
    assert found.overlapped == 0
    assert not any(found.tally.left_out.values())
    assert (found.folder / "images/000003.png").read_bytes() == (
        annotated / "images/000003.png"
    ).read_bytes()


@pytest.mark.parametrize("name", ["labelme", "cvat", "cvat-mask", "coco", "label-studio", "voc"])
def test_what_comes_back_from_a_program_has_no_classes_json(
    name: str, annotated: Path, tmp_path: Path, back: Callable
) -> None:
    export_annotations(name, of_folder(annotated), tmp_path / "out")
    (tmp_path / "out/classes.json").unlink()
    before = read_annotations(annotated)
    names = before.classes
    found = back(name, tmp_path / "out")
    assert found.classes[0] == "background"
    assert sorted(found.classes) == sorted(names)
    of_name = np.array([*(names.index(n) for n in found.classes), *[255] * 251], np.uint8)
    for stem, mask in zip(before.stems, before.masks.numpy(), strict=True):
        assert np.array_equal(of_name[found.ids[stem]], mask)
    again = back(name, tmp_path / "out", "again", classes=names)
    assert all(
        np.array_equal(again.ids[stem], mask)
        for stem, mask in zip(before.stems, before.masks.numpy(), strict=True)
    )


def test_pycocotools_reads_the_same(annotated: Path, tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    masks = stored(annotated / "masks")
    for name in ("coco", "coco-rle"):
        export_annotations(name, of_folder(annotated), tmp_path / name)
        coco = COCO(tmp_path / name / "annotations/instances_default.json")
        both, either = np.zeros(256), np.zeros(256)
        for image in coco.loadImgs(coco.getImgIds()):
            ids = np.zeros(SIZE, int)
            for annotation in coco.loadAnns(coco.getAnnIds(imgIds=image["id"])):
                assert annotation["area"] == coco.annToMask(annotation).sum()
                ids[coco.annToMask(annotation) > 0] = annotation["category_id"]
            expected = masks[image["file_name"][:-4]].astype(int)
            expected[expected == 255] = 5  # the category of pixels to ignore
            for i in range(1, 6):
                both[i] += ((ids == i) & (expected == i)).sum()
                either[i] += ((ids == i) | (expected == i)).sum()
        assert (both[1:6] / either[1:6] > 0.99).all()


def test_yolo(annotated: Path, tmp_path: Path) -> None:
    export_annotations("yolo-seg", of_folder(annotated), tmp_path / "out")
    about = yaml.safe_load((tmp_path / "out/data.yaml").read_text())
    assert about["names"] == ["red cell", "cytoplasm", "nucleus", "platelet"]  # no background
    both, either = np.zeros(5), np.zeros(5)
    for stem, expected in stored(annotated / "masks").items():
        assert (tmp_path / "out/images/train" / f"{stem}.png").exists()
        ids = np.zeros(SIZE, np.uint8)
        for line in (tmp_path / "out/labels/train" / f"{stem}.txt").read_text().splitlines():
            number, *values = line.split()
            points = np.array(values, float).reshape(-1, 2)
            assert points.min() >= 0
            assert points.max() <= 1
            region, crossed = fill("", points * 64, SIZE)
            assert region is not None
            assert not crossed  # bridges to holes are no crossings
            ids[region.window][region.inside] = int(number) + 1
        for i in range(1, 5):
            both[i] += ((ids == i) & (expected == i)).sum()
            either[i] += ((ids == i) | (expected == i)).sum()
    assert (both[1:] / either[1:] > 0.99).all()


def test_nnunet(annotated: Path, tmp_path: Path) -> None:
    export_annotations("nnunet", of_folder(annotated), tmp_path / "out")
    about = json.loads((tmp_path / "out/dataset.json").read_text())
    assert about["labels"] == {
        "background": 0,
        "red cell": 1,
        "cytoplasm": 2,
        "nucleus": 3,
        "platelet": 4,
        "ignore": 5,
    }
    assert about["numTraining"] == 24
    labels = stored(tmp_path / "out/labelsTr")
    used = sorted({int(i) for ids in labels.values() for i in np.unique(ids)})
    assert used == [0, 1, 2, 3, 4, 5]  # consecutive
    for stem, expected in stored(annotated / "masks").items():
        assert np.array_equal(np.where(labels[stem] == 5, 255, labels[stem]), expected)
        image = Image.open(tmp_path / "out/imagesTr" / f"{stem}_0000.png")
        assert image.mode == "RGB"
        assert np.array_equal(image, Image.open(annotated / "images" / f"{stem}.png"))


def test_classes_without_a_background(tmp_path: Path, back: Callable, picture: Callable) -> None:
    folder = tmp_path / "plain"
    picture(folder / "images/a.png")
    (folder / "masks").mkdir()
    ids = np.arange(48, dtype=np.uint8).reshape(6, 8) % 2
    Image.fromarray(ids).save(folder / "masks/a.png")
    (folder / "classes.json").write_text('{"classes": ["dark", "bright"]}')
    for name in READABLE:
        export_annotations(name, of_folder(folder), tmp_path / name)
        found = back(name, tmp_path / name, f"{name}-back")
        assert found.classes == ["dark", "bright"]
        assert np.array_equal(found.ids["a"], ids), name
    export_annotations("nnunet", of_folder(folder), tmp_path / "nnunet")
    about = json.loads((tmp_path / "nnunet/dataset.json").read_text())
    assert about["labels"] == {"background": 0, "dark": 1, "bright": 2}


def test_pictures_are_exported_as_they_are_shown(
    tmp_path: Path, picture: Callable, back: Callable
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    folder = tmp_path / "plain"
    picture(folder / "images/a.jpg", exif=exif, quality=95)
    (folder / "masks").mkdir()
    Image.fromarray(np.eye(8, 6, dtype=np.uint8)).save(folder / "masks/a.png")
    (folder / "classes.json").write_text('{"classes": ["background", "line"]}')
    export_annotations("labelme", of_folder(folder), tmp_path / "out")
    about = json.loads((tmp_path / "out/a.json").read_text())
    assert (about["imageHeight"], about["imageWidth"]) == (8, 6)
    assert Image.open(tmp_path / "out" / about["imagePath"]).size == (6, 8)
    found = back("labelme", tmp_path / "out")
    assert (read_annotations(found.folder).images == read_annotations(folder).images).all()


def test_output_folders(annotated: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"--out .*full holds notes.txt: give a new or empty"):
        export_annotations("coco", of_folder(annotated), tmp_path / "full")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/.DS_Store").write_text("")
    export_annotations("coco", of_folder(annotated), tmp_path / "empty")
    assert (tmp_path / "empty/images/000000.png").exists()
    labelled = of_folder(annotated)

    def broken():
        yield next(iter(labelled.samples))
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="gone"):
        export_annotations("coco", labelled._replace(samples=broken()), tmp_path / "half")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "full"]


def test_unknown_formats() -> None:
    with pytest.raises(ValueError, match="found the format 'xml', expected one of labelme, cvat"):
        reader("xml")
    with pytest.raises(ValueError, match="found the format 'yolo-seg', expected one of"):
        reader("yolo-seg")  # written only
    assert all(writer(name) for name in FORMATS)
