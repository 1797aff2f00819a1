"""Options that several commands share; name, type, range and help are declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from factory_core.output_folder import refuse_file, refuse_folder


def refuse_url(param: typer.CallbackParam, path: Path) -> None:
    """Raise ValueError for `s3://...`, which `Path` turns into `s3:/...`."""
    if path.parts and path.parts[0].endswith(":"):
        given = str(path).replace(":/", "://", 1)
        raise ValueError(f"{param.opts[0]} {given}: expected a path on this machine")


def local_folder(param: typer.CallbackParam, path: Path) -> Path:
    """Refuse a URL, where only a folder on this machine will do."""
    refuse_url(param, path)
    return path


def writable_folder(param: typer.CallbackParam, path: Path | None) -> Path | None:
    """Refuse a path that cannot become a folder, before any work is done."""
    if path is not None:
        refuse_url(param, path)
        refuse_file(path, param.opts[0])
    return path


def writable_file(param: typer.CallbackParam, path: Path | None) -> Path | None:
    """Refuse a path that cannot become a file, before any work is done."""
    if path is not None:
        refuse_url(param, path)
        refuse_folder(path, param.opts[0])
    return path


def as_given(text: str) -> str:
    """Parser for a path or URL, left as text; a callback opens it and raises one-line errors."""
    return text


def dataset_folder(text: str) -> Any:  # typer resolves annotations: importing Store takes time
    """The `Store` for a folder on this machine, or in a bucket that can be reached."""
    from factory_core.storage import open_store

    store = open_store(text)
    store.check()
    return store


def existing_dataset(text: str) -> Any:
    """As `dataset_folder`; refuse a file."""
    store = dataset_folder(text)
    if store.obstacle() is not None:
        raise NotADirectoryError(f"{text}: found a file, expected the folder of a dataset")
    return store


def dataset_folders(texts: list[str] | None) -> list[Any]:
    """Folders on this machine as paths, finished datasets in buckets as stores, tars as text."""
    from factory_core.dataset import open_dataset

    found: list[Any] = []
    for text in texts or []:
        if text.endswith(".tar"):  # a pattern, which only webdataset reads
            found.append(text)
            continue
        store = dataset_folder(text)
        if store.is_remote:
            open_dataset(store)
        found.append(store if store.is_remote else Path(text))
    return found


def writable_dataset(param: typer.CallbackParam, text: str) -> Any:
    """As `dataset_folder`; refuse a place that cannot hold a dataset, before any work is done."""
    store = dataset_folder(text)
    refuse_file(store, param.opts[0])
    return store


Out = Annotated[Path, typer.Option("--out", help="Folder to write.", callback=writable_folder)]
DatasetOut = Annotated[
    Any,  # a Store
    typer.Option(
        "--out",
        metavar="<path>",
        help="Folder to write, or `s3://BUCKET/FOLDER`.",
        parser=as_given,
        callback=writable_dataset,
    ),
]
FinishedDataset = Annotated[
    Any,  # a Store
    typer.Argument(
        metavar="DIR", help="The `--out` of a dataset.", parser=as_given, callback=existing_dataset
    ),
]
Device = Annotated[str, typer.Option(help="`auto`, `cpu`, `cuda`, `cuda:1` or `mps`.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Random seed.")]
SegmenterDir = Annotated[Path, typer.Option("--model", help="Output of `train-deeplab`.")]
Images = Annotated[
    list[str], typer.Option("--images", help="File, folder or quoted pattern; repeatable.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images, or tiles, per batch.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any other setting; repeatable."),
]
RecipeName = Annotated[str | None, typer.Option("--recipe", help="Preset or YAML file.")]
GeneratorDir = Annotated[
    str | None,
    typer.Option("--generator", help="Generator: folder, .pt or .pkl file, hub id or `package:`."),
]
EncoderFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--encoder",
        help="Network of the features: checkpoint, folder or `pixels`; repeatable.",
    ),
]
LabelerDir = Annotated[str | None, typer.Option("--labeler", help="Output of `train-labeler`.")]
ExecutorName = Annotated[str, typer.Option("--executor", help="`ray`, or `local`: in-process.")]
Workers = Annotated[
    str | None,
    typer.Option(
        metavar="N|MIN-MAX",
        help="Ray actors; by default one per GPU, or one per core without GPUs.",
    ),
]
CpusPerWorker = Annotated[
    int | None,
    typer.Option(min=1, help="Threads per worker; by default one, with GPUs the cores, divided."),
]
GpusPerWorker = Annotated[
    float | None, typer.Option(min=0, help="GPUs per worker; may be a fraction.")
]
Address = Annotated[
    str | None, typer.Option(envvar="RAY_ADDRESS", help="A running Ray cluster, e.g. `auto`.")
]
ShardTimeout = Annotated[
    float | None,
    typer.Option(
        min=1,
        metavar="SECONDS",
        help="Replace a worker that takes longer than this over a shard; by default a generous"
        " multiple of the slowest shard so far. Only with `--executor ray`.",
    ),
]
Keep = Annotated[bool, typer.Option("--keep-candidates", help="Keep the dropped samples too.")]
