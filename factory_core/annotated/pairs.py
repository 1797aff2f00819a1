"""Pairing images and masks by name: `images/` and `masks/`, one folder, or Pascal VOC's folders.

Names are compared as people see them: composed (NFC), and without the words by which programs mark
images and masks (`x_mask.png`, `mask_x.png` and `x.jpg.png` belong to `x.jpg` or `x_img.jpg`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from factory_core.annotated.class_list import read_classes
from factory_core.annotated.items import Item, Layout, read_pair
from factory_core.images import (
    IMAGE_SUFFIXES,
    MASK_SUFFIXES,
    counted,
    left_out,
    list_files,
    list_images,
    stem_of,
)

SAMPLES_FILE = "samples.json"  # beside samples of a generator
CHOSEN_FILE = "chosen.csv"  # beside images that were chosen to be annotated
PAGE_FOLDER = ".annotate"  # what the labelling page keeps
# In a folder with one of them, not all images are annotated yet.
UNFINISHED = (SAMPLES_FILE, CHOSEN_FILE, PAGE_FOLDER)
VOC_IMAGES, VOC_MASKS = "JPEGImages", "SegmentationClass"
MASK_WORD = r"(?:masks?|labels?|labelids|seg|segmentation|gt|annotation|groundtruth|ground_truth)"
IMAGE_WORD = r"(?:images?|img|im|photo|raw|input)"
LABEL_STUDIO_NAME = re.compile(r"task-\d+-annotation-\d+-.*")
LOSSY = "is in a format that may alter ids: save masks as .png or .npy"

Files = dict[str, Path]  # by stem


@dataclass(frozen=True)
class Pairs:
    """Images and masks of a folder by the stems of the images, and where masks belong.

    Masks may be missing, and a mask may have no image. `notes` are lines on what was left out.
    """

    images: Files
    masks: Files
    mask_dir: Path
    notes: tuple[str, ...]


def find_pairs(folder: Path) -> Pairs:
    """What is in `images/` and `masks/`, or side by side; raises ValueError or OSError."""
    files = list_files(folder)
    image_dir, mask_dir = folder / "images", folder / "masks"
    if image_dir.is_dir() or mask_dir.is_dir():
        images, masks = by_stem(list_images(image_dir)), by_stem(_mask_files(mask_dir))
        notes = left_out([image_dir]) + left_out([mask_dir], MASK_SUFFIXES)
    else:
        mask_dir = folder
        images, masks = _split_side_by_side(files)
        if not images:
            raise ValueError(_no_images(folder))
        notes = left_out([folder], IMAGE_SUFFIXES | MASK_SUFFIXES)
    return Pairs(images, _named_like(images, masks), mask_dir, notes)


def plain(folder: Path, classes: Sequence[str] | None) -> Layout:
    """Images and masks with equal stems, in `images/` and `masks/` or side by side."""
    pairs = find_pairs(folder)
    images, masks = pairs.images, pairs.masks
    lacking = [path for stem, path in images.items() if stem not in masks]
    if lacking and not any((folder / name).exists() for name in UNFINISHED):
        raise ValueError(_no_mask(lacking[0], pairs.mask_dir, masks))
    _check_images(images, masks, pairs.mask_dir)
    if lacking:
        note = _without_mask(len(lacking), folder)
        pairs = replace(pairs, notes=(*pairs.notes, note))
    return layout_of(pairs, folder, classes)


def layout_of(pairs: Pairs, folder: Path, classes: Sequence[str] | None) -> Layout:
    """The layout of those that have both; raises ValueError as `read_classes`."""
    names, palette, new_ids = read_classes(folder, classes)
    read = partial(read_pair, palette=palette, new_ids=new_ids)
    return Layout(_items(pairs.images, pairs.masks), read, names, palette, notes=pairs.notes)


def voc(folder: Path, classes: Sequence[str] | None) -> Layout:
    """`JPEGImages/`, `SegmentationClass/` and, if there is one, labelmap.txt, as CVAT exports them.

    Images without a mask are left out, as in Pascal VOC.
    """
    image_dir, mask_dir = folder / VOC_IMAGES, folder / VOC_MASKS
    if not image_dir.is_dir():
        raise FileNotFoundError(
            f"folder {image_dir} does not exist: export the images with the masks, or copy them "
            "there"
        )
    images, masks = by_stem(list_images(image_dir)), by_stem(_mask_files(mask_dir))
    masks = _named_like(images, masks)
    _check_images(images, masks, mask_dir)
    names, palette, new_ids = read_classes(folder, classes)
    notes = left_out([image_dir]) + left_out([mask_dir], MASK_SUFFIXES)
    if lacking := len(images) - len(masks):
        notes += (_without_mask(lacking, image_dir),)
    read = partial(read_pair, palette=palette, new_ids=new_ids)
    return Layout(_items(images, masks), read, names, palette, notes=notes)


def by_stem(paths: Iterable[Path]) -> Files:
    """Files by their stems; raises ValueError if two have the same."""
    found: Files = {}
    for path in paths:
        other = found.setdefault(stem_of(path), path)
        if other is not path:
            raise ValueError(
                f"{other} and {path.name} have the same stem: "
                "expected one image and one mask per name"
            )
    return found


def _without_mask(number: int, folder: Path) -> str:
    return f"{counted(number, 'image')} without a mask left out in {folder}"


def _items(images: Files, masks: Files) -> list[Item]:
    return [Item(stem, images[stem], masks[stem]) for stem in sorted(masks) if stem in images]


def _without(word: str, stem: str) -> str | None:
    """The name without a word of that pattern at its start or end, None if there is none."""
    match = re.fullmatch(rf"(?i)(?P<a>.+?)[ _.-]{word}|{word}[ _.-](?P<b>.+)", stem)
    return None if match is None else match["a"] or match["b"]


def _finder(images: Iterable[str]) -> Callable[[str], str | None]:
    """A function from a mask's stem to the stem of `images` that it adds a word to, or None."""
    known = {_without(IMAGE_WORD, stem): stem for stem in images} | {stem: stem for stem in images}

    def image_of(mask: str) -> str | None:
        base = Path(mask).stem if Path(mask).suffix.lower() in IMAGE_SUFFIXES else None
        for name in (_without(MASK_WORD, mask), base):
            if name is not None and known.get(name, mask) != mask:
                return known[name]
        return None

    return image_of


def _named_like(images: Files, masks: Files) -> Files:
    """Masks by the stems of their images, where a mask's name adds a word to it."""
    found: Files = {}
    image_of = _finder(images)
    for stem, path in masks.items():
        name = stem if stem in images else image_of(stem) or stem
        other = found.setdefault(name, path)
        if other is not path:
            raise ValueError(f"{other} and {path.name} are both masks of {name}: expected one")
    return found


def _mask_files(folder: Path) -> list[Path]:
    suffixes = IMAGE_SUFFIXES | MASK_SUFFIXES
    paths = [p for p in list_files(folder) if p.suffix.lower() in suffixes]
    for path in paths:
        if path.suffix.lower() not in MASK_SUFFIXES:
            raise ValueError(f"mask {path} {LOSSY}")
    return paths


def _split_side_by_side(files: Sequence[Path]) -> tuple[Files, Files]:
    """Images and masks of a folder.

    A mask is a `.npy`, a file whose name adds a word to that of an image (`x_mask.png`), and, of
    two files with one stem, the `.png` beside an image in a different format.
    """
    images = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES]
    masks = [p for p in files if p.suffix.lower() == ".npy"]
    stems = Counter(stem_of(p) for p in images)
    image_of = _finder(stems)
    for path in list(images):
        if image_of(stem_of(path)):
            if path.suffix.lower() not in MASK_SUFFIXES:
                raise ValueError(f"mask {path} {LOSSY}")
            images.remove(path)
            masks.append(path)
    with_mask = {stem_of(p) for p in masks} | {image_of(stem_of(p)) for p in masks}
    for path in list(images):
        stem = stem_of(path)
        if path.suffix.lower() == ".png" and stem not in with_mask and stems[stem] == 2:
            images.remove(path)
            masks.append(path)
    return by_stem(images), by_stem(sorted(masks))


def _check_images(images: Files, masks: Files, mask_dir: Path) -> None:
    for stem, path in masks.items():
        if stem not in images:
            raise ValueError(f"mask {path} has no image named {stem}: add it or remove the mask")
    if not masks:
        raise ValueError(f"no masks in {mask_dir}: expected masks of some of the images")


def _no_images(folder: Path) -> str:
    message = (
        f"no annotated images in {folder}: expected images/ and masks/, or images and .npy masks "
        "of the same names side by side"
    )
    if below := sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != "."):
        message += f"; found the folders {', '.join(below[:5])}: rename those two, or give one"
    return message


def _no_mask(image: Path, mask_dir: Path, masks: Files) -> str:
    """What to do about an image without a mask."""
    expected = mask_dir / stem_of(image)
    lost = next((path for stem, path in masks.items() if stem != stem_of(image)), None)
    if image.parent == mask_dir and image.suffix.lower() == ".png":
        return (
            f"{image} has no mask: expected {expected}.npy or {image.stem}_mask.png beside it, or "
            "folders images/ and masks/ if masks have exactly the names of PNG images"
        )
    message = f"{image} has no mask: expected {expected}.png or .npy"
    if lost is not None and LABEL_STUDIO_NAME.fullmatch(lost.stem):
        return (
            f"{message}; found names that Label Studio gives, such as {lost.name}: rename each "
            "mask after its image (its JSON export lists the image of each task)"
        )
    return message if lost is None else f"{message}; found masks such as {lost.name}"
