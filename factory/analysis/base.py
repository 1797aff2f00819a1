"""What an analysis is.

To write one: a module `factory/analysis/NAME.py` with an `ANALYSIS`, a line in `names.HELP`, and a
test on tiny images. For an example, see `labels`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from labelers.config import FastTraining, LabelerConfig
from train_seg.evaluation.evaluate import Spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from factory.analysis.study import Study

Need = Literal["images", "timesteps"]
Numbers = dict[str, float | None]
Value = str | int | float | Spread | None

MIOU = "miou"


class Settings(BaseModel):
    """The settings of all analyses; an analysis with more has a subclass of its own.

    Cells with other settings are not mixed in one folder, except for those that `choosing` names:
    they choose which cells are run, not what a cell is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    choosing: ClassVar[frozenset[str]] = frozenset()

    test_images: int | None = Field(
        default=None, ge=1, description="annotated images to score per split; none: a third"
    )
    labeler: LabelerConfig = Field(
        default=LabelerConfig(training=FastTraining()), description="how classifiers are trained"
    )

    @model_validator(mode="after")
    def _classifies_pixels(self) -> Settings:
        if self.labeler.kind != "ensemble":
            raise ValueError(f"labeler.kind is {self.labeler.kind}, expected ensemble")
        return self


@dataclass(frozen=True)
class Cell:
    """The unit of work and of resuming: one variant on one split, identified by both.

    `variant` is also a file name: letters, digits, `.`, `_`, `-`.
    """

    variant: str
    split: int


class Results(Mapping[Cell, Numbers]):
    """The numbers of all cells."""

    def __init__(self, numbers: Mapping[Cell, Numbers]):
        self._numbers = dict(numbers)

    def __getitem__(self, cell: Cell) -> Numbers:
        return self._numbers[cell]

    def __iter__(self):
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def by_split(self, variant: str, name: str = MIOU) -> dict[int, float]:
        """A number of a variant on each split, where it is known."""
        return {
            cell.split: value
            for cell, numbers in self.items()
            if cell.variant == variant and (value := numbers.get(name)) is not None
        }

    def spread(self, variant: str, name: str = MIOU) -> Spread:
        """Mean and standard deviation over the splits."""
        return Spread.of(list(self.by_split(variant, name).values()))


@dataclass(frozen=True)
class Table:
    """Columns, and rows of values; the first column names the row.

    A `Spread` is a score, 0-1, and is printed in points: 49.4 ± 1.9.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]


@dataclass(frozen=True)
class Findings:
    """What follows from the results.

    `sentence` says whether the paper's finding holds (see `judging`), `rule` how that was decided.
    `figures` are drawn if matplotlib is installed: file name without suffix, and what draws it.
    """

    table: Table
    sentence: str
    rule: str
    figures: Mapping[str, Callable[[], Figure]]
    notes: Sequence[str] = ()


def prepare_default(study: Study) -> None:
    """Compute the features that the generator's settings name."""
    study.pool.compute(study.default_maps, study.console)


@dataclass(frozen=True, kw_only=True)
class Work:
    """Cells that can be run.

    `cells` lists all cells in the order in which they run; `run` gives the numbers of one. `check`
    raises ValueError for settings that the data do not permit, before any work. `prepare` does the
    work that cells share, and does nothing if it is done: computing features. A dry run calls
    `prepare` and `run` on a few images, so both take images, masks and splits from the study alone.
    Works of one `group` share cells, and have the same `settings`. Cells depend on the blocks and
    timesteps of the generator's settings unless `uses_default_maps` is false.
    """

    name: str
    cells: Callable[[Study], Sequence[Cell]]
    run: Callable[[Study, Cell], Numbers]
    settings: type[Settings] = Settings
    needs: frozenset[Need] = frozenset()
    check: Callable[[Study], None] = lambda study: None
    prepare: Callable[[Study], None] = prepare_default
    shares_cells_of: str | None = None
    uses_default_maps: bool = True

    @property
    def group(self) -> str:
        """The name under which cells are kept."""
        return self.shares_cells_of or self.name


@dataclass(frozen=True, kw_only=True)
class Analysis(Work):
    """One table or figure of the paper, on any data; `summarise` says what follows from it."""

    title: str
    summarise: Callable[[Study, Results], Findings]


def on_all_splits(study: Study, variants: Iterable[str]) -> list[Cell]:
    """Every variant on every split, split by split."""
    names = list(variants)
    return [Cell(name, split.number) for split in study.splits for name in names]
