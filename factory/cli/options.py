"""Options that several commands share: one declaration of name, type, range and help each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from factory.folders import refuse_file, refuse_folder


def writable_folder(param: typer.CallbackParam, path: Path | None) -> Path | None:
    """Refuse what can never become a folder here, before any work is done."""
    if path is not None:
        if "://" in str(path):
            raise ValueError(f"{param.opts[0]} {path}: expected a folder of this machine")
        refuse_file(path, param.opts[0])
    return path


def writable_file(param: typer.CallbackParam, path: Path | None) -> Path | None:
    """Refuse what can never become a file here, before any work is done."""
    if path is not None:
        refuse_folder(path, param.opts[0])
    return path


Out = Annotated[Path, typer.Option("--out", help="Folder to write.", callback=writable_folder)]
Device = Annotated[str, typer.Option(help="`auto`, `cpu`, `cuda`, `cuda:1` or `mps`.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of everything random.")]
SegmenterDir = Annotated[Path, typer.Option("--model", help="Folder of `train-deeplab`.")]
Images = Annotated[
    list[str], typer.Option("--images", help="File, folder or quoted pattern; repeatable.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images, or tiles, at a time.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any other setting; may be repeated."),
]
RecipeName = Annotated[str | None, typer.Option("--recipe", help="Preset or YAML file.")]
GeneratorDir = Annotated[
    str | None, typer.Option("--generator", help="Generator: folder, hub id or `package:`.")
]
LabelerDir = Annotated[str | None, typer.Option("--labeler", help="Labeler's folder.")]
ExecutorName = Annotated[str, typer.Option("--executor", help="`ray`, or `local`: in-process.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Ray actors; by default one a core.")]
CpusPerWorker = Annotated[int, typer.Option(min=1, help="Threads of a worker.")]
GpusPerWorker = Annotated[
    float | None, typer.Option(min=0, help="GPUs of a worker; may be a fraction.")
]
Address = Annotated[str | None, typer.Option(help="A running Ray cluster, e.g. `auto`.")]
Keep = Annotated[bool, typer.Option("--keep-candidates", help="Keep dropped samples too.")]
