"""The results of analyses on disk: one file per finished cell, so that nothing is repeated.

OUT/analyse.json                generator and annotations, which all analyses in OUT must share
    splits.json                 the images of every split
    features/                   what analyses share; may be deleted when all are done
    cells/GROUP/settings.json   settings, which all cells of the group must share
                VARIANT-0.json  one cell, on split 0
    NAME.md, NAME.json, NAME.csv, NAME.png
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from factory.analysis.base import Cell, Numbers, Results, Work
from factory.analysis.study import Study
from factory.recipe.claiming import claim
from factory_core.models import read_model
from factory_core.storage import sweep_temporaries, write_json

CELLS_DIR = "cells"
CHOOSE_MAPS = ("blocks", "timesteps", "layers")  # settings that choose maps, and do not change them
HINT = "delete the file and rerun the command"


class CellFile(BaseModel):
    """A finished cell. `seconds` is the time that it took."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: str
    split: int
    numbers: Numbers
    seconds: float


class CellFolder:
    """The finished cells of one group in the folder of a study."""

    def __init__(self, out: Path, work: Work, study: Study):
        """Claims `out` for the inputs; raises ValueError, naming what differs, for other ones."""
        claim(out, "analyse.json", _inputs(study), "an analysis")
        write_json(out / "splits.json", _splits(study))
        self.folder = out / CELLS_DIR / work.group
        settings = study.settings
        content = settings.model_dump(mode="json", exclude=set(settings.choosing))
        if work.uses_default_maps:
            content["maps"] = study.default_maps
        claim(self.folder, "settings.json", content, "an analysis")
        for place in (out, self.folder):
            sweep_temporaries(place)

    def find(self, cell: Cell) -> Numbers | None:
        """The numbers of a cell, None if it is not finished."""
        path = self._file(cell)
        return read_model(path, CellFile, HINT).numbers if path.is_file() else None

    def add(self, cell: Cell, numbers: Numbers, seconds: float) -> None:
        """Write a finished cell; complete on disk when this returns."""
        about = CellFile(variant=cell.variant, split=cell.split, numbers=numbers, seconds=seconds)
        write_json(self._file(cell), about.model_dump(mode="json"))

    def results(self, cells: Sequence[Cell]) -> Results:
        """The numbers of those cells that are finished."""
        found = {cell: self.find(cell) for cell in cells}
        return Results({cell: numbers for cell, numbers in found.items() if numbers is not None})

    def _file(self, cell: Cell) -> Path:
        return self.folder / f"{cell.variant}-{cell.split}.json"


def _inputs(study: Study) -> dict[str, Any]:
    """What all cells in a folder depend on."""
    config = {**study.info.config, "weights": study.info.digest}
    features = {k: v for k, v in config.get("features", {}).items() if k not in CHOOSE_MAPS}
    return {
        "annotations": study.annotations.digest,
        "test_images": len(study.splits[0].test),
        "generator": {**config, "features": features},
    }


def _splits(study: Study) -> list[dict[str, Any]]:
    stems = study.annotations.stems
    return [
        {
            "seed": split.seed,
            "train": [stems[i] for i in split.train],
            "test": [stems[i] for i in split.test],
        }
        for split in study.splits
    ]
