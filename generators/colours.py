"""Whether a generator makes grey images: `colours.json` in its folder, written by its training.

A network trained on grey images (R = G = B) still gives each channel its own small error, which
tints whole samples. Their channels are therefore averaged.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from factory_core.models import read_model
from factory_core.storage import write_json

COLOURS_FILE = "colours.json"


class ColoursFile(BaseModel):
    """Content of `colours.json`; a folder without it makes colour images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    grey: bool = False


def save_colours(folder: Path, grey: bool) -> None:
    """Record in the folder of a generator whether its images are `grey`."""
    if grey:
        write_json(folder / COLOURS_FILE, {"grey": True})
    else:
        (folder / COLOURS_FILE).unlink(missing_ok=True)


def makes_grey(weights: str | Path) -> bool:
    """Whether the generator at `weights` makes grey images; ValueError if the file is damaged."""
    file = Path(weights) / COLOURS_FILE
    return file.is_file() and read_model(file, ColoursFile, "copy the folder again").grey


def to_grey(images: Tensor) -> Tensor:
    """Float images `[N, 3, H, W]` with each channel replaced by the mean of the three."""
    return images.mean(dim=1, keepdim=True).expand_as(images)


def grey_digest(digest: str) -> str:
    """The digest of a generator of grey images, from that of its weights."""
    return hashlib.sha256(f"grey {digest}".encode()).hexdigest()
