"""The typer application that the commands register on, and the console they print to."""

from __future__ import annotations

import typer
from rich.console import Console

app = typer.Typer(
    help="From a generative model and a few annotated images to labelled data and a segmenter.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
# Paths and class names are printed literally: never as markup, never cut.
console = Console(highlight=False, markup=False, soft_wrap=True)

MAKING, TRAINING, USING = "Make a dataset", "Train", "Use and measure"
PUBLISHING = "Publish"
