"""Commands that choose or make images to annotate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from factory.cli.application import MAKING, app, console
from factory.cli.options import Device, GeneratorDir, LabelerDir, Out, RecipeName, Settings

Select = Annotated[
    Literal["random", "diverse", "uncertain", "both"] | None,
    typer.Option(
        metavar="random|diverse|uncertain|both",
        help="Unlike each other, uncertain to the labeler, or both (the default with --labeler).",
    ),
]


@app.command(rich_help_panel=MAKING)
def choose(
    images: Annotated[Path, typer.Option(help="Folder of unlabelled images.")],
    out: Out,
    n: Annotated[int, typer.Option("--n", min=1, help="Number of images.")] = 24,
    select: Select = None,
    generator: GeneratorDir = None,
    labeler: LabelerDir = None,
    exclude: Annotated[
        list[Path] | None, typer.Option(help="Annotated folder to leave out; repeatable.")
    ] = None,
    candidates: Annotated[
        int, typer.Option(min=1, help="Images to look at, at most, evenly spaced by name.")
    ] = 512,
    seed: Annotated[int, typer.Option(min=0, help="Seed of `--select random`.")] = 0,
    settings: Settings = None,
    device: Device = "auto",
) -> None:
    """Choose which images to annotate, and show why. Rerun to choose as many more.

    `factory choose --images photos --generator generator --n 24 --out annotated`

    With a first labeler: `factory choose --images photos --labeler labeler --exclude annotated
    --n 8 --out more`
    """
    from factory.commands.choose import ChoiceJob
    from factory.commands.choose import choose as run

    run(
        ChoiceJob(
            *(images, out, n, select, generator, labeler, exclude or []),
            *(candidates, seed, settings or [], device, console),
        )
    )


@app.command(rich_help_panel=MAKING)
def sample(
    out: Out,
    recipe: RecipeName = None,
    generator: GeneratorDir = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Number of images.")] = 24,
    start: Annotated[int, typer.Option(min=0, help="Index of the first one.")] = 0,
    select: Select = None,
    labeler: LabelerDir = None,
    candidates: Annotated[
        int, typer.Option(min=1, help="Samples to choose from, with --select or --labeler.")
    ] = 192,
    seed: Annotated[int | None, typer.Option(min=0, help="Run seed of the sampler.")] = None,
    settings: Settings = None,
    device: Device = "auto",
) -> None:
    """Sample images to annotate for `train-labeler`. Rerun to resume, or to add images.

    `factory sample --generator generator --n 24 --out annotated`
    """
    from factory.commands.sample import SampleJob
    from factory.commands.sample import sample as run
    from factory.recipe import generator_recipe, recipe_of_labeler

    overrides = [*(settings or []), *([] if seed is None else [f"generator.seed={seed}"])]
    if labeler is not None and recipe is None:
        config = recipe_of_labeler(labeler, generator, overrides).generator
    else:
        config = generator_recipe(recipe, generator, overrides).generator
    how = select or ("random" if labeler is None else "both")
    run(SampleJob(config, start, n, out, device, console, how, labeler, candidates))
