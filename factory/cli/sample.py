"""The command that makes images to annotate."""

from __future__ import annotations

from typing import Annotated

import typer

from factory.cli.application import MAKING, app, console
from factory.cli.options import Device, GeneratorDir, Out, RecipeName, Settings


@app.command(rich_help_panel=MAKING)
def sample(
    out: Out,
    recipe: RecipeName = None,
    generator: GeneratorDir = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Number of images.")] = 24,
    start: Annotated[int, typer.Option(min=0, help="Index of the first one.")] = 0,
    seed: Annotated[int | None, typer.Option(min=0, help="Run seed of the sampler.")] = None,
    settings: Settings = None,
    device: Device = "auto",
) -> None:
    """Sample images to annotate for `train-labeler`. Rerun to resume, or to add images.

    `factory sample --generator generator --n 24 --out annotated`
    """
    from factory.commands.sample import SampleJob
    from factory.commands.sample import sample as run
    from factory.recipe import generator_recipe

    overrides = [*(settings or []), *([] if seed is None else [f"generator.seed={seed}"])]
    config = generator_recipe(recipe, generator, overrides).generator
    run(SampleJob(config, start, n, out, device, console))
