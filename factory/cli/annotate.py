"""The command that serves the labelling page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from factory.cli.application import MAKING, app, console
from factory.cli.options import Device, GeneratorDir, LabelerDir


@app.command(rich_help_panel=MAKING)
def annotate(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="`images/` and `masks/`, or a folder of pictures.")
    ],
    classes: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Names, background first; default: classes.json."),
    ] = None,
    generator: GeneratorDir = None,
    labeler: LabelerDir = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="0: any; default: 8321, or any if in use.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to serve at; any but this machine's needs a token.")
    ] = "127.0.0.1",
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")
    ] = True,
    device: Device = "auto",
) -> None:
    """Draw masks in the browser; what is drawn trains a labeler that proposes the rest.

    `factory annotate annotated --classes background,cell --generator generator`

    Proposals need a diffusion model, or the labeler that `--labeler` names. Masks are PNGs of class
    ids, saved after every stroke; `train-labeler --labeled DIR` reads them at once.
    """
    from factory.commands.annotate import AnnotateJob
    from factory.commands.annotate import annotate as run

    names = None if classes is None else [name.strip() for name in classes.split(",")]
    if names is not None and (len(set(names)) != len(names) or not all(names)):
        raise ValueError(f"--classes {classes}: expected distinct names, such as background,cell")
    run(AnnotateJob(folder, names, generator, labeler, host, port, browser, device, console))
