"""Commands that repeat the paper's tables and figures on the user's data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from factory.analysis.names import HELP
from factory.cli.application import TRAINING, USING, app, console
from factory.cli.options import Device, Out, Settings

Splits = Annotated[int, typer.Option(min=1, help="Random splits of the annotated images.")]
ABOUT = "\n\n".join(
    [
        "Repeat a table or figure of Baranchuk et al. (2022) on your own data. Rerun to resume.",
        "`factory analyse labels --generator generator --labeled annotated --out analysis`",
        "Writes a table, a picture, and whether the paper's finding holds. Analyses may share one "
        "`--out`, and then share features.",
        "\n".join(f"- `{name}`: {line}" for name, line in HELP.items()),
    ]
)


@app.command(help=ABOUT, rich_help_panel=USING)
def analyse(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"One of {', '.join(HELP)}.")],
    generator: Annotated[str, typer.Option(help="As for `train-labeler`.")],
    labeled: Annotated[Path, typer.Option(help="Annotated folder: `images/` and `masks/`.")],
    out: Out,
    images: Annotated[Path | None, typer.Option(help="Folder of unlabelled images.")] = None,
    synthetic_labeled: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]DIR",
            help="Annotated samples of a generator, e.g. `gan=gan/annotated`; repeatable.",
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Dataset made by `generate`.")] = None,
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]WEIGHTS",
            help="Another generator or encoder, or a recipe (.yaml) with one; repeatable.",
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]DIR", help="Segmenter to compare with (`classes`); repeatable."
        ),
    ] = None,
    splits: Splits = 5,
    settings: Settings = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print time and disk; write nothing.")
    ] = False,
    device: Device = "auto",
) -> None:
    from factory.analysis.sources import Sources, named
    from factory.analysis.study import Given
    from factory.commands.analyse import analyse as run

    sources = Sources(
        named("--synthetic-labeled", synthetic_labeled or []),
        named("--encoder", encoder or []),
        named("--model", model or []),
        data,
    )
    given = Given(generator, labeled, out, images, splits, settings or [], device, sources)
    run(name, given, console, dry_run)


@app.command(rich_help_panel=TRAINING)
def choose_features(
    generator: Annotated[str, typer.Option(help="As for `train-labeler`.")],
    labeled: Annotated[Path, typer.Option(help="Annotated folder: `images/` and `masks/`.")],
    out: Out,
    splits: Splits = 5,
    settings: Settings = None,
    device: Device = "auto",
) -> None:
    """Choose blocks and timesteps for your data by cross-validation. Rerun to resume.

    `factory choose-features --generator generator --labeled annotated --out features`

    Prints the gain over the default, and writes `features/recipe.yaml` for `train-labeler`.
    """
    from factory.analysis.study import Given
    from factory.commands.choose_features import choose_features as run

    given = Given(generator, labeled, out, None, splits, settings or [], device)
    run(given, console)
