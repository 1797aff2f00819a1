"""Published data sets of one object each, as their authors distribute them.

    flowers102       jpg/image_00001.jpg, segmim/segmim_00001.jpg, setid.mat
    cub              images/001.Name/x.jpg, segmentations/001.Name/x.png, images.txt, and
                     train_val_test_split.txt, which comes with the program of ReDO
    celebamask-hq    CelebA-HQ-img/0.jpg, CelebAMask-HQ-mask-anno/0/00000_hair.png; for a split also
                     CelebA-HQ-to-CelebA-mapping.txt and CelebA's list_eval_partition.txt
    pixel-imagenet   n01440764/n01440764_10026.png; the pictures are those of ImageNet, --images

Pictures are cropped to their central square, as all published results on them are; a picture that
is square already is copied. The splits are those of ReDO and IEM: Flowers' train and test are
swapped against their names in setid.mat, so that most images are for training.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from factory_core.annotated.formats.regions import (
    BACKGROUND,
    Drawing,
    Picture,
    Reading,
    Region,
    Source,
    masks_of,
)
from factory_core.annotated.items import Item
from factory_core.annotated.published import (
    CELEBA_IMAGES,
    CELEBA_MASKS,
    CELEBA_PARTS,
    celebamask_hq,
    read_face,
)
from factory_core.images import DEFAULT_PICTURES, decode_file, load_image, wxh

OBJECT = [BACKGROUND, "foreground"]
FACE = [BACKGROUND, "skin", "hair"]
SKIN = (
    *("skin", "nose", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear"),
    *("mouth", "u_lip", "l_lip", "neck"),
)
SPLITS = ("train", "val", "test")
FLOWER_SETS = {"train": "tstid", "val": "valid", "test": "trnid"}
PER_CLASS, SEED = 20, 0  # of Pixel-ImageNet: at most this many images per class, drawn at random

Ids = Callable[[], np.ndarray]  # class ids uint8 [H, W], of the size of the picture


@dataclass(frozen=True)
class Pair:
    """A picture, what gives its class ids, and its name in the result."""

    image: Path
    ids: Ids
    stem: str


def flowers102(source: Source) -> Reading:
    """Oxford Flowers-102; foreground is what is not blue in `segmim`."""
    folder, name = source.path, FLOWER_SETS[_split(source)]
    numbers = _matlab_numbers(folder / "setid.mat", name)
    pairs = []
    for number in numbers:
        mask = _existing(folder / "segmim" / f"segmim_{number:05d}.jpg")
        image = folder / "jpg" / f"image_{number:05d}.jpg"
        pairs.append(Pair(image, partial(_not_blue, mask), image.stem))
    return _reading(pairs, OBJECT)


def cub(source: Source) -> Reading:
    """Caltech-UCSD Birds; foreground where most annotators of a pixel saw the bird."""
    folder, wanted = source.path, SPLITS.index(_split(source))
    paths = dict(_lines(folder / "images.txt", "1 001.Name/picture.jpg"))
    split = folder / "train_val_test_split.txt"
    pairs = []
    for key, number in _lines(split, "1 0, with 0 train, 1 val, 2 test"):
        if number not in ("0", "1", "2") or key not in paths:
            raise ValueError(f"{split}: found {key} {number!r}, expected an id of images.txt, 0-2")
        if int(number) != wanted:
            continue
        relative = Path(paths[key])
        mask = _existing(folder / "segmentations" / relative.with_suffix(".png"))
        pairs.append(Pair(folder / "images" / relative, partial(_bright, mask, 127), relative.stem))
    return _reading(pairs, OBJECT)


def celebamask(source: Source) -> Reading:
    """CelebAMask-HQ: skin, hair and the rest; without a split, all of its images."""
    folder = source.path
    kept = None if source.split is None else _celeba_numbers(folder, _split(source))
    ids_of = dict.fromkeys([BACKGROUND, *CELEBA_PARTS], 0) | dict.fromkeys(SKIN, 1) | {"hair": 2}
    for name in (CELEBA_IMAGES, CELEBA_MASKS):
        _existing(folder / name)
    items = celebamask_hq(folder, None).items
    pairs = [
        Pair(item.image, partial(_face, item, ids_of), item.name)
        for item in items
        if kept is None or int(item.name) in kept
    ]
    return _reading(pairs, FACE)


def pixel_imagenet(source: Source) -> Reading:
    """Masks of ImageNet by class; at most PER_CLASS images of each, drawn by SEED."""
    if source.images is None:
        raise ValueError("pixel-imagenet: expected --images DIR, ImageNet's folder of classes")
    if source.split is not None:
        raise ValueError("found --split with pixel-imagenet, which has none: leave it out")
    pairs: list[Pair] = []
    classes: dict[str, str] = {}
    for folder in sorted(p for p in source.path.iterdir() if p.is_dir()):
        masks = sorted(folder.glob("*.png"))
        order = np.random.default_rng([SEED, len(classes)]).permutation(len(masks))
        for mask in sorted(masks[i] for i in order[:PER_CLASS]):
            image = source.images / folder.name / f"{mask.stem}.JPEG"
            pairs.append(Pair(image, partial(_bright, mask, 0), mask.stem))
            classes[mask.stem] = folder.name
    return _reading(pairs, OBJECT, classes)


# --- what they share -------------------------------------------------------------------------


def _reading(
    pairs: Sequence[Pair], labels: Sequence[str], image_classes: Mapping[str, str] | None = None
) -> Reading:
    """Raises ValueError if there is nothing, FileNotFoundError if a picture is missing."""
    if not pairs:
        raise ValueError("found no image: expected the folder as its authors distribute it")
    for pair in pairs:
        _existing(pair.image)
    return Reading(
        labels, _Squares(pairs, labels), has_all_ids=True, image_classes=image_classes or {}
    )


@dataclass(frozen=True)
class _Squares:
    """Drawings, one in memory at a time."""

    pairs: Sequence[Pair]
    labels: Sequence[str]

    def __iter__(self) -> Iterator[Drawing]:
        for pair in self.pairs:
            image = load_image(pair.image, DEFAULT_PICTURES)
            ids = pair.ids()
            if ids.shape != image.size[::-1]:
                raise ValueError(
                    f"{pair.image} is {wxh(image.size[::-1])} pixels, its mask {wxh(ids.shape)}: "
                    "expected equal sizes"
                )
            side, (width, height) = min(image.size), image.size
            left, top = (width - side) // 2, (height - side) // 2
            if width == height:
                picture = Picture(pair.stem, pair.image.suffix.lower(), pair.image)
            else:
                square = image.crop((left, top, left + side, top + side))
                data = io.BytesIO()
                square.save(data, "PNG", compress_level=1)
                picture = Picture(pair.stem, ".png", data=data.getvalue())
            part = np.ascontiguousarray(ids[top : top + side, left : left + side])
            yield Drawing(picture, (side, side), partial(self._regions, part))

    def _regions(self, ids: np.ndarray) -> Iterator[Region]:
        return masks_of(ids, self.labels)


def _not_blue(mask: Path) -> np.ndarray:
    colours = decode_file(mask, lambda image: np.array(image.convert("RGB")))
    red, green, blue = np.moveaxis(colours, 2, 0)
    return (~((red == 0) | (green == 0) | (blue == 254))).astype(np.uint8)


def _bright(mask: Path, above: int) -> np.ndarray:
    grey = decode_file(mask, lambda image: np.array(image.convert("L")))
    return (grey > above).astype(np.uint8)


def _face(item: Item, ids_of: dict[str, int]) -> np.ndarray:
    return read_face(item, DEFAULT_PICTURES, ids_of)[1].ids


def _split(source: Source) -> str:
    if source.split not in SPLITS:
        found = "none" if source.split is None else source.split
        raise ValueError(f"--split: found {found}, expected {', '.join(SPLITS)}")
    return source.split


def _existing(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: expected the folder as distributed")
    return path


def _lines(file: Path, example: str) -> Iterator[tuple[str, str]]:
    """The two words of each line."""
    for line in _existing(file).read_text(encoding="utf-8-sig").splitlines():
        words = line.split()
        if words and len(words) != 2:
            raise ValueError(f"{file}: found {line!r}, expected lines such as {example}")
        if words:
            yield words[0], words[1]


def _matlab_numbers(file: Path, name: str) -> list[int]:
    from scipy.io import loadmat

    _existing(file)
    try:
        found = loadmat(file, variable_names=[name])[name]
        return sorted(int(number) for number in found.ravel())
    except Exception as error:  # of many types, for damaged files
        raise ValueError(
            f"{file} holds no numbers {name!r} ({type(error).__name__}): download it again"
        ) from None


def _celeba_numbers(folder: Path, split: str) -> set[int]:
    """The numbers, in CelebA-HQ, of the images of a split of CelebA."""
    listing = folder / "list_eval_partition.txt"
    wanted = str(SPLITS.index(split))
    files = {name for name, number in _lines(listing, "000001.jpg 0") if number == wanted}
    mapping = _existing(folder / "CelebA-HQ-to-CelebA-mapping.txt")
    rows = [line.split() for line in mapping.read_text(encoding="utf-8-sig").splitlines()[1:]]
    if any(len(row) < 3 or not row[0].isdecimal() for row in rows if row):
        raise ValueError(f"{mapping}: expected a heading and lines such as 0 119613 119614.jpg")
    return {int(row[0]) for row in rows if row and row[2] in files}
