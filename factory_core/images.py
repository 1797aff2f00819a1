"""Reading image and mask files.

A mask is an index image (PNG, BMP or TIFF, grey or palette) or a `.npy` array of class ids; 255
means ignore.
"""

from __future__ import annotations

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


def read_image(path: str | Path, size: Size | None = None) -> torch.Tensor:
    """An image as uint8 `[3, H, W]` RGB, upright by its EXIF tag, resized to `size` (H, W).

    Resizing is antialiased bicubic, ignoring the aspect ratio. Raises ValueError naming the file
    if it cannot be read or has 16 bits a channel, FileNotFoundError if it does not exist.
    """
    return image_tensor(load_image(Path(path)), size)


def read_mask(
    path: str | Path, size: Size | None = None, palette: Palette | None = None
) -> torch.Tensor:
    """A mask as uint8 `[H, W]` class ids (255 = ignore), resized to `size` (H, W) by nearest.

    A colour image is mapped through `palette` (one `[r, g, b]` a class), exactly. Raises
    ValueError naming the file for colours without or outside the palette, ids outside 0-255, or
    an unreadable file; FileNotFoundError if it does not exist.
    """
    return mask_tensor(load_ids(Path(path), palette), size)


def load_image(path: Path) -> Image.Image:
    """The image at its own size, RGB and upright; the errors of `read_image`."""

    def decode(image: Image.Image) -> Image.Image:
        if image.mode.startswith(("I", "F")):
            raise ValueError("more than 8 bits a channel: convert it to 8-bit RGB or grey")
        return ImageOps.exif_transpose(image).convert("RGB")

    return decode_file(path, decode)


def load_ids(path: Path, palette: Palette | None = None) -> np.ndarray:
    """Class ids uint8 `[H, W]` at the size of the file; the errors of `read_mask`."""
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

    `crop` keeps the aspect ratio and cuts off what is too long, equally on both sides.
    """
    resized = _resize(image, size, Image.Resampling.BICUBIC, crop)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()


def mask_tensor(ids: np.ndarray, size: Size | None, crop: bool = False) -> torch.Tensor:
    """uint8 `[H, W]`, resized to `size` by nearest as `image_tensor` resizes the image."""
    resized = _resize(Image.fromarray(ids), size, Image.Resampling.NEAREST, crop)
    return torch.from_numpy(np.array(resized))


def wxh(shape: Sequence[int]) -> str:
    """Shape (H, W) as a photographer says it."""
    return f"{shape[1]}x{shape[0]}"


def decode_file(path: Path, decode: Callable[[Image.Image], T]) -> T:
    """`decode` the image file; what Pillow cannot read becomes a ValueError naming the file."""
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
