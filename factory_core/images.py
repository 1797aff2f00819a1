"""Finding and reading image and mask files.

A mask is an index image (PNG, BMP or TIFF, grey or palette) or a `.npy` array of class ids; 255
means ignore.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps

IGNORE = 255
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
MASK_SUFFIXES = {".npy", ".png", ".bmp", ".tif", ".tiff"}

Size = tuple[int, int]
Palette = list[list[int]]
T = TypeVar("T")


def list_files(folder: Path) -> list[Path]:
    """Files of `folder` by name, without hidden ones (such as macOS's `._*`).

    Raises FileNotFoundError or NotADirectoryError for the folder.
    """
    if not folder.exists():
        raise FileNotFoundError(f"folder {folder} does not exist")
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file, expected a folder of images")
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))


def list_images(folder: str | Path) -> list[Path]:
    """The image files directly in `folder`, sorted by name.

    Raises FileNotFoundError or NotADirectoryError for the folder, ValueError if it holds none.
    """
    paths = [p for p in list_files(Path(folder)) if p.suffix.lower() in IMAGE_SUFFIXES]
    if not paths:
        raise ValueError(
            f"no images in {folder}: expected files ending in {' '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return paths


def find_images(given: Sequence[str], flag: str = "--images") -> dict[str, Path]:
    """Image files by result name, from files, folders and patterns (`day*/*.jpg`).

    The result name is the file name without its suffix; from a pattern it keeps the folders below
    the pattern's fixed part. `flag` names the option in errors.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: a folder or pattern without images, or two images with the same name.
    """
    found: dict[str, Path] = {}
    for text in given:
        for name, path in _expand(text, flag):
            other = found.setdefault(name, path)
            if other.resolve() != path.resolve():
                raise ValueError(
                    f"{other} and {path} would both be written as {name}.png: rename one, or use "
                    "two --out"
                )
    return found


def _expand(text: str, flag: str) -> list[tuple[str, Path]]:
    """Name and path of every image that `text` stands for."""
    path = Path(text)
    if path.is_dir():
        return [(p.stem, p) for p in list_images(path)]
    if path.is_file():
        return [(path.stem, path)]
    if not glob.has_magic(text):
        raise FileNotFoundError(f"{flag} {text}: no such file or folder")
    parts = path.parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    base = Path(*parts[:fixed])
    paths = [Path(p) for p in sorted(glob.glob(text, recursive=True))]
    images = [p for p in paths if p.is_file() and p.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise ValueError(f"{flag} {text}: no image matches this pattern")
    return [(str(p.relative_to(base).with_suffix("")), p) for p in images]


def read_image(path: str | Path, size: Size | None = None) -> torch.Tensor:
    """An image as uint8 `[3, H, W]` RGB, upright by its EXIF tag, resized to `size` (H, W).

    Resizing is antialiased bicubic, ignoring the aspect ratio. Raises ValueError naming the file
    if it cannot be read or has more than 8 bits per channel, FileNotFoundError if it does not
    exist.
    """
    return image_tensor(load_image(Path(path)), size)


def read_mask(
    path: str | Path, size: Size | None = None, palette: Palette | None = None
) -> torch.Tensor:
    """A mask as uint8 `[H, W]` class ids (255 = ignore), resized to `size` (H, W), nearest.

    The colours of a colour image must be in `palette` (one `[r, g, b]` per class). Raises
    ValueError naming the file for a colour image without a palette, colours outside it, ids
    outside 0-255, or an unreadable file; FileNotFoundError if it does not exist.
    """
    return mask_tensor(load_ids(Path(path), palette), size)


def load_image(path: Path) -> Image.Image:
    """The image at its own size, RGB and upright; the errors of `read_image`."""

    def decode(image: Image.Image) -> Image.Image:
        if image.mode.startswith(("I", "F")):
            raise ValueError("more than 8 bits per channel: convert it to 8-bit RGB or grey")
        return ImageOps.exif_transpose(image).convert("RGB")

    return decode_file(path, decode)


def load_ids(path: Path, palette: Palette | None = None) -> np.ndarray:
    """Class ids uint8 `[H, W]` at the file's own size; the errors of `read_mask`."""
    if path.suffix.lower() == ".npy":
        ids = _load_npy(path)
    else:
        ids = decode_file(path, lambda image: _decode_ids(image, palette))
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


def image_tensor(image: Image.Image, size: Size | None, crop: bool = False) -> torch.Tensor:
    """uint8 `[3, H, W]`, resized to `size` (H, W) by antialiased bicubic.

    `crop` keeps the aspect ratio and crops the longer side equally at both ends.
    """
    resized = _resize(image, size, Image.Resampling.BICUBIC, crop)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()


def mask_tensor(ids: np.ndarray, size: Size | None, crop: bool = False) -> torch.Tensor:
    """uint8 `[H, W]`, resized by nearest neighbour and cropped as `image_tensor` does."""
    resized = _resize(Image.fromarray(ids), size, Image.Resampling.NEAREST, crop)
    return torch.from_numpy(np.array(resized))


def wxh(shape: Sequence[int]) -> str:
    """Shape (H, W) as `WxH`."""
    return f"{shape[1]}x{shape[0]}"


def decode_file(path: Path, decode: Callable[[Image.Image], T]) -> T:
    """`decode` the image file; raises ValueError naming the file if Pillow cannot read it."""
    if not path.exists():
        raise FileNotFoundError(f"image {path} does not exist")
    try:
        with Image.open(path) as image:
            return decode(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "not an image" if "cannot identify" in str(error) else str(error)
        raise ValueError(f"cannot read {path}: {reason}") from error


def _resize(
    image: Image.Image, size: Size | None, method: Image.Resampling, crop: bool
) -> Image.Image:
    if size is None or image.size == size[::-1]:
        return image
    return ImageOps.fit(image, size[::-1], method) if crop else image.resize(size[::-1], method)


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


def _decode_ids(image: Image.Image, palette: Palette | None) -> np.ndarray:
    """Ids of an index image, or of a colour image through `palette`."""
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
