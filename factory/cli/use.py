"""Commands that measure, use and convert what was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from factory.cli.application import USING, app, console
from factory.cli.options import (
    BatchSize,
    Device,
    EncoderFiles,
    Images,
    Out,
    SegmenterDir,
    Settings,
    writable_file,
    writable_folder,
)
from train_seg.config import INFERENCE_BATCH_SIZE


@app.command(rich_help_panel=USING)
def evaluate(
    model: Annotated[
        list[Path] | None,
        typer.Option(help="Output of `train-deeplab`; the scores of several are averaged."),
    ] = None,
    labeler: Annotated[
        str | None, typer.Option(help="Output of `train-labeler`, scored without a segmenter.")
    ] = None,
    labeled: Annotated[
        list[Path] | None, typer.Option(help="Annotated folder, or one per model.")
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Unseen renderings of the demo.")] = False,
    encoder: EncoderFiles = None,
    generator: Annotated[
        str | None,
        typer.Option(
            help="Generator of the labeler, if it moved; alone, a factorized generator, whose "
            "regions are scored."
        ),
    ] = None,
    foreground: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLASS",
            help="For regions: class of the foreground; repeatable. By default all but the first.",
        ),
    ] = None,
    val: Annotated[
        Path | None,
        typer.Option(help="For regions: annotated folder to choose the foreground regions on."),
    ] = None,
    image_classes: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV", help="For a class-conditional generator's regions: file names, classes."
        ),
    ] = None,
    splits: Annotated[
        int, typer.Option(min=1, help="Also score this many parts of the test images.")
    ] = 1,
    corruptions: Annotated[
        str | None, typer.Option(help="`all`, `common`, `blur` ... or a list such as `snow,fog`.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="JSON file to write.", callback=writable_file)
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Markdown file to write.", callback=writable_file)
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(help="Folder for PNG plots.", callback=writable_folder)
    ] = None,
    batch_size: BatchSize = INFERENCE_BATCH_SIZE,
    workers: Annotated[int, typer.Option(min=0, help="Processes that corrupt images.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of splits and corruptions.")] = 0,
    settings: Settings = None,
    device: Device = "auto",
) -> None:
    """Score a segmenter or a labeler: IoU, boundary F1, confusion; splits, models, corruptions.

    `factory evaluate --model seed_0 --model seed_1 --labeled test --splits 5 --corruptions all`

    Or the regions of a factorized generator, without any labeler: accuracy, IoU and DICE of the
    foreground, mIoU of the classes.

    `factory evaluate --generator factorized --labeled test`
    """
    from factory.commands import evaluate as scoring
    from factory.recipe.picture_settings import only_pictures

    if generator is not None and not model and labeler is None:
        from factory.commands.evaluate_regions import RegionJob, evaluate_regions

        others = {
            "--demo": demo,
            "--splits": splits > 1,
            "--corruptions": corruptions,
            "--markdown": markdown,
            "--plots": plots,
            "--encoder": encoder,
        }
        if unused := [flag for flag, given in others.items() if given]:
            raise ValueError(f"found {unused[0]}, which does not apply to regions: leave it out")
        if labeled is None or len(labeled) != 1:
            raise ValueError("--generator alone: expected --labeled DIR, one annotated folder")
        job = RegionJob(
            *(generator, labeled[0], val, foreground or [], image_classes, settings or []),
            *(device, batch_size, json_file),
        )
        evaluate_regions(job, console)
        return
    if val or foreground or image_classes:
        raise ValueError(
            "found --val, --foreground or --image-classes, which are for regions: give --generator "
            "alone, or leave them out"
        )
    if bool(labeled) == demo:
        raise ValueError("found both or neither of --labeled and --demo, expected exactly one")
    predictors = scoring.load_predictors(
        *(model or [], labeler, generator, device), encoders=encoder or []
    )
    wanted = scoring.Measurement(
        *(labeled or [], splits, seed, corruptions, workers, batch_size),
        *(json_file, markdown, plots, only_pictures(settings)),
    )
    scoring.evaluate(predictors, wanted, console)


@app.command(rich_help_panel=USING)
def predict(
    images: Images,
    out: Out,
    model: Annotated[Path | None, typer.Option(help="Output of `train-deeplab`.")] = None,
    generator: Annotated[
        str | None,
        typer.Option(help="In its place: a factorized generator, whose regions are written."),
    ] = None,
    more: Annotated[list[str] | None, typer.Argument(metavar="IMAGE", help="More images.")] = None,
    tile: Annotated[
        int | None, typer.Option(min=8, help="Height of tiles in pixels, for large images.")
    ] = None,
    overlap: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of a tile that overlaps the next.")
    ] = 0.25,
    overlays: Annotated[
        bool, typer.Option("--overlays/--no-overlays", help="Whether to write overlays.")
    ] = True,
    batch_size: BatchSize = INFERENCE_BATCH_SIZE,
    settings: Settings = None,
    device: Device = "auto",
) -> None:
    """Segment images: `masks/` (index PNG) and `overlays/` in the output folder.

    Whole images are shrunk to the training size; `--tile` cuts large ones into overlapping tiles
    instead, and uses memory that does not grow with their height.

    `factory predict --model model --images "scans/**/*.tif" --tile 256 --out segmented`

    `factory predict --generator factorized --images photos --out regions
    --set generator.features.region_timestep=30`
    """
    from factory.commands.predict import Prediction
    from factory.commands.predict import predict as run

    job = Prediction(
        *(model, generator, settings or [], device, batch_size, tile, overlap, overlays)
    )
    run(job, [*images, *(more or [])], out, console)


@app.command(rich_help_panel=USING)
def export(
    model: SegmenterDir,
    out: Annotated[
        Path, typer.Option(help="File to write: `.onnx` or `.pt`.", callback=writable_file)
    ],
    format: Annotated[
        Literal["onnx", "torchscript"] | None,
        typer.Option(help="By default from the suffix of the file."),
    ] = None,
    images: Annotated[
        list[str] | None, typer.Option(help="Images to compare masks on, instead of noise.")
    ] = None,
) -> None:
    """Write a segmenter for other runtimes, after checking that the exported masks match.

    The file takes uint8 RGB images of any size and contains normalisation, classes and palette.

    `factory export --model model --out model.onnx --images photos`
    """
    from factory.commands.export import ExportJob
    from factory.commands.export import export as run

    run(ExportJob(model, out, format, images or []), console)


@app.command(rich_help_panel=USING)
def average(
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL...", help="Segmenters, e.g. of `train-deeplab`.")
    ],
    out: Out,
) -> None:
    """Join segmenters into one that averages their class probabilities.

    Other seeds, or other architectures, make different mistakes: the mean is often better than its
    members, and takes their time together. It is used, exported and scored like any segmenter.

    `factory average model_0 model_1 --out mean`
    """
    from factory.commands.average import average as run

    run(models, out, console)


@app.command(rich_help_panel=USING)
def convert(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="A guided-diffusion `.pt`, a StyleGAN2 `.pkl`.")
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder to write.", callback=writable_folder)
    ],
    parametrisation: Annotated[
        Literal["edm", "consistency"] | None,
        typer.Option(help="For a network of openai/consistency_models."),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=8, help="In pixels; by default the coarsest level is 8 x 8.")
    ] = None,
    heads: Annotated[
        int | None, typer.Option(min=1, help="Attention heads, if the same at all levels.")
    ] = None,
    channels_per_head: Annotated[
        int | None, typer.Option(min=1, help="Channels per attention head, instead of `--heads`.")
    ] = None,
    num_heads_upsample: Annotated[
        int | None,
        typer.Option(min=1, help="Attention heads in the decoder, if different."),
    ] = None,
    attention_order: Annotated[
        Literal["legacy", "new"] | None, typer.Option(help="Order of q, k and v.")
    ] = None,
    schedule: Annotated[
        Literal["linear", "cosine"] | None, typer.Option(help="Noise schedule of the training.")
    ] = None,
    train_steps: Annotated[
        int | None, typer.Option(min=2, help="Steps of that schedule (`diffusion_steps`).")
    ] = None,
    rescale_timesteps: Annotated[
        bool | None,
        typer.Option(
            "--rescale-timesteps/--no-rescale-timesteps",
            help="Whether the network was given timesteps on a scale of 1000.",
        ),
    ] = None,
    predicts: Annotated[
        Literal["epsilon", "x_start", "v"] | None, typer.Option(help="What the network predicts.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Whether to try the network on noisy images.")
    ] = True,
) -> None:
    """Turn a published checkpoint into safetensors and JSON. No program in the file is run.

    The options are for diffusion models, and give what cannot be read from the file. What is not
    given is taken from the published network of this shape, else from guided-diffusion's defaults.

    `factory convert lsun_horse.pt horse`
    """
    from factory.commands.convert import convert as run

    given = {
        "parametrisation": parametrisation,
        "image_size": image_size,
        "channels_per_head": channels_per_head,
        "heads": heads,
        "num_heads_upsample": num_heads_upsample,
        "attention_order": attention_order,
        "schedule": schedule,
        "train_steps": train_steps,
        "rescale_timesteps": rescale_timesteps,
        "predicts": predicts,
    }
    run(source, out, given, check, console)


@app.command(rich_help_panel=USING)
def render_demo(
    out: Out,
    n: Annotated[int, typer.Option("--n", min=1, help="Number of images.")] = 24,
    start: Annotated[int, typer.Option(min=0, help="Index of the first image.")] = 0,
) -> None:
    """Render blood smears with exact masks: the embedded domain, for trying things out."""
    from factory.commands.render_demo import render_demo as run

    run(out, start, n, console)
