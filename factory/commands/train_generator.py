"""`factory train-generator`: a generator from a folder of unlabelled images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from factory.recipe.picture_settings import picture_settings
from factory.recipe.settings import build_settings
from factory.recipe.weights import find_weights
from factory.terminal.notes import print_notes
from factory.terminal.progress import ProgressLine, quiet_libraries
from factory.terminal.text import listing

if TYPE_CHECKING:
    from factory_core.images import Pictures
    from generators.training.config import TrainingConfig
    from generators.training.images import TrainingImages

# Kind -> its settings, and the module of its training.
KINDS = {
    "ddpm": ("generators.ddpm.config.DDPMTrainingConfig", "generators.ddpm.training"),
    "factorized": (
        "generators.factorized.config.FactorizedTrainingConfig",
        "generators.factorized.training",
    ),
    "stylegan2": (
        "generators.stylegan2.config.StyleGAN2TrainingConfig",
        "generators.stylegan2.training",
    ),
    "mae": (
        "generators.encoders.mae_config.MAETrainingConfig",
        "generators.encoders.mae_training",
    ),
    "vdvae": (
        "generators.encoders.vdvae_config.VDVAETrainingConfig",
        "generators.encoders.vdvae_training",
    ),
    "e4e": (
        "generators.encoders.e4e_config.E4ETrainingConfig",
        "generators.encoders.e4e_training",
    ),
}
ENCODERS = ("mae", "vdvae", "e4e")  # kinds that make no images


@dataclass(frozen=True)
class GeneratorJob:
    """The options of `train-generator`.

    `kind` is one of KINDS. `given` holds settings with an option of their own (None: not given),
    `overrides` any others as `KEY=VALUE`. `init` is a generator to start from; for `e4e`, the
    StyleGAN2 whose encoder it is. `distill` is a diffusion model to distil, instead of `init`.
    """

    kind: str
    images: Path
    out: Path
    given: Mapping[str, Any]
    overrides: Sequence[str]
    init: str | None
    device: str
    distill: str | None = None


def train_generator(job: GeneratorJob, console: Console) -> None:
    """Train a generator on the images of a folder and write it to `job.out`; resumes.

    Raises:
        ValueError: an unknown kind or setting, an unreadable image, or a training error.
        OSError: no such folder of images, no such weights to start from, or the disk is full.
    """
    from factory.terminal.training_progress import TrainingProgress
    from factory_core.device import naming_memory
    from factory_core.images import measured, remember, remembered
    from factory_core.storage import naming_full_disk
    from generators.ddpm.config import DistillationConfig
    from generators.training.labels import find_labelled

    settings, train = training_of(job.kind) if job.distill is None else _distillation(job)
    quiet_libraries()
    content = {key: value for key, value in job.given.items() if value is not None}
    given, overrides = picture_settings(job.overrides)
    config = build_settings(settings, content, overrides, "training settings")
    flag, source = ("--init", job.init) if job.distill is None else ("--distill", job.distill)
    init = None if source is None else str(find_weights(flag, source))
    files = find_labelled(job.images, labels_of(config)).paths
    pictures = measured(given.over(remembered(init)), files)
    with naming_full_disk(job.out), naming_memory("--batch-size ", config.batch_size):
        train(
            _read(job, config, pictures, console),
            job.out,
            config,
            init=init,
            device=job.device,
            progress=[TrainingProgress("training", console, job.out)],
        )
        remember(job.out, pictures)
    what = "encoder" if job.kind in ENCODERS else "generator"
    console.print(f"{what} in {job.out}; see {job.out / 'samples'}")
    if isinstance(config, DistillationConfig):
        few = f"--set generator.sampler=ddim --set generator.steps={config.sampling_steps}"
        console.print(f"sample it with {few}")


def _read(
    job: GeneratorJob, config: TrainingConfig, pictures: Pictures, console: Console
) -> TrainingImages:
    """Decode the images and report on them.

    Raises ValueError if some cannot be read and `skip_damaged` is not set, or none can.
    """
    from factory_core.images import folder_notes
    from generators.training.images import read_training_images
    from generators.training.labels import FOLDERS

    size, labels = config.image_size, labels_of(config)
    with ProgressLine("reading", "images", 0, console) as line:
        images = read_training_images(
            job.images,
            size,
            job.out,
            lambda done, total: line.update(done, total=total),
            pictures,
            labels,
        )
    damaged = images.damaged
    for reason in listing(list(damaged.values())):
        console.print(reason)
    if damaged and not config.skip_damaged:
        raise ValueError(
            f"{len(damaged)} of {len(images) + len(damaged)} images in {job.images} cannot be "
            "read: repair or delete them, or leave them out with --set skip_damaged=true"
        )
    if not len(images):
        raise ValueError(f"none of the {len(damaged)} images in {job.images} can be read")
    skipped = f"; {len(damaged)} damaged left out" if damaged else ""
    console.print(f"{len(images)} images from {job.images}, resized to {size} x {size}{skipped}")
    if labels != FOLDERS:
        print_notes(console, folder_notes(job.images, pictures))
    if images.classes:
        console.print(f"{len(images.classes)} classes: {', '.join(images.classes)}")
    if images.is_grey:
        console.print("all of them are grey (R = G = B): samples will be grey too")
    return images


def labels_of(config: TrainingConfig) -> str | None:
    """Where the classes of the images are; None if the generator has no classes."""
    from generators.ddpm.config import DDPMTrainingConfig

    return config.labels if isinstance(config, DDPMTrainingConfig) else None


def _distillation(job: GeneratorJob) -> tuple[type[TrainingConfig], Callable[..., None]]:
    """As `training_of`; raises ValueError for options that do not go with `--distill`."""
    from generators.ddpm.config import DistillationConfig
    from generators.ddpm.distillation import train as distil

    if job.init is not None or job.kind != "ddpm":
        other = "--init" if job.init is not None else f"--kind {job.kind}"
        raise ValueError(f"found --distill and {other}: a diffusion model is distilled as it is")
    return DistillationConfig, distil


def training_of(kind: str) -> tuple[type[TrainingConfig], Callable[..., None]]:
    """The settings and the training function of a kind of generator."""
    if kind not in KINDS:
        *first, last = KINDS
        raise ValueError(f"--kind {kind}: expected {', '.join(first)} or {last}")
    settings, training = KINDS[kind]
    module, _, name = settings.rpartition(".")
    # Imported late: each kind needs libraries of its own, which load slowly.
    return getattr(import_module(module), name), import_module(training).train
