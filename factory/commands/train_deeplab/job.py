"""The training jobs: folders are read here and handed to the packages that learn from them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from factory.terminal.progress import ProgressLine, quiet_libraries
from factory_core.dataset import (
    CANDIDATES_DIR,
    JOB_NAME,
    MANIFEST_NAME,
    SAMPLES_NAME,
    default_palette,
    read_manifest,
)

if TYPE_CHECKING:
    from generators.base import FeatureMaps, Generator
    from generators.training.config import TrainingConfig
    from train_seg.config import SegmenterConfig
    from train_seg.data.training_data import LabeledImages
    from train_seg.network.segmenter import Segmenter

ENCODE_BATCH = 8


def train_generator(
    kind: str,
    images: Path,
    out: Path,
    given: dict[str, Any],
    overrides: Sequence[str],
    init: str | None,
    device: str,
    console: Console,
) -> None:
    """Train a generator of `kind` on the images of a folder and write it to `out`."""
    from factory.recipe.recipe import build_settings
    from factory.recipe.weights import find_weights
    from factory.terminal.training_progress import TrainingProgress
    from factory_core.annotated.annotations import ImageFolder

    settings, train = _training_of(kind)
    quiet_libraries()
    content = {key: value for key, value in given.items() if value is not None}
    config = build_settings(settings, content, overrides, "training settings")
    size = config.image_size
    dataset = ImageFolder(images, (size, size))
    console.print(f"{len(dataset)} images from {images}, resized to {size} x {size}")
    train(
        dataset,
        out,
        config,
        init=None if init is None else str(find_weights("--init", init)),
        device=device,
        provenance={"images": len(dataset)},
        progress=[TrainingProgress("training", console)],
    )
    console.print(f"generator in {out}; see {out / 'samples'}")


def _training_of(kind: str) -> tuple[type[TrainingConfig], Callable[..., None]]:
    """Settings and training function of a kind of generator."""
    if kind == "ddpm":
        from generators.config import DDPMTrainingConfig
        from generators.ddpm.training import train as train_ddpm

        return DDPMTrainingConfig, train_ddpm
    if kind == "stylegan2":
        from generators.stylegan2.config import StyleGAN2TrainingConfig
        from generators.stylegan2.training import train as train_stylegan2

        return StyleGAN2TrainingConfig, train_stylegan2
    raise ValueError(f"--kind {kind}: expected ddpm or stylegan2")


def encode_batches(generator: Generator, images: Any, console: Console) -> Iterator[FeatureMaps]:
    """Features of images uint8 `[N, 3, H, W]` at native size, a batch at a time."""
    from generators.base import batches

    with ProgressLine("encoding", "images", len(images), console) as line:
        for rows in batches(range(len(images)), min(ENCODE_BATCH, generator.batch_size)):
            yield generator.encode(images[rows.start : rows.stop], rows)
            line.update(rows.stop)


@dataclass(frozen=True)
class SegmenterJob:
    """What `train-deeplab` was given: dataset or annotated folders, and settings.

    `mix` is the share of each of `data` in the samples.
    """

    data: Sequence[Path]
    out: Path
    val: Path | None
    config: SegmenterConfig
    device: str
    mix: Sequence[float] | None = None
    wandb: bool = False

    def read(self) -> tuple[list[Path | LabeledImages], LabeledImages | None]:
        """Training data and validation images as `train_seg.training.train` takes them."""
        dataset = next((read_manifest(d) for d in self.data if is_dataset(d)), None)
        size, classes = self.config.image_size, None
        if dataset is not None:
            size, classes = size or dataset.image_size, dataset.classes
        data = [d if is_dataset(d) else labeled_images(d, size, classes) for d in self.data]
        return data, None if self.val is None else labeled_images(self.val, size, classes)


def train_deeplab(job: SegmenterJob, console: Console) -> Segmenter:
    """Train a segmenter in this process; `ray_training` shares the work among several."""
    from factory.terminal.training_progress import TrainingProgress
    from train_seg.training.train import train

    quiet_libraries()

    data, val = job.read()
    return train(
        data,
        job.out,
        job.config,
        val,
        mix=job.mix,
        device=job.device,
        wandb=job.wandb,
        callbacks=[TrainingProgress("training", console)],
    )


def is_dataset(folder: Path) -> bool:
    """Whether `folder` is a dataset, finished or not, rather than an annotated folder."""
    names = (MANIFEST_NAME, SAMPLES_NAME, f"{CANDIDATES_DIR}/{JOB_NAME}")
    return any((folder / name).is_file() for name in names)


def labeled_images(
    folder: Path, size: tuple[int, int] | None, classes: Sequence[str] | None
) -> LabeledImages:
    """An annotated folder in memory, resized to `size` (None: that of its first image).

    `classes` are those expected in id order; None takes the folder's.
    """
    from factory_core.annotated.annotations import annotated_size, read_annotations
    from train_seg.data.training_data import LabeledImages

    annotations = read_annotations(folder, size or annotated_size(folder), classes)
    return LabeledImages(
        annotations.images,
        annotations.masks,
        annotations.classes,
        annotations.palette or default_palette(len(annotations.classes)),
        str(folder),
    )


def segmenter_config(
    data: Sequence[Path],
    recipe: str | None,
    preset: str | None,
    given: dict[str, Any],
    overrides: Sequence[str],
) -> SegmenterConfig:
    """Settings of the segmenter: of `preset`, of `recipe`, else of what made the first dataset.

    `given` (None = not given) and `overrides` (`KEY=VALUE`, e.g. `augment.hue=0.05`) win. Raises
    ValueError for an unknown preset, or a preset and a recipe.
    """
    from factory.recipe.recipe import build_settings, load_recipe
    from train_seg.config import PRESETS, SegmenterConfig

    content: dict[str, Any] = {}
    made = [d for d in data if is_dataset(d)]
    if preset is not None:
        if recipe is not None:
            raise ValueError("found --preset and --recipe: each is a whole set of settings")
        if preset not in PRESETS:
            raise ValueError(f"--preset {preset}: expected {' or '.join(PRESETS)}")
        content = copy.deepcopy(PRESETS[preset])
    elif recipe is not None:
        content = load_recipe(recipe).segmenter.model_dump(mode="json")
    elif made:
        content = dict(read_manifest(made[0]).recipe.get("segmenter", {}))
    content |= {key: value for key, value in given.items() if value is not None}
    return build_settings(SegmenterConfig, content, overrides, "segmenter settings")
