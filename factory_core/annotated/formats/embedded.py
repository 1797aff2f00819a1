"""Pictures inside annotation files."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TypeVar

from PIL import Image

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")

T = TypeVar("T")


def decode_bytes(data: bytes, name: str, decode: Callable[[Image.Image], T]) -> T:
    """`decode` a picture held in memory; raises ValueError with `name` if it cannot be read."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return decode(image)
    except Exception as error:  # on damaged pictures Pillow raises nearly everything
        text = " ".join(str(error).split()) or type(error).__name__
        if data[:256].lstrip()[:1] == b"<":
            text = "it is text, such as an SVG drawing"
        elif "cannot identify image file" in text:
            text = "it is no picture"
        raise ValueError(f"cannot read {name}: {text}") from None
