"""Commands that train a generator, a labeler, a segmenter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from factory.cli.application import TRAINING, app, console
from factory.cli.defaults import CommandQuotingDefaults
from factory.cli.options import (
    Address,
    Device,
    EncoderFiles,
    GeneratorDir,
    Out,
    RecipeName,
    Seed,
    Settings,
    as_given,
    dataset_folders,
    writable_file,
)

GENERATOR = "generators.training.config:TrainingConfig"
SEGMENTER = "train_seg.config:SegmenterConfig"


@app.command(rich_help_panel=TRAINING, cls=CommandQuotingDefaults)
def train_generator(
    images: Annotated[Path, typer.Option(help="Folder of unlabelled images.")],
    out: Out,
    kind: Annotated[
        str,
        typer.Option(help="`ddpm`, `factorized`, `stylegan2`; encoders: `mae`, `vdvae`, `e4e`."),
    ] = "ddpm",
    init: Annotated[
        str | None,
        typer.Option(
            help="Generator to start from, which saves steps; for `e4e`, the StyleGAN2 to invert."
        ),
    ] = None,
    distill: Annotated[
        str | None,
        typer.Option(help="Diffusion model to distill into one that samples in few steps."),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(min=8, help=f"Resolution in pixels; by default {{{GENERATOR}.image_size}}."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, help=f"Optimiser steps; for diffusion models by default {{{GENERATOR}.steps}}."
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Images per step; for diffusion models by default {{{GENERATOR}.batch_size}}.",
        ),
    ] = None,
    flips: Annotated[bool | None, typer.Option("--flips", help="Random flips.")] = None,
    quarter_turns: Annotated[
        bool | None, typer.Option("--quarter-turns", help="Random turns by 90 degrees.")
    ] = None,
    settings: Settings = None,
    seed: Seed = None,
    device: Device = "auto",
) -> None:
    """Train a diffusion model, a GAN or an encoder on unlabelled images. Rerun to resume.

    `factory train-generator --images photos --out generator --flips --set "channels=[64,128,256]"`
    """
    from factory.commands.train_generator import GeneratorJob
    from factory.commands.train_generator import train_generator as run

    given = {
        "image_size": image_size,
        "steps": steps,
        "batch_size": batch_size,
        "flips": flips,
        "quarter_turns": quarter_turns,
        "seed": seed,
    }
    run(GeneratorJob(kind, images, out, given, settings or [], init, device, distill), console)


@app.command(rich_help_panel=TRAINING)
def train_labeler(
    out: Out,
    labeled: Annotated[
        Path | None,
        typer.Option(help="Annotated folder: `images/`, `masks/`. Needed by most kinds."),
    ] = None,
    generator: GeneratorDir = None,
    encoder: EncoderFiles = None,
    recipe: RecipeName = None,
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="ensemble|network|both|regions|clusters",
            help="Pixel classifiers on the generator's features (the default); its U-Net, "
            "fine-tuned; both; the regions of a factorized generator, or clusters of features, "
            "which need no --labeled.",
        ),
    ] = None,
    fast: Annotated[
        bool,
        typer.Option(
            "--fast",
            help="Train the ensemble in under a minute, by larger batches; scores are equal.",
        ),
    ] = False,
    folds: Annotated[
        int | None, typer.Option(min=2, help="Train and score on this many random splits instead.")
    ] = None,
    test_images: Annotated[
        int | None, typer.Option(min=1, help="Test images per split; by default a third.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print memory and disk; write nothing.")
    ] = False,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="JSON file for the scores.", callback=writable_file),
    ] = None,
    settings: Settings = None,
    seed: Seed = None,
    device: Device = "auto",
) -> None:
    """Train a labeler on a few annotated images: pixel classifiers, or networks. Rerun to resume.

    `factory train-labeler --generator generator --labeled annotated --out labeler --fast`

    With the features of another network, such as MAE or DINO:

    `factory train-labeler --encoder mae_ffhq.pth --labeled annotated --out labeler`

    Images from `factory sample` name their generator, and are checked against it.

    `--folds 5 --seed 0` gives the DDPM paper's score: mean and std of mIoU over random splits.
    """
    from factory.commands.train_labeler.command import LabelerOptions
    from factory.commands.train_labeler.command import train_labeler as run
    from factory.commands.train_labeler.folds import Folds

    if folds is None and (test_images is not None or json_file is not None):
        raise ValueError("found --test-images or --json without --folds: give --folds 5 too")
    if fast and kind in ("network", "regions", "clusters"):
        raise ValueError(f"found --fast with --kind {kind}, which has no ensemble: leave it out")
    overrides = [
        *([] if kind is None else [f"labeler.kind={kind}"]),
        *(["labeler.training={kind: fast}"] if fast else []),
        *([] if seed is None else [f"labeler.seed={seed}"]),
        *(settings or []),
    ]
    splits = None if folds is None else Folds(folds, test_images, json_file)
    options = LabelerOptions(
        *(labeled, out, recipe, generator, overrides, device, splits),
        is_dry_run=dry_run,
        encoders=encoder or [],
    )
    run(options, console)


@app.command(rich_help_panel=TRAINING, cls=CommandQuotingDefaults)
def train_deeplab(
    context: typer.Context,
    data: Annotated[
        list[Path],
        typer.Option(
            metavar="<path>",
            help="Dataset, annotated folder, or quoted pattern of tars; repeatable.",
            parser=as_given,
            callback=dataset_folders,
        ),
    ],
    out: Out,
    then: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="<path>",
            help="Data of a second stage, `{train_seg.config:ThenConfig.max_steps}` steps unless "
            "`--set then.max_steps=N`; repeatable.",
            parser=as_given,
            callback=dataset_folders,
        ),
    ] = None,
    members: Annotated[
        str | None,
        typer.Option(
            metavar="image=EXT,mask=EXT", help="For tars of other programs: which members to read."
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="For such tars: names in id order, or a classes.json, also with a palette.",
        ),
    ] = None,
    val: Annotated[
        Path | None, typer.Option(help="Validation folder; the best checkpoint on it is kept.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help=f"Optimiser steps, instead of {{{SEGMENTER}.epochs}} epochs."),
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="E.g. `resnet18`, `resnet101`.")] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="`paper` (the default), `modern`: better in equal steps, or `unet`: a small U-Net "
            "for a few labels."
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(help="Start from a generator's U-Net, or from an output of `train-deeplab`."),
    ] = None,
    mix: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Share of each --data in the samples, e.g. 0.9,0.1."),
    ] = None,
    recipe: RecipeName = None,
    settings: Settings = None,
    seed: Seed = None,
    device: Device = "auto",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that share each batch, through Ray Train.")
    ] = None,
    cpus_per_worker: Annotated[
        int | None, typer.Option(min=1, help="Threads per worker; by default the cores, divided.")
    ] = None,
    address: Address = None,
    wandb: Annotated[
        bool, typer.Option("--wandb", help="Also log to Weights & Biases (WANDB_MODE=offline).")
    ] = False,
) -> None:
    """Train DeepLabV3 on datasets, annotated folders, or both. Rerun to resume.

    `factory train-deeplab --data smears --data annotated --mix 0.9,0.1 --out model --preset modern`

    To learn from made images first, and finish on what a person drew:

    `factory train-deeplab --data smears --then annotated --out model --preset modern`

    For webdataset tars that another program wrote:

    `factory train-deeplab --data 'other-{000000..000099}.tar' --members image=jpg,mask=seg.png
    --classes background,cell --out model`

    For other architectures: `--set architecture=Unet`. With a few labels, start from a generator:

    `factory train-deeplab --data annotated --init generator --out model --steps 600`
    """
    from factory.commands.train_deeplab.job import Crew, SegmenterJob
    from factory.commands.train_deeplab.settings import mixture, segmenter_config
    from factory.commands.train_deeplab.tars import tar_reader
    from factory.commands.train_deeplab.training import train_deeplab as run
    from factory.recipe.picture_settings import picture_settings

    # Jobs that Ray starts find RAY_ADDRESS set, and may still train in one process.
    source = context.get_parameter_source("address")
    is_address_given = source is not None and source.name == "COMMANDLINE"
    if not then and any(setting.startswith("then.") for setting in settings or []):
        raise ValueError("found --set then.*, the settings of a second stage: give --then too")
    if workers is None and (cpus_per_worker is not None or is_address_given):
        raise ValueError(
            "found --cpus-per-worker or --address without --workers: give --workers too"
        )
    given = {"max_steps": steps, "encoder": encoder, "seed": seed}
    pictures, overrides = picture_settings(settings)
    config = segmenter_config(data, recipe, preset, given, overrides, init)
    shares = None if mix is None else mixture(mix)
    crew = None if workers is None else Crew(workers, cpus_per_worker, address)
    tars = tar_reader([*data, *(then or [])], members, classes)
    job = SegmenterJob(
        *(data, out, val, config, device, shares, wandb, init, then or []),
        pictures=pictures,
        tars=tars,
    )
    run(job, crew, console)
