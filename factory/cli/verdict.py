"""Commands that find the best way to a model by cross-validation on the user's data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from factory.cli.application import TRAINING, USING, app, console
from factory.cli.options import Device, GeneratorDir, Out, Settings, writable_folder

BUDGET = "50m"


@app.command(rich_help_panel=USING)
def compare(
    labeled: Annotated[Path, typer.Option(help="Annotated folder: `images/` and `masks/`.")],
    out: Out,
    images: Annotated[Path | None, typer.Option(help="Folder of unlabelled images.")] = None,
    generator: GeneratorDir = None,
    budget: Annotated[
        str, typer.Option(metavar="TIME", help="E.g. `30m`, `2h`; `none`: run everything.")
    ] = BUDGET,
    also_test: Annotated[
        Path | None,
        typer.Option(help="A second annotated folder: reported, never used to choose."),
    ] = None,
    deliver: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the best segmenter, trained on all labels.", callback=writable_folder
        ),
    ] = None,
    contender: Annotated[
        list[str] | None, typer.Option(help="Compare only these; repeatable.")
    ] = None,
    settings: Settings = None,
    address: Annotated[
        str | None,
        typer.Option(help="A running Ray cluster, e.g. `auto`: several splits at once."),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="Splits at once on this machine. [default: one per core]"),
    ] = None,
    device: Device = "auto",
) -> None:
    """Find out whether generator and photographs beat the labels alone, on your own images.

    `factory compare --labeled annotated --images photos --generator generator --out verdict`

    All contenders are cross-validated on the same folds. Keep a test set aside. Rerun to resume.
    """
    from factory.commands.compare import Options
    from factory.commands.compare import compare as run
    from factory.recipe.picture_settings import picture_settings
    from factory.verdict.inputs import Given

    pictures, overrides = picture_settings(settings)
    given = Given(labeled, out, images, generator, also_test, device, pictures)
    options = Options(budget, overrides, contender or [], deliver, address, processes)
    run(given, options, console)


@app.command(rich_help_panel=TRAINING)
def rounds(
    labeled: Annotated[Path, typer.Option(help="Annotated folder: `images/` and `masks/`.")],
    out: Out,
    generator: Annotated[str, typer.Option(help="As for `train-labeler`.")],
    images: Annotated[Path | None, typer.Option(help="Folder of unlabelled images.")] = None,
    learn_from: Annotated[
        Literal["photographs", "synthetic", "both"] | None,
        typer.Option(
            help="What the models label: `--images`, samples of the generator, or both. By "
            "default `--images`; without them, samples."
        ),
    ] = None,
    augmentation: Annotated[
        Literal["light", "strong"] | None,
        typer.Option(
            help="Flips, turns and noise; or also crops and changes of brightness and colour. By "
            "default the better of both."
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, at most.")] = 4,
    settings: Settings = None,
    device: Device = "auto",
) -> None:
    """Several models label photographs or samples, a new one learns from these, and so on.

    `factory rounds --labeled annotated --images photos --generator generator --out model`

    Keeps the best round. Stops when cross-validation on the annotated images no longer improves.
    Rerun to resume.
    """
    from factory.commands.rounds import rounds as run
    from factory.recipe.picture_settings import picture_settings
    from factory.verdict.inputs import Given
    from factory.verdict.round_job import Rules

    pictures, overrides = picture_settings(settings)
    given = Given(labeled, out, images, generator, device=device, pictures=pictures)
    is_strong = None if augmentation is None else augmentation == "strong"
    run(given, rounds, Rules(learn_from, is_strong), overrides, console)
