"""Published data sets in the layouts of their authors, on a few made-up pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from factory_core.annotated.annotations import read_annotations
from factory_core.annotated.formats.data_sets import PER_CLASS
from factory_core.annotated.formats.importing import Imported, import_annotations
from factory_core.annotated.formats.regions import Source


def save(path: Path, pixels: np.ndarray, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def imported(name: str, folder: Path, **options) -> Imported:
    return import_annotations(name, Source(folder, **options), folder.parent / "out")


def stems(folder: Path) -> list[str]:
    return read_annotations(folder.parent / "out").stems


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    """Six pictures of 12 x 8 whose right half is a flower; the rest is blue in the masks."""
    folder = tmp_path / "flowers"
    for number in range(1, 7):
        save(folder / "jpg" / f"image_{number:05d}.jpg", np.full((8, 12, 3), number, np.uint8))
        mask = np.full((8, 12, 3), (0, 0, 254), np.uint8)
        mask[:, 6:] = (90, 80, 70)
        file = folder / "segmim" / f"segmim_{number:05d}.jpg"
        save(file, mask, format="PNG")  # exact values, as JPEG cannot promise
    savemat(folder / "setid.mat", {"trnid": [[1]], "valid": [[2]], "tstid": [[6, 3, 4, 5]]})
    return folder


def test_train_and_test_of_flowers_are_swapped(flowers: Path) -> None:
    found = imported("flowers102", flowers, split="train")
    assert (found.pictures, found.classes) == (4, ["background", "foreground"])
    assert stems(flowers) == [f"image_0000{i}" for i in (3, 4, 5, 6)]
    annotations = read_annotations(flowers.parent / "out")
    assert annotations.images.shape == (4, 3, 8, 8)  # the central square
    assert annotations.masks[0, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    result = import_annotations("flowers102", Source(flowers, split="test"), flowers.parent / "t")
    assert result.pictures == 1
    assert read_annotations(flowers.parent / "t").stems == ["image_00001"]


def test_cub_follows_the_split_of_redo(tmp_path: Path) -> None:
    folder = tmp_path / "cub"
    listing, split = [], []
    for number in range(1, 5):
        name = f"00{number % 2}.Bird/bird_{number}"
        save(folder / "images" / f"{name}.jpg", np.full((8, 8, 3), number, np.uint8))
        save(folder / "segmentations" / f"{name}.png", np.full((8, 8), 60 * (number - 1), np.uint8))
        listing.append(f"{number} {name}.jpg")
        split.append(f"{number} {(0, 0, 1, 2)[number - 1]}")
    (folder / "images.txt").write_text("\n".join(listing))
    (folder / "train_val_test_split.txt").write_text("\n".join(split))
    assert imported("cub", folder, split="train").pictures == 2
    annotations = read_annotations(tmp_path / "out")
    assert annotations.stems == ["bird_1", "bird_2"]
    assert annotations.masks.unique().tolist() == [0]  # 0 and 60 are below one half
    import_annotations("cub", Source(folder, split="test"), tmp_path / "test")
    assert read_annotations(tmp_path / "test").masks.unique().tolist() == [1]
    (folder / "train_val_test_split.txt").write_text("1 5")
    with pytest.raises(ValueError, match=r"found 1 '5', expected an id of images\.txt, 0-2"):
        import_annotations("cub", Source(folder, split="test"), tmp_path / "broken")


def test_faces_are_skin_hair_and_the_rest(tmp_path: Path) -> None:
    folder = tmp_path / "celeba"
    for number in range(3):
        save(folder / "CelebA-HQ-img" / f"{number}.jpg", np.full((8, 8, 3), 9, np.uint8))
        for part, rows in (("skin", (0, 4)), ("nose", (2, 3)), ("hair", (4, 6)), ("hat", (5, 6))):
            inside = np.zeros((8, 8), np.uint8)
            inside[slice(*rows)] = 255
            mask = folder / "CelebAMask-HQ-mask-anno" / "0" / f"{number:05d}_{part}.png"
            save(mask, inside)
    assert imported("celebamask-hq", folder).pictures == 3
    annotations = read_annotations(tmp_path / "out")
    assert annotations.classes == ["background", "skin", "hair"]
    assert annotations.masks[0, :, 0].tolist() == [1, 1, 1, 1, 2, 0, 0, 0]
    with pytest.raises(FileNotFoundError, match="list_eval_partition"):
        import_annotations("celebamask-hq", Source(folder, split="test"), tmp_path / "t")
    (folder / "list_eval_partition.txt").write_text("000011.jpg 0\n000012.jpg 2\n000013.jpg 1\n")
    (folder / "CelebA-HQ-to-CelebA-mapping.txt").write_text(
        "idx orig_idx orig_file\n0 10 000011.jpg\n1 11 000012.jpg\n2 12 000013.jpg\n"
    )
    import_annotations("celebamask-hq", Source(folder, split="test"), tmp_path / "t")
    assert read_annotations(tmp_path / "t").stems == ["1"]


def test_pixel_imagenet_keeps_at_most_twenty_images_per_class(
    factory: Callable, tmp_path: Path
) -> None:
    masks, pictures = tmp_path / "masks", tmp_path / "imagenet"
    for name, count in (("n01", PER_CLASS + 3), ("n02", 2)):
        for number in range(count):
            save(masks / name / f"{name}_{number}.png", np.full((4, 6), number % 2, np.uint8))
            save(pictures / name / f"{name}_{number}.JPEG", np.zeros((4, 6, 3), np.uint8))
    command = ("annotations", "import", "pixel-imagenet", masks, "--images", pictures)
    done = factory(*command, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    rows = (tmp_path / "out" / "image_classes.csv").read_text().splitlines()
    assert len(rows) == PER_CLASS + 2
    assert "n02_1.png,n02" in rows
    assert json.loads((tmp_path / "out" / "classes.json").read_text())["classes"] == [
        "background",
        "foreground",
    ]
    factory(*command, "--out", tmp_path / "again")
    again = (tmp_path / "again" / "image_classes.csv").read_text().splitlines()
    assert rows == again
    refused = factory(*command, "--split", "test", "--out", tmp_path / "none")
    assert "pixel-imagenet, which has none" in refused.err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["flowers102", "flowers"], "--split: found none, expected train, val, test"),
        (["flowers102", "flowers", "--split", "dev"], "--split: found dev"),
        (["cub", "flowers", "--split", "test"], "images.txt does not exist"),
        (["pixel-imagenet", "flowers"], "expected --images DIR"),
        (["celebamask-hq", "flowers"], "CelebA-HQ-img does not exist"),
        (["voc", "flowers", "--split", "test"], "found --split with voc"),
    ],
)
def test_mistakes_are_one_line(
    factory: Callable,
    flowers: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    line: str,
) -> None:
    monkeypatch.chdir(flowers.parent)
    refused = factory("annotations", "import", *arguments, "--out", "out")
    assert refused.code == 1
    assert line in refused.err
    assert len(refused.err.strip().splitlines()) == 1
    assert not Path("out").exists()


def test_damaged_and_missing_files(flowers: Path) -> None:
    (flowers / "segmim" / "segmim_00001.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"segmim_00001\.jpg does not exist"):
        imported("flowers102", flowers, split="test")
    (flowers / "setid.mat").write_bytes(b"no matrix")
    with pytest.raises(ValueError, match=r"setid\.mat holds no numbers 'trnid'"):
        imported("flowers102", flowers, split="test")
    assert not (flowers.parent / "out").exists()
