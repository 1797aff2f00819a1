"""Reading masks: class ids, or colours that a palette maps to ids.

A mask is a PNG, BMP or TIFF of ids (grey or palette), a `.npy` array of ids, or, with the `palette`
of classes.json, a picture in its colours. With a palette, colours decide wherever a file has
colours: programs that draw or shrink pictures reorder the indices of a palette file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from factory_core.images.channels import has_wide_channels
from factory_core.images.decoding import eight_bits
from factory_core.images.opening import decode_file, is_white_zero, raw_mode
from factory_core.images.resizing import Size, mask_tensor

if TYPE_CHECKING:
    import torch

IGNORE = 255
MASK_FORMATS = ("PNG", "BMP", "DIB", "TIFF")
# In Pillow's words; 8-bit values do not survive them.
LOSSY_TIFF = {"jpeg", "tiff_jpeg", "webp"}
GREY_DEPTHS = {"L;2": 2, "L;4": 4}  # bits of grey files that Pillow scales to 0-255
SAVE_AS = "save it as an index PNG or .npy"

Colour = tuple[int, int, int]
Palette = list[list[int]]


@dataclass(frozen=True)
class Mask:
    """A mask as it was read.

    `ids` uint8 `[H, W]`, 255 = ignore. `stored`: they are the numbers in the file, which only the
    whole folder shows to be ids or, in a black-and-white drawing, grey levels; otherwise colours
    gave them. `colours`: those that only one index of a palette file has, by the indices used.
    """

    ids: np.ndarray
    stored: bool = True
    colours: Mapping[int, Colour] = field(default_factory=dict)


def read_mask(
    path: str | Path, size: Size | None = None, palette: Palette | None = None
) -> torch.Tensor:
    """A mask as uint8 `[H, W]` class ids (255 = ignore), resized to `size` (H, W), nearest.

    Raises as `load_mask`.
    """
    return mask_tensor(load_mask(Path(path), palette).ids, size)


def load_mask(path: Path, palette: Palette | None = None) -> Mask:
    """A mask at its own size, upright; `palette` has one `[r, g, b]` per class.

    NaN counts as ignore. Raises ValueError naming the file for anything ambiguous: a lossy format,
    colours without a palette or outside it, transparent pixels, fractions, ids outside 0-255, or
    an unreadable file; FileNotFoundError if it does not exist.
    """
    if path.suffix.lower() == ".npy":
        values = _load_npy(path)
        try:
            return Mask(_whole_ids(values))
        except ValueError as error:
            raise ValueError(f"cannot read {path}: {error}") from None
    return decode_file(path, partial(decode_mask, palette=palette))


def decode_mask(image: Image.Image, palette: Palette | None = None) -> Mask:
    """The mask in an opened image file; raises ValueError as `load_mask`, without the name."""
    compression = str(image.info.get("compression", ""))
    if image.format not in MASK_FORMATS or compression in LOSSY_TIFF:
        kind = compression if image.format == "TIFF" else image.format
        raise ValueError(f"it holds {kind} data, a format that may alter ids: {SAVE_AS}")
    depth = 1 if image.mode == "1" else GREY_DEPTHS.get(raw_mode(image)[:3])
    if image.mode in ("RGB", "RGBA", "RGBX", "LA"):
        image = eight_bits(image)
    inverted = is_white_zero(image)
    image = ImageOps.exif_transpose(image)
    if image.mode in ("1", "L"):
        levels = np.asarray(image.convert("L"))
        if inverted and depth is None and not set(np.unique(levels).tolist()) <= {0, IGNORE}:
            raise ValueError(
                f"0 is white in this TIFF, so its numbers may be class ids or shades: {SAVE_AS}"
            )
        return _grey(levels, depth, palette)
    if image.mode == "P":
        return _indexed(image, palette)
    if image.mode == "LA":
        _check_alpha(np.asarray(image))
        return Mask(np.array(image.getchannel("L")))
    if image.mode in ("RGB", "RGBA", "RGBX"):
        return _coloured(np.asarray(image), image.mode == "RGBA", palette)
    if has_wide_channels(image):
        return Mask(_whole_ids(np.asarray(image)))
    raise ValueError(f"it is in {image.mode} colours, expected class ids: {SAVE_AS}")


def _grey(levels: np.ndarray, depth: int | None, palette: Palette | None) -> Mask:
    """Ids of a grey file; one of less than 8 bits is read as its numbers, or as the grey seen."""
    if depth is None:
        return Mask(levels.copy())
    greys = {r: i for i, (r, g, b) in enumerate(palette or []) if r == g == b}
    seen = np.unique(levels).tolist()
    if palette and set(seen) <= greys.keys():
        ids = np.zeros(256, np.uint8)
        ids[seen] = [greys[level] for level in seen]
        return Mask(ids[levels], stored=False)
    return Mask(levels // np.uint8(255 // (2**depth - 1)))


def _indexed(image: Image.Image, palette: Palette | None) -> Mask:
    """Ids of a palette file: through the colours of its indices if `palette` gives colours."""
    indices = np.array(image)
    flat = image.getpalette("RGB") or []
    colours: dict[int, Colour] = {
        i: (flat[3 * i], flat[3 * i + 1], flat[3 * i + 2]) for i in range(len(flat) // 3)
    }
    used = np.unique(indices).tolist()
    times = Counter(colours.values())
    if palette is None:
        chosen = {i: colours[i] for i in used if i in colours and times[colours[i]] == 1}
        return Mask(indices, colours=chosen)
    id_of = _ids_by_colour(palette)
    ids = np.zeros(256, np.uint8)
    for i in used:
        colour = colours.get(i)
        found = None if colour is None else id_of.get(colour)
        if i == IGNORE and (found is None or times[colours[i]] > 1):  # a filler, not a choice
            found = IGNORE
        if found is None:
            raise ValueError(
                f"index {i} has the colour {list(colour or ())}, which is not in the palette of "
                'classes.json: correct the palette, or remove "palette" there to read the indices '
                "as class ids"
            )
        ids[i] = found
    return Mask(ids[indices], stored=False)


def _coloured(pixels: np.ndarray, alpha: bool, palette: Palette | None) -> Mask:
    """Ids of a colour image uint8 `[H, W, C]` through `palette`, or of a grey one saved as RGB."""
    if alpha:
        _check_alpha(pixels)
    rgb = pixels[..., :3]
    if palette is None:
        if (rgb == rgb[..., :1]).all():
            return Mask(rgb[..., 0].copy())
        raise ValueError(
            "it is a colour image, expected class ids: save it as an index PNG, or give the "
            'colours as "palette": [[r, g, b], ...] in classes.json'
        )
    codes = rgb.astype(np.int64) @ (65536, 256, 1)
    ids = np.full(codes.shape, -1)
    for (r, g, b), i in _ids_by_colour(palette).items():
        ids[codes == r * 65536 + g * 256 + b] = i
    unknown = ids < 0
    if unknown.any():
        raise ValueError(
            f"colour {rgb[unknown][0].tolist()} is not in the palette of classes.json "
            f"({100 * unknown.mean():.2g} % of the pixels have such colours; expected exact "
            "colours, without smoothing or lossy compression)"
        )
    return Mask(ids.astype(np.uint8), stored=False)


def _ids_by_colour(palette: Palette) -> dict[Colour, int]:
    id_of: dict[Colour, int] = {}
    for i, (r, g, b) in enumerate(palette):
        if (r, g, b) in id_of:
            raise ValueError(
                f"the palette of classes.json gives classes {id_of[r, g, b]} and {i} the same "
                f"colour {[r, g, b]}: expected one colour per class"
            )
        id_of[r, g, b] = i
    return id_of


def _check_alpha(pixels: np.ndarray) -> None:
    """Raise ValueError for transparent pixels that hide a value; 0 below 0 is an empty canvas."""
    clear = pixels[..., -1] < 255
    hidden = clear & (pixels.any(-1))
    if hidden.any():
        raise ValueError(
            f"it has an alpha channel, and {100 * hidden.mean():.2g} % of the pixels are "
            "transparent over a value: flatten the mask onto the colour or id meant there"
        )


def _load_npy(path: Path) -> np.ndarray:
    """The array `[H, W]` in a file; raises ValueError naming it, or FileNotFoundError."""
    try:
        values = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise FileNotFoundError(f"mask {path} does not exist") from None
    except Exception as error:  # on damaged headers numpy raises nearly everything
        raise ValueError(f"cannot read {path}: not a numpy array of class ids") from error
    if not isinstance(values, np.ndarray):
        raise ValueError(f"cannot read {path}: not a numpy array of class ids")
    if values.ndim != 2 or values.dtype.kind not in "biuf":
        raise ValueError(
            f"{path} is {values.dtype} of shape {list(values.shape)}, expected whole class ids "
            "[H, W]"
        )
    return values


def _whole_ids(values: np.ndarray) -> np.ndarray:
    """Numbers `[H, W]` as uint8 class ids, NaN as ignore; raises ValueError for any other."""
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), IGNORE, values)
        parts = values[values != np.floor(values)]
        if parts.size:
            raise ValueError(
                f"it has the value {parts[0]:g}, expected whole class ids (it was smoothed or "
                f"resized, or holds probabilities): {SAVE_AS}"
            )
    bad = values[(values < 0) | (values > IGNORE)]
    if bad.size:
        raise ValueError(
            f"it has class id {bad[0]:g}, expected 0 to 254, or 255 for pixels to ignore"
        )
    return values.astype(np.uint8)
