"""The training jobs: folders are read here and handed to the packages that learn from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from factory.dataset import MANIFEST_NAME, default_palette, open_dataset
from factory.progress import ProgressLine, TrainingProgress, quiet_libraries

if TYPE_CHECKING:
    from factory.recipe import Recipe
    from generators import FeatureMaps, Generator, GeneratorConfig
    from labelers import Annotations
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
    from generators.config import DDPMTrainingConfig
    from generators.ddpm.training import train
    from labelers import ImageFolder

    if kind != "ddpm":
        raise ValueError(f"--kind {kind}: expected ddpm")
    quiet_libraries()
    content = {key: value for key, value in given.items() if value is not None}
    config = build_settings(DDPMTrainingConfig, content, overrides, "training settings")
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


def encode_batches(generator: Generator, images: Any, console: Console) -> Iterator[FeatureMaps]:
    """Features of images uint8 `[N, 3, H, W]` at native size, a batch at a time."""
    with ProgressLine("encoding", "images", len(images), console) as line:
        for start in range(0, len(images), ENCODE_BATCH):
            rows = range(start, min(start + ENCODE_BATCH, len(images)))
            yield generator.encode(images[rows.start : rows.stop], rows)
            line.update(rows.stop)


def train_labeler(
    recipe: Recipe, labeled: Path, out: Path, device: str, console: Console
) -> dict[str, float]:
    """Train the ensemble of `recipe` on an annotated folder and write it to `out`."""
    import generators
    from factory.weights import find_weights
    from generators import FeatureMaps
    from labelers import read_annotations
    from labelers.fit import fit
    from labelers.labeler import INFO_FILE, GeneratorInfo, Labeler

    quiet_libraries()
    path = find_weights("--generator", recipe.generator.weights)
    generator = generators.load(recipe.generator.model_copy(update={"weights": str(path)}), device)
    annotations = read_annotations(labeled, generator.image_size, recipe.classes)
    console.print(
        f"{len(annotations.stems)} annotated images, {len(annotations.classes)} classes: "
        + ", ".join(annotations.classes)
    )
    if (out / INFO_FILE).is_file():
        made = Labeler.load(out).info
        ours = (annotations.digest, generator.digest, generator.feature_spec, recipe.labeler)
        if ours != (made.data_digest, made.generator.digest, made.features, made.config):
            raise ValueError(f"{out} holds another labeler: give another --out, or delete it")
        return made.scores
    features = FeatureMaps.concat(list(encode_batches(generator, annotations.images, console)))
    with ProgressLine("training", "steps", 1, console) as line:

        def show(step: int, total: int, loss: float, accuracy: float) -> None:
            line.update(step, f"loss {loss:.4f}  accuracy {accuracy:.3f}", total)

        labeler = fit(
            features,
            annotations.masks,
            recipe.labeler,
            classes=annotations.classes,
            generator=GeneratorInfo(
                digest=generator.digest, config=_noted(recipe).model_dump(mode="json")
            ),
            data_digest=annotations.digest,
            palette=_palette(recipe, annotations),
            progress=show,
        )
    labeler.save(out)
    return labeler.info.scores


def _noted(recipe: Recipe) -> GeneratorConfig:
    """The generator's settings with an address that holds from any folder."""
    weights = recipe.generator.weights
    if Path(weights).exists():
        weights = str(Path(weights).resolve())
    return recipe.generator.model_copy(update={"weights": weights})


def _palette(recipe: Recipe, annotations: Annotations) -> list[list[int]]:
    if recipe.palette is not None:
        return [list(colour) for colour in recipe.palette]
    return annotations.palette or default_palette(len(annotations.classes))


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
    size = job.config.image_size or _dataset_size(job.data)
    data = [d if is_dataset(d) else labeled_images(d, size) for d in job.data]
    segmenter = train(
        data,
        job.out,
        job.config,
        None if job.val is None else labeled_images(job.val, size),
        device=job.device,
        callbacks=[TrainingProgress("training", console)],
    )
    return segmenter.scores


def is_dataset(folder: Path) -> bool:
    """Whether `folder` is a dataset rather than an annotated folder."""
    return (folder / MANIFEST_NAME).is_file()


def _dataset_size(data: Sequence[Path]) -> tuple[int, int] | None:
    """(height, width) of the first dataset; None if there are annotated folders only."""
    sizes = (open_dataset(d).manifest.image_size for d in data if is_dataset(d))
    return next(sizes, None)


def labeled_images(folder: Path, size: tuple[int, int] | None) -> LabeledImages:
    """An annotated folder in memory, resized to `size` (None: that of its first image)."""
    from labelers import list_images, read_annotations, read_image
    from train_seg.data import LabeledImages

    if size is None:
        pictures = folder / "images" if (folder / "images").is_dir() else folder
        height, width = read_image(list_images(pictures)[0]).shape[-2:]
        size = (height, width)
    annotations = read_annotations(folder, size)
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
