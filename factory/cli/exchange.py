"""Commands on annotations: import, export, check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from factory.cli.application import MAKING, app, console
from factory.cli.options import Out, as_given, existing_dataset, writable_file

exchange = typer.Typer(
    help="Exchange masks with the programs that people draw them with, and check them.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
app.add_typer(exchange, name="annotations", rich_help_panel=MAKING)

READ = (
    "labelme, cvat, cvat-mask, coco, label-studio, voc, index-png; data sets: flowers102, cub, "
    "celebamask-hq, pixel-imagenet"
)
WRITTEN = "labelme, cvat, cvat-mask, coco, coco-rle, label-studio, voc, index-png, yolo-seg, nnunet"


@exchange.command("import")
def import_(
    format: Annotated[str, typer.Argument(metavar="FORMAT", help=f"`{READ}`.")],
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="The file or folder that the program exported.")
    ],
    out: Out,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the pictures, if they are elsewhere.")
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(metavar="NAMES|FILE", help="Classes in id order: `a,b,c`, or a JSON file."),
    ] = None,
    keep_empty: Annotated[
        bool, typer.Option("--keep-empty", help="Pictures without a region are all background.")
    ] = False,
    split: Annotated[
        str | None, typer.Option(metavar="train|val|test", help="Part of a published data set.")
    ] = None,
) -> None:
    """Write what was drawn in another program as an annotated folder, ready for `train-labeler`.

    `factory annotations import cvat exported --images photos --out annotated`

    A published data set, as its authors distribute it:

    `factory annotations import flowers102 downloaded --split test --out flowers-test`
    """
    from factory.commands.annotations.exchange import class_names, import_folder
    from factory_core.annotated.formats.regions import Source

    names = class_names(classes)
    found = Source(source, images, keep_empty=keep_empty, split=split)
    import_folder(format, found, out, names, console)


@exchange.command()
def export(
    format: Annotated[str, typer.Argument(metavar="FORMAT", help=f"`{WRITTEN}`.")],
    out: Out,
    labeled: Annotated[Path | None, typer.Option(help="Annotated folder to export.")] = None,
    data: Annotated[
        Any,  # a Store
        typer.Option(metavar="<path>", help="Dataset to export, in place of it.", parser=as_given),
    ] = None,
) -> None:
    """Write an annotated folder, or the samples of a dataset, for another program.

    `factory annotations export label-studio --labeled annotated --out tasks`
    """
    from factory.commands.annotations.exchange import export_folder

    if (labeled is None) == (data is None):
        raise ValueError("found both or neither of --labeled and --data, expected exactly one")
    store = None if data is None else existing_dataset(data)
    export_folder(format, labeled, store, out, console)


@exchange.command()
def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Annotated folder.")],
    sheet: Annotated[
        Path | None,
        typer.Option(
            help="PNG of all masks over their images; by default DIR/check.png if DIR has folders.",
            callback=writable_file,
        ),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="JSON file to write.", callback=writable_file)
    ] = None,
) -> None:
    """Look for mistakes in masks; fails if `train-labeler` would refuse the folder.

    `factory annotations check annotated`
    """
    from factory.commands.annotations.check import check as run

    run(folder, sheet, json_file, console)
