"""The results of a comparison on disk: one file per finished cell, so that nothing is repeated.

OUT/compare.json         settings and digests, which a resumed comparison must share
    cells/NAME-0003.json one contender on one split; NAME-0003-6.json on 6 of its images
    parts/               labelers, labels and segmenters that cells share, until all are done
    verdict.json, verdict.md, verdict.png
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import BaseModel, ConfigDict

from factory.recipe.claiming import claim
from factory_core.models import read_model
from factory_core.storage import sweep_temporaries, write_json

IDENTITY_NAME, PROGRESS_NAME = "compare.json", "progress.json"
CELLS_DIR, PARTS_DIR = "cells", "parts"
HINT = "delete the file and rerun the command"


class Cell(BaseModel):
    """The score of one contender, trained on `images` images of one split.

    Scores are 0-1; `iou` is None for a class that is in neither truth nor prediction. `also_miou`
    is that on the second labelled set. `seconds` is the time the cell took, without what earlier
    cells had made; `parts_sec` that of all that it needed, by part, whoever made it; `scoring_sec`
    that of its predictions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    contender: str
    split: int
    images: int
    miou: float
    iou: dict[str, float | None]
    also_miou: float | None = None
    seconds: float
    parts_sec: dict[str, float]
    scoring_sec: float

    @property
    def cost_sec(self) -> float:
        """What training costs, with everything it needs."""
        return sum(self.parts_sec.values())


class Progress(BaseModel):
    """Decisions that a resumed comparison repeats, because times differ from run to run.

    `cuts` lists what was dropped, by number of splits done (a second heat counts on after all those
    of the first), and `cut_sec` the budget at that time; `raced_sec` is that of the last race that
    ended. `unmeasured` was never reached. `next_images` are those to annotate next, once they are
    known, and `delivered` is the contender of each folder that was delivered to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cuts: dict[int, tuple[str, ...]] = {}
    cut_sec: dict[int, float] = {}
    raced_sec: float = 0.0
    unmeasured: tuple[str, ...] = ()
    shared_sec: float = 0.0
    next_images: tuple[str, ...] | None = None
    delivered: dict[str, str] = {}


class Results:
    """The cells of the comparison in `folder`, in memory and on disk."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.cells: dict[tuple[str, int, int], Cell] = {}
        self.reload()
        path = folder / PROGRESS_NAME
        self.progress = read_model(path, Progress, HINT) if path.is_file() else Progress()

    def reload(self) -> None:
        """Read the cells that this or another process has finished."""
        for path in sorted((self.folder / CELLS_DIR).glob("*.json")):
            cell = read_model(path, Cell, HINT)
            self.cells[cell.contender, cell.split, cell.images] = cell

    @classmethod
    def begin(cls, folder: Path, identity: Mapping[str, Any]) -> Results:
        """Claim `folder` for a comparison with this `identity`, or resume it there.

        Raises ValueError if it holds a comparison with another one, naming what differs, or other
        files.
        """
        claim(folder, IDENTITY_NAME, identity, "a comparison")
        (folder / CELLS_DIR).mkdir(parents=True, exist_ok=True)
        for place in (folder, folder / CELLS_DIR):
            sweep_temporaries(place)
        return cls(folder)

    def find(self, contender: str, split: int, images: int) -> Cell | None:
        """A finished cell."""
        return self.cells.get((contender, split, images))

    def add(self, cell: Cell) -> None:
        """Write a finished cell; complete on disk when this returns."""
        self.cells[cell.contender, cell.split, cell.images] = cell
        name = f"{cell.contender}-{cell.split:04d}-{cell.images}.json"
        write_json(self.folder / CELLS_DIR / name, cell.model_dump(mode="json"))

    def note(self, **changes: Any) -> None:
        """Change the progress, on disk too."""
        self.progress = self.progress.model_copy(update=changes)
        write_json(self.folder / PROGRESS_NAME, self.progress.model_dump(mode="json"))

    @property
    def seconds(self) -> float:
        """Time of shared work and of all finished cells, in this run and in earlier ones."""
        return self.progress.shared_sec + sum(cell.seconds for cell in self.cells.values())

    def of(self, contender: str, sizes: Mapping[int, int]) -> dict[int, Cell]:
        """The cells of a contender by split; `sizes` gives the training images of each split."""
        return {
            split: cell
            for split, images in sizes.items()
            if (cell := self.find(contender, split, images)) is not None
        }


def scores(cells: Mapping[int, Cell]) -> dict[int, float]:
    """mIoU by split."""
    return {split: cell.miou for split, cell in cells.items()}


def needed(contender: str, cells: Iterable[Cell]) -> set[str]:
    """The parts that are made for a contender, those of its cells."""
    return {part for cell in cells for part in cell.parts_sec} - {contender}


def expected_sec(cells: Iterable[Cell], made: Collection[str] = ()) -> float:
    """Seconds that one more split takes for the contenders of `cells` together.

    What several of them need counts once, and what is in `made` is there already.
    """
    found: dict[str, list[float]] = {}
    for cell in cells:
        for part, seconds in cell.parts_sec.items():
            found.setdefault(part, []).append(seconds)
        found.setdefault(f"scoring {cell.contender}", []).append(cell.scoring_sec)
    return sum(fmean(seconds) for part, seconds in found.items() if part not in made)
