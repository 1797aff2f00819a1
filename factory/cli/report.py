"""The command that writes reports to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from factory.cli.application import USING, app, console
from factory.cli.options import (
    Device,
    GeneratorDir,
    Settings,
    as_given,
    existing_dataset,
    writable_file,
)


@app.command(rich_help_panel=USING)
def report(
    folder: Annotated[
        Any,  # a Store
        typer.Argument(
            metavar="DIR",
            help="The `--out` of a dataset, a segmenter or a labeler.",
            parser=as_given,
            callback=existing_dataset,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="HTML file to write; by default DIR/report.html.", callback=writable_file
        ),
    ] = None,
    real: Annotated[
        Path | None,
        typer.Option(help="For a dataset: the images that its generator was trained on."),
    ] = None,
    labeled: Annotated[
        Path | None,
        typer.Option(help="Annotated folder: to compare a dataset with, or to test a model on."),
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="For a segmenter: another one, scored beside it.")
    ] = None,
    evaluation: Annotated[
        Path | None, typer.Option(help="For a segmenter: the `--json` file of `factory evaluate`.")
    ] = None,
    generator: GeneratorDir = None,
    samples: Annotated[
        int, typer.Option(min=1, help="Samples to compare with `--real`, evenly spaced.")
    ] = 2000,
    settings: Settings = None,
    device: Device = "auto",
) -> None:
    """Write one HTML file about a dataset, a segmenter or a labeler. It opens without a network.

    `factory report smears --real photos --labeled annotated`

    `factory report model --labeled test --baseline other`
    """
    from factory.commands.report.command import ReportOptions
    from factory.commands.report.command import report as run
    from factory.recipe.picture_settings import only_pictures

    compared = (real, labeled, baseline, evaluation, generator)
    options = ReportOptions(folder, out, *compared, samples, device, only_pictures(settings))
    run(options, console)
