"""Commands that make a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from factory.cli.application import MAKING, app, console
from factory.cli.options import (
    Address,
    CpusPerWorker,
    DatasetOut,
    Device,
    EncoderFiles,
    ExecutorName,
    FinishedDataset,
    GeneratorDir,
    GpusPerWorker,
    Keep,
    LabelerDir,
    RecipeName,
    Settings,
    ShardTimeout,
    Workers,
)


@app.command(rich_help_panel=MAKING)
def generate(
    out: DatasetOut,
    n: Annotated[int, typer.Option("--n", help="Images to sample; a tenth of them are dropped.")],
    recipe: RecipeName = None,
    generator: GeneratorDir = None,
    encoder: EncoderFiles = None,
    labeler: LabelerDir = None,
    real: Annotated[
        Path | None, typer.Option(help="Folder of real images to compare the synthetic ones with.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print recipe and cost; write nothing.")
    ] = False,
    executor: ExecutorName = "ray",
    workers: Workers = None,
    cpus_per_worker: CpusPerWorker = None,
    gpus_per_worker: GpusPerWorker = None,
    address: Address = None,
    shard_timeout: ShardTimeout = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Run seed of the sampler.")] = None,
    settings: Settings = None,
    keep_candidates: Keep = False,
    device: Device = "auto",
) -> None:
    """Sample images, label them, drop the most uncertain tenth, write webdataset shards.

    Rerun to resume. Without a recipe or a labeler, it makes the embedded demo:

    `factory generate --n 64 --out smears`
    """
    from factory.commands import generate as command
    from factory.pipeline.job import Job
    from factory.recipe import choose_recipe, resolve

    overrides = [*(settings or []), *([] if seed is None else [f"generator.seed={seed}"])]
    made_by = _executor(
        executor, workers, cpus_per_worker, gpus_per_worker, address, shard_timeout, device
    )
    resolved = resolve(choose_recipe(recipe, generator, labeler, overrides, encoder or []))
    job = Job.sampling(resolved, n, out, device=device, keep_candidates=keep_candidates)
    if dry_run:
        command.dry_run(job, made_by, console)
    else:
        command.generate(job, made_by, real, console)


@app.command(rich_help_panel=MAKING)
def label(
    images: Annotated[Path, typer.Option(help="Folder of unlabelled photographs.")],
    out: DatasetOut,
    recipe: RecipeName = None,
    generator: GeneratorDir = None,
    encoder: EncoderFiles = None,
    labeler: LabelerDir = None,
    executor: ExecutorName = "ray",
    workers: Workers = None,
    cpus_per_worker: CpusPerWorker = None,
    gpus_per_worker: GpusPerWorker = None,
    address: Address = None,
    shard_timeout: ShardTimeout = None,
    settings: Settings = None,
    keep_candidates: Keep = False,
    device: Device = "auto",
) -> None:
    """Make the same kind of dataset from real photographs: encode, label, drop, write shards."""
    from factory.pipeline.display import run_shown
    from factory.pipeline.job import Job
    from factory.recipe import choose_recipe, resolve
    from factory.terminal.notes import print_notes
    from factory_core.images import folder_notes

    made_by = _executor(
        executor, workers, cpus_per_worker, gpus_per_worker, address, shard_timeout, device
    )
    chosen = choose_recipe(recipe, generator, labeler, settings or [], encoder or [])
    resolved = resolve(chosen)
    job = Job.labeling(resolved, images, out, device=device, keep_candidates=keep_candidates)
    print_notes(console, folder_notes(images, job.recipe.pictures))
    run_shown(job, made_by, console)


@app.command(rich_help_panel=MAKING)
def status(folder: FinishedDataset) -> None:
    """Show the progress of a job: shards, samples/s, time left, failures. Works from any machine.

    For a finished dataset, show what dropping cost each class.

    `factory status smears`
    """
    from factory.commands.status import report

    report(folder, console)


@app.command(rich_help_panel=MAKING)
def verify(folder: FinishedDataset) -> None:
    """Check every file, member, mask and row of a finished dataset; name what to regenerate.

    `factory verify smears`
    """
    from factory.commands.verify import report

    report(folder, console)


def _executor(
    kind: str,
    workers: str | None,
    cpus: int | None,
    gpus: float | None,
    address: str | None,
    shard_timeout: float | None,
    device: str,
) -> Any:
    from factory.pipeline.executors import make_executor

    return make_executor(
        kind,
        workers=workers,
        cpus_per_worker=cpus,
        gpus_per_worker=gpus,
        address=address,
        shard_timeout_sec=shard_timeout,
        device=device,
    )
