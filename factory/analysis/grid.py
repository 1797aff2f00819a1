"""Block x timestep: one classifier on each feature map alone (Figures 2 and 3).

A generator without timesteps has one column: its feature maps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from pydantic import Field

from factory.analysis.base import MIOU, Cell, Numbers, Results, Settings, on_all_splits
from factory.analysis.study import Study
from generators.base import Diffusing
from generators.ddpm.model import map_name
from labelers.config import FastTraining, LabelerConfig
from train_seg.evaluation.evaluate import Spread

GROUP = "blocks"
TIMESTEPS = 10  # evenly spaced from 0

BySplit = dict[int, float]


class GridSettings(Settings):
    """Also: which blocks and timesteps. One small classifier per map, as in the paper."""

    choosing = frozenset({"blocks", "timesteps"})

    labeler: LabelerConfig = Field(
        default=LabelerConfig(members=1, training=FastTraining(steps=300)),
        description="how the classifier of each map is trained",
    )
    blocks: tuple[int, ...] | None = Field(
        default=None, min_length=1, description="decoder blocks, deep to shallow from 0; none: all"
    )
    timesteps: tuple[int, ...] | None = Field(
        default=None,
        min_length=1,
        description=f"none: {TIMESTEPS} of the schedule, evenly spaced from 0",
    )


@dataclass(frozen=True)
class Axes:
    """The rows of the grid, deep to shallow, and its columns; no timesteps: one column of maps."""

    blocks: tuple[int, ...]
    timesteps: tuple[int, ...]
    maps: tuple[str, ...] = ()

    @property
    def rows(self) -> list[str]:
        """The names of the rows."""
        return list(self.maps) if self.maps else [str(block) for block in self.blocks]

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return [f"t = {t}" for t in self.timesteps] if self.timesteps else [MIOU]

    def variant(self, row: int, column: int) -> str:
        """The map in a place of the grid: also the variant of its cells."""
        if self.maps:
            return self.maps[row]
        return map_name(self.timesteps[column], self.blocks[row])

    def variants(self, rows: Iterable[int], columns: Iterable[int]) -> list[str]:
        """The maps in several places."""
        chosen = list(columns)
        return [self.variant(row, column) for row in rows for column in chosen]

    @property
    def all_variants(self) -> list[str]:
        """All maps, timestep by timestep."""
        rows, columns = range(len(self.rows)), range(len(self.columns))
        return [self.variant(row, column) for column in columns for row in rows]


def axes(study: Study) -> Axes:
    """The grid that the settings ask for."""
    settings, generator = study.settings, study.generator
    assert isinstance(settings, GridSettings)
    if not isinstance(generator, Diffusing):
        return Axes((), (), tuple(study.default_maps))
    spacing = max(1, generator.timestep_count // TIMESTEPS)
    every = tuple(range(0, generator.timestep_count, spacing))[:TIMESTEPS]
    blocks = settings.blocks or tuple(range(generator.block_count))
    return Axes(tuple(sorted(set(blocks))), tuple(sorted(set(settings.timesteps or every))))


def check(study: Study) -> None:
    """Raise ValueError for blocks or timesteps that the generator does not have."""
    settings, generator = study.settings, study.generator
    assert isinstance(settings, GridSettings)
    if not isinstance(generator, Diffusing):
        if settings.blocks or settings.timesteps:
            raise ValueError(
                "found blocks or timesteps for a generator that has neither: leave them out, or "
                "choose its maps with generator.features.layers=[...]"
            )
        return
    limits = {"blocks": generator.block_count, "timesteps": generator.timestep_count}
    for key, count in limits.items():
        asked: Sequence[int] = getattr(settings, key) or ()
        if wrong := [value for value in asked if not 0 <= value < count]:
            raise ValueError(
                f"found {key} {wrong}, but this generator has {key} 0 to {count - 1}: set "
                f"{key}=[...]"
            )


def prepare(study: Study) -> None:
    """Compute the features of all maps: one pass for each timestep."""
    study.pool.compute(axes(study).all_variants, study.console)


def cells(study: Study) -> list[Cell]:
    """Every map on every split."""
    return on_all_splits(study, axes(study).all_variants)


def run(study: Study, cell: Cell) -> Numbers:
    """One classifier, on one map alone."""
    split = study.split(cell.split)
    return study.score(study.fit([cell.variant], split.train, split.seed), split.test)


def mean_over(results: Results, variants: Sequence[str], names: Sequence[str]) -> BySplit:
    """The mean of some numbers over some maps, on each split."""
    found = [results.by_split(variant, name) for variant in variants for name in names]
    splits = sorted({split for each in found for split in each})
    return {split: fmean(each[split] for each in found if split in each) for split in splits}


def thirds(count: int) -> tuple[range, range, range]:
    """First, middle and last third of `count` places, disjoint from three places on."""
    third = max(1, count // 3)
    return (
        range(third),
        range(third, max(third, count - third)),
        range(max(0, count - third), count),
    )


def best_place(results: Results, grid: Axes) -> tuple[str, Spread]:
    """The map with the highest mean, and its score."""
    spreads = {variant: results.spread(variant) for variant in grid.all_variants}
    known = {variant: spread for variant, spread in spreads.items() if spread.mean is not None}
    best = max(known, key=lambda variant: known[variant].mean or 0.0)
    return best, known[best]
