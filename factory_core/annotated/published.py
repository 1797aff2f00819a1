"""Published datasets, read unchanged: CelebAMask-HQ and ADE20K.

Their classes are found by name, so a recipe may use a few of them in its own order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from factory_core.annotated.items import Item, Layout, read_pair
from factory_core.images import (
    IGNORE,
    Mask,
    Pictures,
    decode_file,
    list_images,
    load_image,
    wxh,
)

CELEBA_IMAGES, CELEBA_MASKS = "CelebA-HQ-img", "CelebAMask-HQ-mask-anno"
CELEBA_MASKS_A_FOLDER = 2000
# In the order in which the dataset's authors draw them; a later part covers an earlier one.
CELEBA_PARTS = (
    *("skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear"),
    *("mouth", "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth"),
)
BACKGROUND = "background"
ADE_CATEGORIES, ADE_SCENES = "objectInfo150.txt", "sceneCategories.txt"
ADE_SPLITS = {"train": "training", "val": "validation"}


# --- CelebAMask-HQ ---------------------------------------------------------------------------


def celebamask_hq(folder: Path, classes: Sequence[str] | None) -> Layout:
    """`CelebA-HQ-img/12.jpg` and a mask per part: `CelebAMask-HQ-mask-anno/0/00012_hair.png`.

    Items are named by their number. Pixels of parts that are not classes are ignored.
    """
    names = [BACKGROUND, *CELEBA_PARTS] if classes is None else list(classes)
    for name in names:
        if name not in (BACKGROUND, *CELEBA_PARTS):
            raise ValueError(
                f"{folder} (CelebAMask-HQ) has no part {name!r}: its classes are {BACKGROUND}, "
                + ", ".join(CELEBA_PARTS)
            )
    images = list_images(folder / CELEBA_IMAGES)
    for path in images:
        if not path.stem.isdecimal():
            raise ValueError(f"{path}: expected numbers as names, such as 12.jpg (CelebAMask-HQ)")
    items = []
    for path in sorted(images, key=lambda path: int(path.stem)):
        number = int(path.stem)
        parts = folder / CELEBA_MASKS / str(number // CELEBA_MASKS_A_FOLDER) / f"{number:05d}"
        items.append(Item(path.stem, path, parts))
    return Layout(items, partial(read_face, ids_of={n: i for i, n in enumerate(names)}), names)


def read_face(item: Item, pictures: Pictures, ids_of: dict[str, int]) -> tuple[Image.Image, Mask]:
    """A 1024 x 1024 image and the ids of its parts; their masks (0 or 255) have half that size."""
    image = load_image(item.image, pictures)
    ids: np.ndarray | None = None
    for part in CELEBA_PARTS:
        path = Path(f"{item.mask}_{part}.png")
        if not path.exists():  # not visible in this image
            continue
        inside = decode_file(path, lambda mask: np.array(mask.convert("L")) > 0)
        if ids is None:
            ids = np.full(inside.shape, ids_of.get(BACKGROUND, IGNORE), np.uint8)
        if inside.shape != ids.shape:
            raise ValueError(
                f"{path} is {wxh(inside.shape)} pixels, other parts are {wxh(ids.shape)}: "
                "expected equal sizes"
            )
        ids[inside] = ids_of.get(part, IGNORE)
    if ids is None:
        raise FileNotFoundError(f"{item.image} has no masks: expected {item.mask}_skin.png, ...")
    enlarged = Image.fromarray(ids).resize(image.size, Image.Resampling.NEAREST)
    return image, Mask(np.array(enlarged), stored=False)


# --- ADE20K ----------------------------------------------------------------------------------


def ade20k(folder: Path, classes: Sequence[str] | None) -> Layout:
    """`images/training/ADE_train_00000001.jpg`, mask in `annotations/`; `validation` the same.

    Items are named `scene/stem`: `bedroom/ADE_train_00000012`. Categories that are not classes are
    ignored, and so is id 0, "other objects". Images keep their aspect ratio: the smaller side is
    resized and the larger one cropped, as in Baranchuk et al.
    """
    categories = _ade_categories(folder / ADE_CATEGORIES)
    names = [synonyms[0] for synonyms in categories] if classes is None else list(classes)
    new_ids = np.full(IGNORE + 1, IGNORE, np.uint8)
    for i, name in enumerate(names):
        new_ids[_ade_id(folder, categories, name)] = i
    items = _ade_items(folder)
    return Layout(items, partial(read_pair, new_ids=new_ids), names, crop=True)


def _ade_categories(path: Path) -> list[list[str]]:
    """Synonyms of each category, the usual name first, in order of the masks' ids from 1."""
    lines = path.read_text(encoding="utf-8-sig").splitlines()[1:]
    categories = [
        [name.strip() for name in line.split("\t")[-1].split(",")] for line in lines if line.strip()
    ]
    if not 0 < len(categories) < IGNORE:
        raise ValueError(f"{path}: expected a heading and one line per category, ids from 1")
    return categories


def _ade_id(folder: Path, categories: list[list[str]], name: str) -> int:
    """The id of the category whose usual name is `name`, else of one with that synonym."""
    usual = [i for i, synonyms in enumerate(categories, 1) if synonyms[0] == name]
    any_of = usual or [i for i, synonyms in enumerate(categories, 1) if name in synonyms]
    if not any_of:
        raise ValueError(
            f"{folder} (ADE20K) has no category {name!r}: expected names of {ADE_CATEGORIES}, such "
            f"as {', '.join(synonyms[0] for synonyms in categories[:3])}"
        )
    return any_of[0]


def _ade_items(folder: Path) -> list[Item]:
    path = folder / ADE_SCENES
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: it comes with ADE20K's scene parsing data")
    items = []
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        match = re.fullmatch(r"\s*(ADE_(train|val)_\d+)\s+(\S+)\s*", line)
        if match is None:
            raise ValueError(f"{path}: found {line!r}, expected 'ADE_train_00000001 bedroom'")
        stem, split, scene = match[1], ADE_SPLITS[match[2]], match[3]
        items.append(
            Item(
                f"{scene}/{stem}",
                folder / "images" / split / f"{stem}.jpg",
                folder / "annotations" / split / f"{stem}.png",
            )
        )
    return sorted(items, key=lambda item: item.name)
