"""The parts of a labeler's folder that a recipe uses.

`labelers.labeler.LabelerInfo` describes all of labeler.json, but needs torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from factory.recipe.schema import Palette
from factory_core.models import read_model

LABELER_NAME = "labeler.json"
MAX_CLASSES = 255  # masks are uint8, and 255 means "ignore"


class _Generator(BaseModel):
    config: dict[str, Any] = {}


class LabelerNotes(BaseModel):
    """The parts of labeler.json that a recipe uses: classes, palette, and how both were set up."""

    classes: list[str] = Field(min_length=1, max_length=MAX_CLASSES)
    palette: Palette | None = None
    generator: _Generator = _Generator()
    config: dict[str, Any] = {}


def read_labeler_notes(folder: Path) -> LabelerNotes:
    """Read `folder`/labeler.json.

    Raises FileNotFoundError if there is none, ValueError if it is damaged.
    """
    file = folder / LABELER_NAME
    if not file.is_file():
        raise FileNotFoundError(
            f"{folder} holds no {LABELER_NAME}: expected a folder written by"
            " `factory train-labeler`"
        )
    return read_model(file, LabelerNotes, "copy it again, or retrain the labeler")
