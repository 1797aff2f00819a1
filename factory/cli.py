"""The `factory` command: every verb parses its options, then makes one function call.

Nothing heavy is imported until a command runs, so `factory --help` is immediate.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console

app = typer.Typer(
    help="From a generative model and a few annotated images to a labelled dataset and a segmenter.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
console = Console()

Out = Annotated[Path, typer.Option("--out", help="Folder to write, e.g. `--out run1/generator`.")]
Device = Annotated[str, typer.Option(help="`auto`, `cpu`, `cuda`, `cuda:1` or `mps`.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random in this command.")]


@app.command()
def render_demo(
    out: Out,
    n: Annotated[int, typer.Option("--n", min=1, help="Number of images.")] = 24,
    start: Annotated[int, typer.Option(min=0, help="Index of the first image.")] = 0,
) -> None:
    """Render stained blood smears with exact masks: the embedded domain, to try things on."""
    from factory.demo.render import render_folder

    render_folder(out, range(start, start + n))
    console.print(f"{n} images and masks in [bold]{out}[/]")


@app.command()
def train_generator(
    images: Annotated[Path, typer.Option(help="Folder of unlabelled images.")],
    out: Out,
    kind: Annotated[str, typer.Option(help="Kind of generator; `ddpm`.")] = "ddpm",
    init: Annotated[
        str | None, typer.Option(help="Generator to go on from: fewer steps, fewer images.")
    ] = None,
    image_size: Annotated[int, typer.Option(min=8, help="Resolution in pixels, e.g. 64.")] = 64,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 20_000,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a step.")] = 16,
    flips: Annotated[bool, typer.Option("--flips", help="Random flips.")] = False,
    quarter_turns: Annotated[
        bool, typer.Option("--quarter-turns", help="Random turns by 90 degrees.")
    ] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other setting, e.g. `--set channels=[64,128,256]`."),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Train a generator on a folder of unlabelled images; run again to resume."""
    from factory.training import train_generator

    given = {
        "image_size": image_size,
        "steps": steps,
        "batch_size": batch_size,
        "flips": flips,
        "quarter_turns": quarter_turns,
        "seed": seed,
    }
    train_generator(kind, images, out, given | as_dict(set_ or []), init, device, console)


def main() -> None:
    """Run the command line; a user's mistake is one line and exit code 1, never a traceback."""
    try:
        app(standalone_mode=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        _fail(f"{where}: {first['msg'].removeprefix('Value error, ')}" if where else first["msg"])
    except OSError as error:
        if error.errno == errno.ENOSPC:
            _fail(f"disk full while writing {error.filename or ''}: free some space and run again")
        _fail(str(error))
    except (ValueError, ImportError) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        console.print("\ninterrupted: run the same command again to resume", style="yellow")
        sys.exit(130)


def _fail(message: str) -> None:
    if os.environ.get("FACTORY_TRACEBACK"):
        raise
    Console(stderr=True).print(f"[bold red]error:[/] {' '.join(message.split())}", highlight=False)
    sys.exit(1)


def as_dict(settings: list[str]) -> dict[str, Any]:
    """`["a=1", "b=[2,3]"]` -> `{"a": 1, "b": [2, 3]}` (values are YAML)."""
    import yaml

    pairs = {}
    for setting in settings:
        key, sign, value = setting.partition("=")
        if not sign:
            raise ValueError(f"--set {setting}: expected KEY=VALUE, e.g. --set lr=0.001")
        pairs[key] = yaml.safe_load(value)
    return pairs
