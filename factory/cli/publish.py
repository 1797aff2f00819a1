"""Commands that describe and send a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from factory.cli.application import PUBLISHING, app, console
from factory.cli.options import FinishedDataset, local_folder


@app.command(rich_help_panel=PUBLISHING)
def card(
    folder: FinishedDataset,
    license: Annotated[
        str | None,
        typer.Option(help="Licence of the dataset, e.g. `cc-by-4.0`; required, and never guessed."),
    ] = None,
    license_link: Annotated[
        str | None, typer.Option(help="Link to the terms, with `--license other`.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="By default the name of the folder.")] = None,
    generator_license: Annotated[
        str | None,
        typer.Option(
            help="Licence of the generator, if neither its folder nor the package says it."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing README.md.")
    ] = False,
) -> None:
    """Describe a finished dataset: README.md in the hub's form, and croissant.json.

    `factory card smears --license cc-by-4.0 --title "Synthetic blood smears"`
    """
    from factory.commands.card import CardJob, write_card

    job = CardJob(folder, license, license_link, title, generator_license, overwrite)
    write_card(job, console)


@app.command(rich_help_panel=PUBLISHING)
def push(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="A dataset on this machine, with a card.", callback=local_folder
        ),
    ],
    address: Annotated[str, typer.Argument(metavar="hf://USER/NAME", help="Where to send it.")],
    public: Annotated[
        bool, typer.Option("--public", help="Let everyone see it; by default it is private.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask; the notes on licences were read.")
    ] = False,
) -> None:
    """Send a dataset to the Hugging Face hub, after listing what licences forbid. Rerun to resume.

    `factory push smears hf://USER/smears`
    """
    from factory.commands.push import PushJob
    from factory.commands.push import push as run

    run(PushJob(folder, address, public, yes), console)
