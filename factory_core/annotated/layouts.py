"""Layouts of annotated folders: which images they hold, and what the ids of their masks mean.

Plain: image and mask have equal stems, in `images/` and `masks/` or side by side. In a folder with
a samples.json, images without a mask are left out: they are not annotated yet. Two published
datasets are read unchanged: CelebAMask-HQ (Lee et al., CVPR 2020), whose parts are drawn over each
other, and ADE20K's scene parsing release (Zhou et al., CVPR 2017). Their classes are found by name,
so a recipe may use a few of them in its own order.

Only names are read here, so `folder[:20]`, the first 20 images, is quick in a large folder too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from factory_core.images import (
    IGNORE,
    IMAGE_SUFFIXES,
    MASK_SUFFIXES,
    Palette,
    decode_file,
    list_files,
    list_images,
    load_ids,
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
SAMPLES_FILE = "samples.json"  # beside samples of a generator, which may not all be annotated yet
ADE_CATEGORIES, ADE_SCENES = "objectInfo150.txt", "sceneCategories.txt"
ADE_SPLITS = {"train": "training", "val": "validation"}


@dataclass(frozen=True)
class Item:
    """An annotated image: selections match its `name`, and `mask` holds its ids."""

    name: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class Layout:
    """The annotated images of a folder, found but not read.

    `read` returns an image and its class ids uint8 `[H, W]` of the same size; `classes` are the
    names in id order, None if unknown; `crop` says whether resizing keeps the aspect ratio.
    """

    items: list[Item]
    read: Callable[[Item], tuple[Image.Image, np.ndarray]]
    classes: list[str] | None
    palette: Palette | None = None
    crop: bool = False


def open_layout(folder: str | Path, classes: Sequence[str] | None = None) -> Layout:
    """Find the annotated images of `folder`, whatever its layout, and the meaning of their ids.

    `folder` may end in selections, each narrowing the last: `faces[:20]` (a slice in order of
    names), `ADEChallengeData2016[bedroom/*][50:]` (names that match a pattern). `classes` are the
    names expected, in id order. Raises ValueError or OSError with one line.
    """
    path, selections = split_selections(folder)
    if (path / CELEBA_MASKS).is_dir():
        layout = _celebamask_hq(path, classes)
    elif (path / ADE_CATEGORIES).is_file():
        layout = _ade20k(path, classes)
    else:
        layout = _plain(path, classes)
    items = layout.items
    for selection in selections:
        items = _select(items, selection)
    if not items:
        first, last = layout.items[0].name, layout.items[-1].name
        raise ValueError(
            f"{folder} selects none of the {len(layout.items)} annotated images in {path}: "
            f"expected a slice such as [:20] or a pattern matching a name from {first} to {last}"
        )
    return replace(layout, items=items)


def split_selections(folder: str | Path) -> tuple[Path, list[str]]:
    """The path and the selections of `folder`: `faces[a*][:20]` -> faces, ["a*", ":20"].

    An existing folder of exactly that name takes precedence.
    """
    match = re.fullmatch(r"(.+?)((?:\[[^][]+\])+)", str(folder))
    if match is None or Path(folder).exists():
        return Path(folder), []
    return Path(match[1]), re.findall(r"\[([^][]+)\]", match[2])


def _select(items: list[Item], selection: str) -> list[Item]:
    if match := re.fullmatch(r"(-?\d+)?:(-?\d+)?", selection):
        start, stop = (None if end is None else int(end) for end in match.groups())
        return items[start:stop]
    return [item for item in items if fnmatchcase(item.name, selection)]


def _read_pair(
    item: Item, palette: Palette | None = None, new_ids: np.ndarray | None = None
) -> tuple[Image.Image, np.ndarray]:
    """Image and mask of equal size; `new_ids` uint8 `[256]` maps each id to a new one."""
    image, ids = load_image(item.image), load_ids(item.mask, palette)
    if image.size != ids.shape[::-1]:
        raise ValueError(
            f"{item.mask} is {wxh(ids.shape)} pixels but its image {item.image.name} is "
            f"{wxh(image.size[::-1])}: expected equal sizes"
        )
    return image, ids if new_ids is None else new_ids[ids]


# --- image and mask with the same stem -------------------------------------------------------


def _plain(folder: Path, classes: Sequence[str] | None) -> Layout:
    items = _pairs(folder)
    names, palette, new_ids = _read_classes(folder, classes)
    return Layout(items, partial(_read_pair, palette=palette, new_ids=new_ids), names, palette)


def _pairs(folder: Path) -> list[Item]:
    """Image and mask of each stem, from two folders or one."""
    files = list_files(folder)
    image_dir, mask_dir = folder / "images", folder / "masks"
    if image_dir.is_dir() or mask_dir.is_dir():
        images = _by_stem(list_images(image_dir))
        masks = _by_stem(_mask_files(mask_dir))
    else:
        mask_dir = folder
        images, masks = _split_side_by_side(files)
        if not images:
            raise ValueError(
                f"no annotated images in {folder}: expected images/ and masks/, or images and "
                ".npy masks of the same names side by side"
            )
    may_lack_masks = (folder / SAMPLES_FILE).is_file()  # not all samples are annotated yet
    for stem, path in images.items():
        if stem not in masks and not may_lack_masks:
            raise ValueError(f"{path} has no mask: expected {mask_dir / stem}.png or .npy")
    for stem, path in masks.items():
        if stem not in images:
            raise ValueError(f"mask {path} has no image named {stem}: add it or remove the mask")
    if not masks:
        raise ValueError(f"no masks in {mask_dir}: expected masks of some of the images")
    return [Item(stem, images[stem], masks[stem]) for stem in sorted(masks)]


def _mask_files(folder: Path) -> list[Path]:
    suffixes = IMAGE_SUFFIXES | MASK_SUFFIXES
    paths = [p for p in list_files(folder) if p.suffix.lower() in suffixes]
    for path in paths:
        if path.suffix.lower() not in MASK_SUFFIXES:
            raise ValueError(
                f"mask {path} is in a format that may alter ids: save masks as .png or .npy"
            )
    return paths


def _split_side_by_side(files: list[Path]) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images and masks of a folder; of two files with one stem, the `.npy` or `.png` is the mask.

    A `.npy` is always a mask; a `.png` only beside an image in a different format.
    """
    images = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES]
    masks = [p for p in files if p.suffix.lower() == ".npy"]
    with_npy = {p.stem for p in masks}
    stems = [p.stem for p in images]
    for path in list(images):
        is_png = path.suffix.lower() == ".png"
        if is_png and path.stem not in with_npy and stems.count(path.stem) == 2:
            images.remove(path)
            masks.append(path)
    return _by_stem(images), _by_stem(sorted(masks))


def _by_stem(paths: list[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        if path.stem in found:
            raise ValueError(
                f"{found[path.stem]} and {path.name} have the same stem: "
                "expected one image and one mask per name"
            )
        found[path.stem] = path
    return found


def _read_classes(
    folder: Path, expected: Sequence[str] | None
) -> tuple[list[str] | None, Palette | None, np.ndarray | None]:
    """Names, palette and new ids from `classes.json` in the folder or its parent.

    Without the file: (`expected`, None, None). Raises ValueError for names that differ from
    `expected` or are in a different order, because the masks' ids would mean something else.
    """
    for path in (folder / "classes.json", folder.resolve().parent / "classes.json"):
        if not path.is_file():
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not valid JSON: {error}") from error
        if not isinstance(content, dict):
            content = {}
        names = _check_names(path, content, expected)
        new_ids = None
        reduce = content.get("reduce_zero_label", False)  # MMSegmentation's name for it
        if not isinstance(reduce, bool):
            raise ValueError(f'{path}: expected "reduce_zero_label" as true or false')
        if reduce:
            new_ids = np.array([IGNORE, *range(IGNORE - 1), IGNORE], np.uint8)
        return names, _check_palette(path, content.get("palette"), len(names)), new_ids
    return None if expected is None else list(expected), None, None


def _check_names(path: Path, content: dict[str, Any], expected: Sequence[str] | None) -> list[str]:
    names = content.get("classes")
    if names is None and expected is not None and "reduce_zero_label" in content:
        return list(expected)
    if not (isinstance(names, list) and names and all(isinstance(n, str) for n in names)):
        raise ValueError(f'{path}: expected {{"classes": ["name", ...]}}, names in id order')
    if len(names) > IGNORE:
        raise ValueError(f"{path} has {len(names)} classes, expected at most {IGNORE}")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{path} lists the class {twice!r} more than once: give distinct names")
    if expected is not None and names != list(expected):
        raise ValueError(
            f"{path} has the classes {names}, expected {list(expected)}: class ids must have "
            "the same meaning, so use images annotated with those classes in that order"
        )
    return names


def _check_palette(path: Path, palette: Any, classes: int) -> Palette | None:
    if palette is None:
        return None
    ok = isinstance(palette, list) and len(palette) == classes
    if not ok or any(
        not isinstance(colour, list)
        or len(colour) != 3
        or any(not isinstance(v, int) or not 0 <= v <= 255 for v in colour)
        for colour in palette
    ):
        raise ValueError(f'{path}: expected "palette" as {classes} colours [r, g, b] of 0 to 255')
    return palette


# --- CelebAMask-HQ ---------------------------------------------------------------------------


def _celebamask_hq(folder: Path, classes: Sequence[str] | None) -> Layout:
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
    return Layout(items, partial(_read_face, ids_of={n: i for i, n in enumerate(names)}), names)


def _read_face(item: Item, ids_of: dict[str, int]) -> tuple[Image.Image, np.ndarray]:
    """A 1024 x 1024 image and the ids of its parts; their masks (0 or 255) have half that size."""
    image = load_image(item.image)
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
    return image, np.array(enlarged)


# --- ADE20K ----------------------------------------------------------------------------------


def _ade20k(folder: Path, classes: Sequence[str] | None) -> Layout:
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
    return Layout(items, partial(_read_pair, new_ids=new_ids), names, crop=True)


def _ade_categories(path: Path) -> list[list[str]]:
    """Synonyms of each category, the usual name first, in order of the masks' ids from 1."""
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
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
    for line in path.read_text(encoding="utf-8").splitlines():
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
