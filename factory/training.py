"""The training jobs: folders are read here and handed to the packages that learn from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from factory.dataset import MANIFEST_NAME, default_palette, open_dataset
from factory.progress import ProgressLine, TrainingProgress, quiet_libraries

if TYPE_CHECKING:
    from generators import FeatureMaps, Generator
    from generators.training_config import TrainingConfig
    from train_seg.config import SegmenterConfig
    from train_seg.data import LabeledImages

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
    from factory.recipe import build_settings
    from factory.weights import find_weights
    from labelers import ImageFolder

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


def encode_batches(
    generator: Generator, images: Any, console: Console, starts: range | None = None
) -> Iterator[FeatureMaps]:
    """Features of images uint8 `[N, 3, H, W]` at native size, a batch at a time.

    `starts` holds the first image of each batch; by default all images, ENCODE_BATCH at a time.
    """
    starts = starts or range(0, len(images), ENCODE_BATCH)
    with ProgressLine("encoding", "images", len(images), console) as line:
        for start in starts:
            rows = range(start, min(start + starts.step, len(images)))
            yield generator.encode(images[rows.start : rows.stop], rows)
            line.update(rows.stop)


@dataclass(frozen=True)
class SegmenterJob:
    """What `train-deeplab` was given: dataset or annotated folders, and settings."""

    data: Sequence[Path]
    out: Path
    val: Path | None
    config: SegmenterConfig
    device: str


def train_deeplab(job: SegmenterJob, console: Console) -> dict[str, Any]:
    """Train DeepLabV3 on datasets and annotated folders; the scores that chose the weights."""
    from train_seg.train import train

    quiet_libraries()
    dataset = next((open_dataset(d).manifest for d in job.data if is_dataset(d)), None)
    size, classes = job.config.image_size, None
    if dataset is not None:
        size, classes = size or dataset.image_size, dataset.classes
    data = [d if is_dataset(d) else labeled_images(d, size, classes) for d in job.data]
    segmenter = train(
        data,
        job.out,
        job.config,
        None if job.val is None else labeled_images(job.val, size, classes),
        device=job.device,
        callbacks=[TrainingProgress("training", console)],
    )
    return segmenter.scores


def is_dataset(folder: Path) -> bool:
    """Whether `folder` is a dataset rather than an annotated folder."""
    return (folder / MANIFEST_NAME).is_file()


def labeled_images(
    folder: Path, size: tuple[int, int] | None, classes: Sequence[str] | None
) -> LabeledImages:
    """An annotated folder in memory, resized to `size` (None: that of its first image).

    `classes` are those expected in id order; None takes the folder's.
    """
    from labelers import annotated_size, read_annotations
    from train_seg.data import LabeledImages

    annotations = read_annotations(folder, size or annotated_size(folder), classes)
    return LabeledImages(
        annotations.images,
        annotations.masks,
        annotations.classes,
        annotations.palette or default_palette(len(annotations.classes)),
        str(folder),
    )


def segmenter_config(
    data: Sequence[Path], recipe: str | None, given: dict[str, Any], overrides: Sequence[str]
) -> SegmenterConfig:
    """Settings of the segmenter: of `recipe`, else of the recipe that made the first dataset.

    `given` (None = not given) and `overrides` (`KEY=VALUE`, e.g. `augment.hue=0.05`) win.
    """
    from factory.recipe import build_settings, load_recipe
    from train_seg.config import SegmenterConfig

    content: dict[str, Any] = {}
    made = [d for d in data if is_dataset(d)]
    if recipe is not None:
        content = load_recipe(recipe).segmenter.model_dump(mode="json")
    elif made:
        content = dict(open_dataset(made[0]).manifest.recipe.get("segmenter", {}))
    content |= {key: value for key, value in given.items() if value is not None}
    return build_settings(SegmenterConfig, content, overrides, "segmenter settings")
