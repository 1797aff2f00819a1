"""Reading folders of images and of images with masks.

Two layouts are understood: `images/` + `masks/` with equal stems, or image and mask of one stem
side by side. A mask is an index image (PNG, BMP or TIFF, grey or palette) or a `.npy` array of
class ids; 255 means ignore.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import Dataset

IGNORE = 255
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
MASK_SUFFIXES = {".npy", ".png", ".bmp", ".tif", ".tiff"}

Size = tuple[int, int]
Palette = list[list[int]]
T = TypeVar("T")


@dataclass(frozen=True)
class Annotations:
    """Annotated images of one size.

    `images` uint8 `[N, 3, H, W]` RGB, `masks` uint8 `[N, H, W]` class ids with 255 = ignore,
    `stems` the N file names without suffix, `classes` the names in id order, `palette` one
    `[r, g, b]` (0-255) a class where `classes.json` gives it.
    """

    images: torch.Tensor
    masks: torch.Tensor
    stems: list[str]
    classes: list[str]
    palette: Palette | None = None

    @property
    def digest(self) -> str:
        """sha256 of class names, images and masks: the identity of the training data."""
        h = hashlib.sha256(json.dumps([self.classes, list(self.images.shape)]).encode())
        h.update(self.images.numpy().tobytes())
        h.update(self.masks.numpy().tobytes())
        return h.hexdigest()


class ImageFolder(Dataset[torch.Tensor]):
    """The images of a folder as uint8 `[3, H, W]`, read when asked for, resized to `size`."""

    def __init__(self, folder: str | Path, size: Size | None = None):
        self.paths = list_images(folder)
        self.size = size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return read_image(self.paths[index], self.size)


def list_images(folder: str | Path) -> list[Path]:
    """The image files directly in `folder`, sorted by name.

    Raises FileNotFoundError or NotADirectoryError for the folder, ValueError if it holds none.
    """
    paths = [p for p in _files(Path(folder)) if p.suffix.lower() in IMAGE_SUFFIXES]
    if not paths:
        raise ValueError(
            f"no images in {folder}: expected files ending in {' '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return paths


def read_image(path: str | Path, size: Size | None = None) -> torch.Tensor:
    """An image as uint8 `[3, H, W]` RGB, upright by its EXIF tag, resized to `size` (H, W).

    Resizing is antialiased bicubic, ignoring the aspect ratio. Raises ValueError naming the file
    if it cannot be read or has 16 bits a channel, FileNotFoundError if it does not exist.
    """
    return _image_tensor(_load_image(Path(path)), size)


def read_mask(
    path: str | Path, size: Size | None = None, palette: Palette | None = None
) -> torch.Tensor:
    """A mask as uint8 `[H, W]` class ids (255 = ignore), resized to `size` (H, W) by nearest.

    A colour image is mapped through `palette` (one `[r, g, b]` a class), exactly. Raises
    ValueError naming the file for colours without or outside the palette, ids outside 0-255, or
    an unreadable file; FileNotFoundError if it does not exist.
    """
    return _mask_tensor(_load_mask(Path(path), palette), size)


def read_annotations(
    folder: str | Path, size: Size | None = None, classes: Sequence[str] | None = None
) -> Annotations:
    """The annotated images of `folder`, resized once to `size` (H, W; None keeps them as is).

    Class names come from `classes.json` ({"classes": [...], "palette": optional}) in the folder
    or its parent, else from `classes`, else `class_0`... up to the largest id found. Every mistake
    in the folder, also names that are not `classes`, raises ValueError or an OSError with one line
    naming the file.
    """
    folder = Path(folder)
    pairs = _pairs(folder)
    names, palette = _read_classes(folder, classes)
    images, masks = [], []
    for image_path, mask_path in pairs:
        image, ids = _load_image(image_path), _load_mask(mask_path, palette)
        if image.size != ids.shape[::-1]:
            raise ValueError(
                f"{mask_path} is {_wxh(ids.shape)} pixels but its image {image_path.name} is "
                f"{_wxh(image.size[::-1])}: expected equal sizes"
            )
        found = ids[ids != IGNORE].max(initial=0)
        if names is not None and found >= len(names):
            raise ValueError(
                f"{mask_path} has class id {found}, but there are {len(names)} classes "
                f"(0 to {len(names) - 1}): add its name to classes.json or correct the mask"
            )
        images.append(_image_tensor(image, size))
        masks.append(_mask_tensor(ids, size))
        if images[-1].shape != images[0].shape:
            raise ValueError(
                f"{image_path} is {_wxh(ids.shape)} pixels, {pairs[0][0].name} is "
                f"{_wxh(masks[0].shape)}: give one size to resize them to"
            )
    stack = torch.stack(masks)
    if names is None:
        known = stack[stack != IGNORE]
        names = [f"class_{i}" for i in range(int(known.max()) + 1 if len(known) else 1)]
    return Annotations(torch.stack(images), stack, [p.stem for p, _ in pairs], names, palette)


def _files(folder: Path) -> list[Path]:
    """Files of `folder` by name, without hidden ones (such as macOS's `._*`)."""
    if not folder.exists():
        raise FileNotFoundError(f"folder {folder} does not exist")
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file, expected a folder of images")
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))


def _pairs(folder: Path) -> list[tuple[Path, Path]]:
    """(image, mask) of each stem, in either layout."""
    files = _files(folder)
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
    for stem, path in images.items():
        if stem not in masks:
            raise ValueError(f"{path} has no mask: expected {mask_dir / stem}.png or .npy")
    for stem, path in masks.items():
        if stem not in images:
            raise ValueError(f"mask {path} has no image named {stem}: add it or remove the mask")
    return [(images[stem], masks[stem]) for stem in sorted(images)]


def _mask_files(folder: Path) -> list[Path]:
    suffixes = IMAGE_SUFFIXES | MASK_SUFFIXES
    paths = [p for p in _files(folder) if p.suffix.lower() in suffixes]
    for path in paths:
        if path.suffix.lower() not in MASK_SUFFIXES:
            raise ValueError(
                f"mask {path} is in a format that may alter ids: save masks as .png or .npy"
            )
    return paths


def _split_side_by_side(files: list[Path]) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images and masks of one folder: of two files of one stem, the `.npy` or `.png` is the mask.

    A `.npy` is always a mask; a `.png` only beside an image in another format.
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
                "expected one image and one mask a name"
            )
        found[path.stem] = path
    return found


def _read_classes(
    folder: Path, expected: Sequence[str] | None
) -> tuple[list[str] | None, Palette | None]:
    """Names and palette of `classes.json` in the folder or its parent, (`expected`, None) without.

    Names other than `expected`, or in another order, would make other things of the masks' ids.
    """
    for path in (folder / "classes.json", folder.resolve().parent / "classes.json"):
        if not path.is_file():
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not valid JSON: {error}") from error
        names = content.get("classes") if isinstance(content, dict) else None
        if not (isinstance(names, list) and names and all(isinstance(n, str) for n in names)):
            raise ValueError(f'{path}: expected {{"classes": ["name", ...]}}, names in id order')
        if len(names) > IGNORE:
            raise ValueError(f"{path} has {len(names)} classes, expected at most {IGNORE}")
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"{path} has the class {twice!r} more than once: give distinct names")
        if expected is not None and names != list(expected):
            raise ValueError(
                f"{path} has the classes {names}, expected {list(expected)}: class ids must mean "
                "the same on both sides, so use images annotated with those classes in that order"
            )
        return names, _check_palette(path, content.get("palette"), len(names))
    return None if expected is None else list(expected), None


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


def _open(path: Path, decode: Callable[[Image.Image], T]) -> T:
    """`decode` the image file; what Pillow cannot read becomes a ValueError naming the file."""
    if not path.exists():
        raise FileNotFoundError(f"image {path} does not exist")
    try:
        with Image.open(path) as image:
            return decode(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "not an image" if "cannot identify" in str(error) else str(error)
        raise ValueError(f"cannot read {path}: {reason}") from error


def _load_image(path: Path) -> Image.Image:
    def decode(image: Image.Image) -> Image.Image:
        if image.mode.startswith(("I", "F")):
            raise ValueError("more than 8 bits a channel: convert it to 8-bit RGB or grey")
        return ImageOps.exif_transpose(image).convert("RGB")

    return _open(path, decode)


def _image_tensor(image: Image.Image, size: Size | None) -> torch.Tensor:
    if size is not None and image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BICUBIC)  # antialiased
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _load_mask(path: Path, palette: Palette | None) -> np.ndarray:
    """Class ids uint8 `[H, W]` at the size of the file."""
    if path.suffix.lower() == ".npy":
        ids = _load_npy(path)
    else:
        ids = _open(path, lambda image: _decode(image, palette))
    if ids.ndim != 2:
        raise ValueError(
            f"{path} is a colour image, expected class ids: save it as an index PNG, or give "
            'the colours as "palette": [[r, g, b], ...] in classes.json'
        )
    bad = ids[(ids < 0) | (ids > IGNORE)]
    if len(bad):
        raise ValueError(
            f"{path} has class id {bad[0]}, expected 0 to 254, or 255 for pixels to ignore"
        )
    return ids.astype(np.uint8)


def _mask_tensor(ids: np.ndarray, size: Size | None) -> torch.Tensor:
    if size is not None and ids.shape != size:
        ids = np.array(Image.fromarray(ids).resize(size[::-1], Image.Resampling.NEAREST))
    return torch.from_numpy(ids)


def _load_npy(path: Path) -> np.ndarray:
    try:
        ids = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise FileNotFoundError(f"mask {path} does not exist") from None
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"cannot read {path}: not a numpy array of class ids") from error
    whole = ids.dtype.kind in "biu" or (ids.dtype.kind == "f" and bool((ids == ids.round()).all()))
    if ids.ndim != 2 or not whole:
        raise ValueError(
            f"{path} is {ids.dtype} of shape {list(ids.shape)}, expected whole class ids [H, W]"
        )
    return ids


def _decode(image: Image.Image, palette: Palette | None) -> np.ndarray:
    """Ids of an index image, or of a colour image through `palette`, whichever it is."""
    if palette is None or image.mode not in ("RGB", "RGBA"):
        return np.array(image)
    rgb = np.array(image.convert("RGB")).astype(np.int64)
    codes = rgb @ (65536, 256, 1)
    ids = np.full(codes.shape, -1)
    for i, (r, g, b) in enumerate(palette):
        ids[codes == r * 65536 + g * 256 + b] = i
    if (ids < 0).any():
        raise ValueError(
            f"colour {rgb[ids < 0][0].tolist()} is not in the palette of classes.json "
            "(expected exact colours)"
        )
    return ids


def _wxh(shape: Sequence[int]) -> str:
    """Shape (H, W) as a photographer says it."""
    return f"{shape[1]}x{shape[0]}"
