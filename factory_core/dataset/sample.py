"""One sample: its key, encoding and decoding its members, the colours of its mask."""

from __future__ import annotations

import colorsys
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, TypeVar

import numpy as np
from PIL import Image

from factory_core.dataset.files import Member, canonical_json
from factory_core.dataset.probabilities import LEVEL_SUM, stacked, unstacked

IGNORE = 255  # in masks: no class
MAX_SAMPLES = 10**9  # keys have nine digits
UNCERTAINTY_LEVELS = 256  # of KEY.unc.png
MAKE_AGAIN = "rerun the command that made the dataset, which restores damaged shards"

ImageFormat = Literal["png", "jpg"]
T = TypeVar("T")


def sample_key(index: int) -> str:
    """Key of sample `index` (0 to 999 999 999): nine digits, so that sorting keys sorts indices."""
    assert 0 <= index < MAX_SAMPLES, index
    return f"{index:09d}"


def default_palette(n: int) -> list[list[int]]:
    """`n` distinguishable RGB colours (0-255); class 0 is black, as backgrounds usually are."""
    colours = [[0, 0, 0]]
    for i in range(1, n):
        # Golden-ratio steps keep neighbours in the list far apart on the colour wheel. Two levels
        # of saturation and brightness distinguish later turns of the wheel from earlier ones.
        hue = (i - 1) * 0.618033988749895 % 1.0
        rgb = colorsys.hsv_to_rgb(hue, (0.85, 0.5)[i // 16 % 2], (0.95, 0.7)[i // 8 % 2])
        colours.append([round(255 * c) for c in rgb])
    return colours[:n]


def overlay(
    image: np.ndarray, mask: np.ndarray, palette: Sequence[Sequence[int]], alpha: float = 0.45
) -> np.ndarray:
    """Mask colours over an image, and a thin contour in full colour around every region.

    `image` uint8 `[H, W, 3]`, `mask` uint8 `[H, W]` class ids, `palette` one RGB (0-255) per
    class, `alpha` in 0-1. Returns uint8 `[H, W, 3]`. Black classes (usually the background) and
    ignored pixels stay unchanged.
    """
    colours = np.zeros((256, 3), np.float32)
    colours[: len(palette)] = palette
    shown: np.ndarray = np.any(colours, axis=1)
    shown[IGNORE] = False
    weight = np.where(shown, alpha, 0.0)[mask]
    # On both sides of a border between classes; a class that is not shown has no contour.
    down, right = mask[1:] != mask[:-1], mask[:, 1:] != mask[:, :-1]
    edge: np.ndarray = np.zeros(mask.shape, bool)
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    weight = np.where(edge & shown[mask], 1.0, weight)[..., None]
    return np.rint(image * (1 - weight) + colours[mask] * weight).astype(np.uint8)


# --- members ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """One kept sample: image uint8 `[3, H, W]`, mask uint8 `[H, W]`, and its KEY.json.

    `uncertainty` is float32 `[H, W]` in nats, `probabilities` float32 `[K, H, W]` of the classes;
    each is None in a dataset without it.
    """

    key: str
    image: np.ndarray
    mask: np.ndarray
    meta: dict[str, Any]
    uncertainty: np.ndarray | None = None
    probabilities: np.ndarray | None = None


def encode_sample(
    key: str,
    image: np.ndarray,
    mask: np.ndarray,
    palette: Sequence[Sequence[int]],
    meta: Mapping[str, Any],
    image_format: ImageFormat = "png",
    levels: np.ndarray | None = None,
    probabilities: np.ndarray | None = None,
) -> list[Member]:
    """Members (name, bytes) of one sample, sorted by name.

    `image` is uint8 `[3, H, W]` RGB, `mask` uint8 `[H, W]` class ids (255 = ignore); `palette`
    (RGB, 0-255, one per class) only colours the mask for viewers. `meta` must be JSON-able.
    `levels` are the `uncertainty_levels` uint8 `[H, W]`, `probabilities` the `probability_levels`
    uint8 `[K, H, W]`; each is given for all samples of a dataset or for none.
    """
    assert image.dtype == mask.dtype == np.uint8, (image.dtype, mask.dtype)
    assert image.shape == (3, *mask.shape), (image.shape, mask.shape)
    members = [
        (f"{key}.{image_format}", encode_rgb(image.transpose(1, 2, 0), image_format)),
        (f"{key}.json", canonical_json(meta)),
        (f"{key}.seg.png", encode_mask(mask, palette)),
    ]
    if levels is not None:
        assert levels.dtype == np.uint8, levels.dtype
        assert levels.shape == mask.shape, (levels.shape, mask.shape)
        members.append((f"{key}.unc.png", _png(levels)))
    if probabilities is not None:
        assert probabilities.dtype == np.uint8, probabilities.dtype
        assert probabilities.shape == (len(palette), *mask.shape), probabilities.shape
        members.append((f"{key}.prob.png", _png(stacked(probabilities))))
    return sorted(members)


def encode_rgb(image: np.ndarray, image_format: ImageFormat = "png") -> bytes:
    """PNG or JPEG of an RGB image uint8 `[H, W, 3]`."""
    if image_format == "png":
        return _png(image)
    buffer = io.BytesIO()
    # Full chroma resolution: edges in the image must stay as sharp as in the mask.
    Image.fromarray(image).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def encode_mask(mask: np.ndarray, palette: Sequence[Sequence[int]]) -> bytes:
    """PNG of class ids uint8 `[H, W]`, one channel, with `palette` for viewers (255 is white)."""
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(palette)] = palette
    colours[255] = 255
    return _png(mask, colours)


def _png(pixels: np.ndarray, palette: np.ndarray | None = None) -> bytes:
    picture = Image.fromarray(pixels)
    if palette is not None:
        picture.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def decode_sample(key: str, members: Iterable[Member], classes: int) -> Sample:
    """The inverse of `encode_sample`; the scale of the uncertainty follows from `classes`.

    Raises ValueError naming the member if one is missing or damaged.
    """
    by_extension = {name.split(".", 1)[1]: data for name, data in members}

    def read(extension: str, decode: Callable[[io.BytesIO], T]) -> T:
        if extension not in by_extension:
            raise ValueError(f"sample {key} has no {key}.{extension}: {MAKE_AGAIN}")
        try:
            return decode(io.BytesIO(by_extension[extension]))
        except (OSError, SyntaxError, ValueError):  # Pillow raises all of them
            raise ValueError(f"{key}.{extension} is damaged: {MAKE_AGAIN}") from None

    def pixels(file: io.BytesIO) -> np.ndarray:
        return np.asarray(Image.open(file))

    def rgb(file: io.BytesIO) -> np.ndarray:
        return np.asarray(Image.open(file).convert("RGB")).transpose(2, 0, 1)

    image = read("png" if "png" in by_extension else "jpg", rgb)
    mask = read("seg.png", pixels)
    uncertainty = probabilities = None
    if "unc.png" in by_extension:
        nats = np.float32(_largest_nats(classes) / (UNCERTAINTY_LEVELS - 1))
        uncertainty = read("unc.png", pixels) * nats
    if "prob.png" in by_extension:
        levels = read("prob.png", lambda file: unstacked(pixels(file), len(mask)))
        probabilities = levels / np.float32(LEVEL_SUM)
    meta = read("json", json.load)
    return Sample(key, np.ascontiguousarray(image), mask, meta, uncertainty, probabilities)


# --- uncertainty maps ------------------------------------------------------------------------


def uncertainty_levels(uncertainty: np.ndarray, classes: int) -> np.ndarray:
    """Grey levels of KEY.unc.png: round(255·u / ln K) of u nats clipped to [0, ln K].

    `uncertainty` is float32 of any shape, K the number of classes; returns uint8.
    """
    share = np.clip(uncertainty / _largest_nats(classes), 0, 1)
    return np.rint(share * (UNCERTAINTY_LEVELS - 1)).astype(np.uint8)


def level_at_quantile(histogram: Sequence[int], quantile: float) -> int:
    """The smallest level such that at least the share `quantile` of all pixels lies at or below.

    `histogram` counts the pixels of each of the 256 levels.
    """
    # In decimal, as written: in binary, 0.07 of 100 pixels would round up to eight.
    wanted = math.ceil(Fraction(str(quantile)) * sum(histogram))
    return int(np.searchsorted(np.cumsum(histogram), wanted))


def _largest_nats(classes: int) -> float:
    """ln K, the entropy of K equally likely classes; a single class is never uncertain."""
    return math.log(max(classes, 2))
