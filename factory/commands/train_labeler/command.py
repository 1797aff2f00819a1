"""`factory train-labeler`: from its options to a training, a cross-validation or a dry run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from factory.annotation.samples import recorded_settings
from factory.commands.train_labeler.dry_run import dry_run
from factory.commands.train_labeler.folds import Folds, cross_validate
from factory.commands.train_labeler.preparation import LabelerJob
from factory.commands.train_labeler.training import train_one
from factory.commands.train_labeler.unlabelled import number_regions
from factory.recipe import generator_recipe
from factory_core.storage import naming_full_disk


@dataclass(frozen=True)
class LabelerOptions:
    """The options of `train-labeler`.

    Without a `recipe`, the folder `labeled` may say how its images were sampled; None is for
    regions without names. `overrides` are settings as `KEY=VALUE`. `folds` asks for scores on
    random splits instead of one labeler. `encoders` are networks whose features replace the
    generator's, which photographs need none of.
    """

    labeled: Path | None
    out: Path
    recipe: str | None
    generator: str | None
    overrides: Sequence[str]
    device: str
    folds: Folds | None = None
    is_dry_run: bool = False
    encoders: Sequence[str] = ()


def train_labeler(options: LabelerOptions, console: Console) -> None:
    """Train, cross-validate, or print the cost of a training.

    Raises as `generator_recipe`, `Preparation`, `train_one` and `cross_validate`.
    """
    recorded = None
    if options.recipe is None and options.labeled is not None:
        recorded = recorded_settings(options.labeled)
    recipe = generator_recipe(
        *(options.recipe, options.generator, options.overrides, recorded, options.encoders)
    )
    if options.labeled is None:
        if not recipe.labeler.has_regions or options.folds is not None or options.is_dry_run:
            raise ValueError(
                "found no --labeled: give the folder of annotated images; only a labeler of --kind "
                "regions or clusters needs none"
            )
        number_regions(recipe, options.out, options.device, console)
        return
    job = LabelerJob(recipe, options.labeled, options.out, options.device, console)
    if options.is_dry_run:
        dry_run(job)
        return
    with naming_full_disk(options.out):
        if options.folds is not None:
            cross_validate(job, options.folds)
        else:
            train_one(job)
