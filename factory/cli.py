"""The `factory` command: every verb parses its options, then makes one function call.

Nothing heavy is imported until a command runs, so `factory --help` is immediate.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from factory.folders import refuse_file

app = typer.Typer(
    help="From a generative model and a few annotated images to labelled data and a segmenter.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
# Paths and class names are printed as they are: never as markup, never cut.
console = Console(highlight=False, markup=False, soft_wrap=True)

MAKING, TRAINING, USING = "Make a dataset", "Train", "Use and measure"


def writable_folder(path: Path) -> Path:
    """Refuse what can never become a folder here, before any work is done."""
    if "://" in str(path):
        raise ValueError(f"--out {path}: expected a folder of this machine")
    refuse_file(path)
    return path


Out = Annotated[Path, typer.Option("--out", help="Folder to write.", callback=writable_folder)]
Device = Annotated[str, typer.Option(help="`auto`, `cpu`, `cuda`, `cuda:1` or `mps`.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of everything random.")]
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


@app.command(rich_help_panel=MAKING)
def generate(
    out: Out,
    n: Annotated[int, typer.Option("--n", help="Images to sample; a tenth is dropped again.")],
    recipe: RecipeName = None,
    generator: GeneratorDir = None,
    labeler: LabelerDir = None,
    real: Annotated[
        Path | None, typer.Option(help="Real images to compare the synthetic ones with.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print recipe and cost; write nothing.")
    ] = False,
    executor: ExecutorName = "ray",
    workers: Workers = None,
    cpus_per_worker: CpusPerWorker = 1,
    gpus_per_worker: GpusPerWorker = None,
    address: Address = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Run seed of the sampler.")] = None,
    settings: Settings = None,
    keep_candidates: Keep = False,
    device: Device = "auto",
) -> None:
    """Sample images, label them, drop the most uncertain tenth, write webdataset shards.

    Run again to resume. Without a recipe or a labeler it is the embedded demo:

    `factory generate --n 64 --out smears`
    """
    from factory import making

    overrides = [*(settings or []), *([] if seed is None else [f"generator.seed={seed}"])]
    job = making.Making(
        making.choose_recipe(recipe, generator, labeler, overrides),
        out,
        _executor(executor, workers, cpus_per_worker, gpus_per_worker, address),
        device,
        keep_candidates,
        console,
    )
    if dry_run:
        making.dry_run(job, n)
    else:
        making.generate(job, n, real)


@app.command(rich_help_panel=MAKING)
def label(
    images: Annotated[Path, typer.Option(help="Folder of unlabelled photographs.")],
    out: Out,
    recipe: RecipeName = None,
    generator: GeneratorDir = None,
    labeler: LabelerDir = None,
    executor: ExecutorName = "ray",
    workers: Workers = None,
    cpus_per_worker: CpusPerWorker = 1,
    gpus_per_worker: GpusPerWorker = None,
    address: Address = None,
    settings: Settings = None,
    keep_candidates: Keep = False,
    device: Device = "auto",
) -> None:
    """Make the same kind of dataset from real photographs: encode, label, drop, write shards."""
    from factory import making

    job = making.Making(
        making.choose_recipe(recipe, generator, labeler, settings or []),
        out,
        _executor(executor, workers, cpus_per_worker, gpus_per_worker, address),
        device,
        keep_candidates,
        console,
    )
    making.label(job, images)


@app.command(rich_help_panel=TRAINING)
def train_generator(
    images: Annotated[Path, typer.Option(help="Folder of unlabelled images.")],
    out: Out,
    kind: Annotated[str, typer.Option(help="Kind of generator: `ddpm`.")] = "ddpm",
    init: Annotated[
        str | None, typer.Option(help="Generator to go on from: needs fewer steps and images.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=8, help="Resolution in pixels; 64 unless given.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps; 20 000 unless given.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images a step; 16 unless given.")
    ] = None,
    flips: Annotated[bool | None, typer.Option("--flips", help="Random flips.")] = None,
    quarter_turns: Annotated[
        bool | None, typer.Option("--quarter-turns", help="Random turns by 90 degrees.")
    ] = None,
    settings: Settings = None,
    seed: Seed = None,
    device: Device = "auto",
) -> None:
    """Train a diffusion model on a folder of unlabelled images. Run again to resume.

    `factory train-generator --images photos --out generator --flips --set channels=[64,128,256]`
    """
    from factory.training import train_generator as run

    given = {
        "image_size": image_size,
        "steps": steps,
        "batch_size": batch_size,
        "flips": flips,
        "quarter_turns": quarter_turns,
        "seed": seed,
    }
    run(kind, images, out, given, settings or [], init, device, console)


@app.command(rich_help_panel=TRAINING)
def train_labeler(
    labeled: Annotated[Path, typer.Option(help="Annotated folder: `images/` and `masks/`.")],
    out: Out,
    generator: GeneratorDir = None,
    recipe: RecipeName = None,
    settings: Settings = None,
    seed: Seed = None,
    device: Device = "auto",
) -> None:
    """Train the ensemble of pixel classifiers on a few annotated images.

    `factory train-labeler --generator generator --labeled annotated --out labeler`
    """
    from factory.making import labeler_recipe
    from factory.training import train_labeler as run

    overrides = [*([] if seed is None else [f"labeler.seed={seed}"]), *(settings or [])]
    scores = run(labeler_recipe(recipe, generator, overrides), labeled, out, device, console)
    console.print(
        f"labeler in {out} (training accuracy {scores['train_accuracy']:.3f}, "
        f"{scores['steps']:.0f} steps)"
    )


@app.command(rich_help_panel=TRAINING)
def train_deeplab(
    data: Annotated[list[Path], typer.Option(help="Dataset or annotated folder; repeatable.")],
    out: Out,
    val: Annotated[
        Path | None, typer.Option(help="Annotated folder that chooses the best weights.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps, instead of 20 epochs.")
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="E.g. `resnet18`, `resnet101`.")] = None,
    recipe: RecipeName = None,
    settings: Settings = None,
    seed: Seed = None,
    device: Device = "auto",
) -> None:
    """Train DeepLabV3 on datasets, annotated folders, or both. Run again to resume.

    `factory train-deeplab --data smears --out model --encoder resnet18 --set augment.hue=0.05`
    """
    from factory.training import SegmenterJob, segmenter_config
    from factory.training import train_deeplab as run

    given = {"max_steps": steps, "encoder": encoder, "seed": seed}
    config = segmenter_config(data, recipe, given, settings or [])
    scores = run(SegmenterJob(data, out, val, config, device), console)
    found = f", validation mIoU {scores['miou']:.4f}" if scores else ""
    console.print(f"segmenter in {out}{found}")


@app.command(rich_help_panel=USING)
def evaluate(
    model: Annotated[Path | None, typer.Option(help="Folder of `train-deeplab`.")] = None,
    labeler: Annotated[
        str | None, typer.Option(help="Folder of `train-labeler`: the direct method.")
    ] = None,
    labeled: Annotated[Path | None, typer.Option(help="Annotated folder.")] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Unseen renderings of the demo.")] = False,
    generator: GeneratorDir = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the scores here.")] = None,
    device: Device = "auto",
) -> None:
    """Score a segmenter or a labeler: IoU per class, mIoU with its policy, pixel accuracy."""
    from factory import scoring

    if (model is None) == (labeler is None):
        raise ValueError("found both or none of --model and --labeler, expected exactly one")
    if (labeled is None) != demo:
        raise ValueError("found both or none of --labeled and --demo, expected exactly one")
    if model is not None:
        predictor = scoring.load_segmenter(model, device)
    else:
        predictor = scoring.load_labeler(str(labeler), generator, device)
    scoring.evaluate(predictor, labeled, json_file, console)


@app.command(rich_help_panel=USING)
def predict(
    model: Annotated[Path, typer.Option(help="Folder of `train-deeplab`.")],
    images: Annotated[Path, typer.Option(help="Folder of images, or one file.")],
    out: Out,
    device: Device = "auto",
) -> None:
    """Segment images: `masks/` (index PNG) and `overlays/` in the output folder."""
    from factory import scoring

    scoring.predict(scoring.load_segmenter(model, device), images, out, console)


@app.command(rich_help_panel=USING)
def render_demo(
    out: Out,
    n: Annotated[int, typer.Option("--n", min=1, help="Number of images.")] = 24,
    start: Annotated[int, typer.Option(min=0, help="Index of the first image.")] = 0,
) -> None:
    """Render blood smears with exact masks: the embedded domain, to try things on."""
    from factory.demo.render import render_folder

    render_folder(out, range(start, start + n))
    console.print(f"{n} images and masks in {out}")


def _executor(
    kind: str, workers: int | None, cpus: int, gpus: float | None, address: str | None
) -> Any:
    from factory.executors import make_executor

    return make_executor(
        kind, workers=workers, cpus_per_worker=cpus, gpus_per_worker=gpus, address=address
    )


INTERRUPTED, TERMINATED = 130, 143  # 128 + signal number


def main() -> None:
    """Run the command line; a user's mistake is one line and exit code 1, never a traceback.

    FACTORY_TRACEBACK=1 in the environment shows where the line came from.
    """
    stopped_with = INTERRUPTED

    def terminate(*_: Any) -> None:
        nonlocal stopped_with
        stopped_with = TERMINATED
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminate)
    try:
        app()
    except SystemExit as stop:
        if stop.code != INTERRUPTED:  # what typer makes of a KeyboardInterrupt
            raise
        Console(stderr=True).print("\ninterrupted: run the same command again to go on")
        sys.exit(stopped_with)
    except OSError as error:
        if error.errno == errno.ENOSPC and error.strerror == os.strerror(errno.ENOSPC):
            where = f" while writing {error.filename}" if error.filename else ""
            _fail(f"disk full{where}: free some space and run the same command again")
        _fail(str(error))
    except (ValueError, ImportError) as error:
        _fail(str(error))


def _fail(message: str) -> None:
    if os.environ.get("FACTORY_TRACEBACK"):
        raise  # what is being handled
    line = " ".join(message.split())
    Console(stderr=True, soft_wrap=True).print(f"error: {line}", markup=False, highlight=False)
    sys.exit(1)
