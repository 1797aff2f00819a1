"""Which blocks and timesteps for this data: by cross-validation on the annotated images.

The grid of Figure 2 ranks single maps. The search starts from the best one, and adds the block or
the timestep that gains most, as long as the mean gain over the splits exceeds its standard error. A
setting is all its blocks at all its timesteps, as in a recipe; a GAN's is a list of layers.

The search looks at many settings on the same splits, which flatters its result. So result and
default are compared on other random splits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field
from rich.console import Console

from factory.analysis import grid
from factory.analysis.base import Cell, Numbers, Results, Work
from factory.analysis.judging import Gain, difference, is_above, points
from factory.analysis.results import CellFolder
from factory.analysis.running import run_cells, start
from factory.analysis.study import Given, Study
from factory.locking.lock import exclusive
from factory.verdict.folds import random_splits
from factory_core.storage import naming_full_disk, write_bytes
from generators.base import Diffusing
from generators.ddpm.model import map_name, map_place
from labelers.config import FastTraining, LabelerConfig
from train_seg.evaluation.evaluate import Spread

RECIPE_NAME = "recipe.yaml"
SEARCH, FINAL = "choose-features", "choose-features-final"


class ChoiceSettings(grid.GridSettings):
    """Also: how far the search goes."""

    choosing = frozenset({*grid.GridSettings.choosing, "candidates", "most"})

    candidates: int = Field(
        default=3, ge=1, description="best blocks, and best timesteps, to try to add in each step"
    )
    most: int = Field(default=8, ge=1, description="blocks, timesteps or layers, at most")
    final: LabelerConfig = Field(
        default=LabelerConfig(training=FastTraining()),
        description="the labeler with which result and default are compared",
    )


@dataclass(frozen=True, order=True)
class Setting:
    """All `blocks` at all `timesteps`, both ascending; or, without timesteps, `layers`."""

    blocks: tuple[int, ...] = ()
    timesteps: tuple[int, ...] = ()
    layers: tuple[str, ...] = ()

    @classmethod
    def of(cls, maps: Sequence[str]) -> Setting:
        """The setting with these maps."""
        places = [map_place(name) for name in maps]
        known = [place for place in places if place is not None]
        if not known:
            return cls(layers=tuple(maps))
        blocks, timesteps = {block for _, block in known}, {t for t, _ in known}
        return cls(tuple(sorted(blocks)), tuple(sorted(timesteps)))

    @property
    def maps(self) -> list[str]:
        """The names of its maps, as in a recipe."""
        return [
            *self.layers,
            *(map_name(t, block) for t in self.timesteps for block in self.blocks),
        ]

    @property
    def variant(self) -> str:
        """Its name as that of a cell."""
        if self.layers:
            return "_".join(self.layers)
        return f"b{'_'.join(map(str, self.blocks))}-t{'_'.join(map(str, self.timesteps))}"

    @property
    def features(self) -> dict[str, Any]:
        """The section `generator.features` of a recipe."""
        if self.layers:
            return {"layers": list(self.layers)}
        return {"blocks": list(self.blocks), "timesteps": list(self.timesteps)}

    def __str__(self) -> str:
        return ", ".join(f"{key} {value}" for key, value in self.features.items())

    def with_one_more(self, maps: Sequence[str], candidates: int) -> list[Setting]:
        """With another block, timestep or layer: of each, the first few in the order of `maps`."""
        if self.layers:
            added = [name for name in maps if name not in self.layers][:candidates]
            return [Setting(layers=(*self.layers, name)) for name in added]
        places = [place for name in maps if (place := map_place(name)) is not None]
        blocks = dict.fromkeys(b for _, b in places if b not in self.blocks)
        timesteps = dict.fromkeys(t for t, _ in places if t not in self.timesteps)
        return [
            *(
                replace(self, blocks=tuple(sorted({*self.blocks, b})))
                for b in list(blocks)[:candidates]
            ),
            *(
                replace(self, timesteps=tuple(sorted({*self.timesteps, t})))
                for t in list(timesteps)[:candidates]
            ),
        ]

    @property
    def length(self) -> int:
        """Its blocks, timesteps and layers."""
        return len(self.blocks) + len(self.timesteps) + len(self.layers)


@dataclass(frozen=True)
class Choice:
    """The chosen setting and the default, and their mIoU on splits that the search did not see."""

    chosen: Setting
    default: Setting
    chosen_score: Spread
    default_score: Spread
    gain: Gain

    @property
    def is_better(self) -> bool:
        """Whether the gain exceeds its standard deviation."""
        return self.chosen != self.default and is_above(self.gain) == "holds"

    @property
    def recommended(self) -> Setting:
        """The chosen setting if it is better, else the default."""
        return self.chosen if self.is_better else self.default

    @property
    def sentence(self) -> str:
        """What to do, in one line."""
        if self.chosen == self.default:
            return f"The search found the default: {self.default}."
        scores = f"mIoU {points(self.chosen_score)}, the default {points(self.default_score)}"
        if self.is_better:
            return f"Take {self.chosen}: {scores} ({self.default}), a gain of {points(self.gain)}."
        why = "no more than its standard deviation"
        if self.gain.std is None:
            why = "which one split cannot confirm"
        return (
            f"The default is as good: keep {self.default}. The best found, {self.chosen}, has "
            f"{scores}: a gain of {points(self.gain)}, {why}."
        )


def choose_features(given: Given, console: Console) -> Choice:
    """Search, compare with the default, and write `given.out`/recipe.yaml; resumes.

    Raises ValueError or OSError in one line for a user's mistake, before any training.
    """
    study = start(GRID, given, console)
    settings = study.settings
    assert isinstance(settings, ChoiceSettings)
    default = Setting.of(study.default_maps)
    with naming_full_disk(given.out), exclusive(given.out):
        results = run_cells(GRID, study, CellFolder(given.out, GRID, study), grid.cells(study))
        chosen = _search(study, given.out, results, settings)
        count, n = len(study.annotations.stems), len(study.splits)
        unseen = random_splits(count, 2 * n, len(study.splits[0].test))
        other = replace(study, splits=tuple(unseen))
        found = _evaluate(
            other, given.out, FINAL, [chosen, default], settings.final, range(n, 2 * n)
        )
        choice = Choice(
            chosen,
            default,
            found.spread(chosen.variant),
            found.spread(default.variant),
            difference(found.by_split(chosen.variant), found.by_split(default.variant)),
        )
        _write_recipe(study, choice, given.out / RECIPE_NAME)
    return choice


def _search(study: Study, out: Path, results: Results, settings: ChoiceSettings) -> Setting:
    """Greedy addition, from the best map of the grid."""
    means = {name: results.spread(name).mean or 0.0 for name in grid.axes(study).all_variants}
    ranked = sorted(means, key=lambda name: -means[name])
    best = Setting.of(ranked[:1])
    scores = results.by_split(ranked[0])
    study.console.print(f"start: {best}, mIoU {points(results.spread(ranked[0]))}")
    while best.length < settings.most:
        tried = best.with_one_more(ranked, settings.candidates)
        if not tried:
            break
        found = _evaluate(study, out, SEARCH, tried, settings.labeler, range(len(study.splits)))
        top = max(tried, key=lambda setting: found.spread(setting.variant).mean or 0.0)
        gain = difference(found.by_split(top.variant), scores)
        if not _is_growing(gain):
            study.console.print(f"stop: the best addition, {top}, gains {points(gain)}")
            break
        best, scores = top, found.by_split(top.variant)
        study.console.print(f"added: {best}, mIoU {points(found.spread(best.variant))}")
    return best


def _is_growing(gain: Gain) -> bool:
    """Whether the mean exceeds its standard error; of one split, whether it is above 0."""
    if gain.mean is None:
        return False
    return gain.mean > (gain.std or 0.0) / math.sqrt(len(gain.values))


def _evaluate(
    study: Study,
    out: Path,
    group: str,
    tried: Sequence[Setting],
    labeler: LabelerConfig,
    splits: Sequence[int],
) -> Results:
    """The scores of settings on some splits."""
    by_variant = {setting.variant: setting for setting in tried}

    def run(study: Study, cell: Cell) -> Numbers:
        split, maps = study.split(cell.split), by_variant[cell.variant].maps
        return study.score(study.fit(maps, split.train, split.seed, labeler), split.test)

    def prepare(study: Study) -> None:
        study.pool.compute(
            list(dict.fromkeys(name for s in tried for name in s.maps)), study.console
        )

    cells = [Cell(name, number) for number in splits for name in by_variant]
    step = replace(GRID, name=group, shares_cells_of=None, run=run, prepare=prepare)
    return run_cells(step, study, CellFolder(out, step, study), cells)


def _write_recipe(study: Study, choice: Choice, path: Path) -> None:
    """The generator with the recommended features, as a recipe."""
    config = study.generator_config
    section = config.model_dump(mode="json", exclude_defaults=True)
    features = {**section.get("features", {}), **choice.recommended.features}
    section = {"kind": config.kind, **section, "features": features}
    text = yaml.safe_dump(
        {"name": "chosen-features", "generator": section}, sort_keys=False, default_flow_style=None
    )
    write_bytes(path, f"# {choice.sentence}\n{text}".encode())


def _check(study: Study) -> None:
    """Raise ValueError for a generator whose features cannot be chosen, or as `grid.check`."""
    grid.check(study)
    config = study.generator_config
    if not isinstance(study.generator, Diffusing) and (
        config.kind != "stylegan2" or config.encoders
    ):
        raise ValueError(
            "choose-features: found features of an encoder, expected those of a diffusion model or "
            "a StyleGAN2: to compare an encoder's layers, use `factory analyse blocks`"
        )


GRID = Work(
    name="choose-features",
    cells=grid.cells,
    run=grid.run,
    settings=ChoiceSettings,
    check=_check,
    prepare=grid.prepare,
    shares_cells_of=grid.GROUP,
    uses_default_maps=False,
)
