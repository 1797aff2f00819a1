"""Small pictures as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from factory_core.dataset import IGNORE

SIDE_PX = 144  # longest side; smaller images keep their size
QUALITY = 78  # of WebP
OPAQUE = 255


def picture_uri(image: np.ndarray) -> str:
    """An image uint8 `[3, H, W]` as WebP."""
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    picture.thumbnail((SIDE_PX, SIDE_PX))
    return _uri(picture, "WEBP", quality=QUALITY, method=4)


def mask_uri(mask: np.ndarray, palette: Sequence[Sequence[int]]) -> str:
    """Class ids uint8 `[H, W]` as PNG: black classes and ignored pixels are transparent."""
    picture = Image.fromarray(mask)
    picture.thumbnail((SIDE_PX, SIDE_PX), Image.Resampling.NEAREST)
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(palette)] = palette
    shown = np.where(colours.any(axis=1), OPAQUE, 0).astype(np.uint8)
    shown[IGNORE] = 0
    picture.putpalette(colours.tobytes())
    return _uri(picture, "PNG", transparency=shown.tobytes(), optimize=True)


def _uri(picture: Image.Image, file_format: str, **settings: object) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **settings)
    text = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{file_format.lower()};base64,{text}"
