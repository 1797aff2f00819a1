"""`factory predict`: segment new images, whole or in tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from factory.terminal.text import listing
from factory_core.pictures import Pictures, remembered

if TYPE_CHECKING:
    import torch

    from train_seg.inference.predict import PredictionCounts
    from train_seg.network.segmenter import Segmenter

LARGE = 4  # times the training size: shrinking a whole image by more than that loses detail


@dataclass(frozen=True)
class Prediction:
    """How to run a segmenter, or a factorized `generator`, exactly one of them.

    `settings` are `KEY=VALUE`: of pictures, as far as they differ from the training, and of the
    generator. `tile` is the height of tiles in pixels, `overlap` the share (0-0.9) of a tile that
    overlaps the next; without `tile`, whole images are shrunk to the training size.
    """

    model: Path | None
    generator: str | None
    settings: Sequence[str]
    device: str
    batch_size: int
    tile: int | None
    overlap: float
    overlays: bool


@dataclass(frozen=True)
class Ready:
    """What segments images: `run` takes uint8 `[N, 3, H, W]`, gives class ids `[N, H, W]`."""

    run: Callable[[torch.Tensor], torch.Tensor]
    classes: Sequence[str]
    palette: Sequence[Sequence[int]]
    image_size: tuple[int, int]


def predict(job: Prediction, images: Sequence[str], out: Path, console: Console) -> None:
    """Segment images (files, folders, patterns) at their own size: index PNGs and overlays.

    Raises FileNotFoundError, FileExistsError or ValueError as `find_images`, `Segmenter.load`,
    `RegionFinder.load` and `train_seg.inference.predict.predict`; ValueError, after segmenting the
    others, if some images cannot be read.
    """
    from PIL import Image

    from factory.terminal.notes import print_notes
    from factory.terminal.progress import ProgressLine
    from factory_core.images import find_images, image_notes, left_out, measured, read_image
    from train_seg.inference.predict import predict as write_predictions

    if (job.model is None) == (job.generator is None):
        raise ValueError("found both or neither of --model and --generator, expected exactly one")
    paths = find_images(images)
    files = list(paths.values())
    ready, pictures = _load(job)
    pictures = measured(pictures, files)
    print_notes(console, (*left_out(images), *image_notes(files, pictures)))
    if job.tile is not None:
        Image.MAX_IMAGE_PIXELS = None  # tiles exist for large images
    large: list[str] = []
    with ProgressLine("predicting", "images", len(paths), console, out) as line:

        def read(number: int, path: Path) -> torch.Tensor:
            line.update(number)
            image = read_image(path, pictures=pictures)
            if min(image.shape[1:]) > LARGE * max(ready.image_size):
                large.append(f"{path} ({image.shape[2]} x {image.shape[1]})")
            return image

        readers = {name: partial(read, i, path) for i, (name, path) in enumerate(paths.items(), 1)}
        counts = write_predictions(
            ready.run, readers, out, ready.palette, job.batch_size, job.overlays
        )
    _report(job, counts, ready.classes, out, console)
    if large and job.tile is None and job.model is not None:
        height, width = ready.image_size
        console.print(
            f"{len(large)} of them, such as {large[0]}, were shrunk to the training size, "
            f"{width} x {height}: if objects had full size in the training images, use "
            f"--tile {height}"
        )
    if counts.failed:
        raise ValueError(
            f"{len(counts.failed)} of {len(paths)} images cannot be read: repair them and rerun "
            "the command"
        )


def _load(job: Prediction) -> tuple[Ready, Pictures]:
    """What segments, and how its images are read; raises as `predict`."""
    from factory.recipe.picture_settings import only_pictures

    if job.generator is not None:
        from factory.pipeline.region_finder import RegionFinder

        if job.tile is not None:
            raise ValueError("found --tile with --generator, which sees whole images: leave it out")
        finder = RegionFinder.load(job.generator, job.settings, job.device)
        about = (finder.predict, finder.classes, finder.palette, finder.image_size)
        return Ready(*about), finder.pictures
    from train_seg.network.segmenter import Segmenter

    assert job.model is not None
    pictures = only_pictures(job.settings).over(remembered(job.model))
    model = Segmenter.load(job.model, job.device)
    return Ready(_runner(model, job), model.classes, model.palette, model.image_size), pictures


def _report(
    job: Prediction, counts: PredictionCounts, classes: Sequence[str], out: Path, console: Console
) -> None:
    """Print what could not be read, and what was written where."""
    from factory_core.images import counted

    for reason in listing(list(counts.failed.values())):
        console.print(reason)
    if not counts.images:
        return
    total = sum(counts.class_pixels)
    shares = ", ".join(
        f"{name} {100 * pixels / total:.1f} %"
        for name, pixels in zip(classes, counts.class_pixels, strict=True)
    )
    what = "masks and overlays" if job.overlays else "masks"
    console.print(f"{counted(counts.images, 'image')}: {what} in {out} ({shares})")


def _runner(segmenter: Segmenter, job: Prediction) -> Callable[[torch.Tensor], torch.Tensor]:
    """Images uint8 `[N, 3, H, W]` to class ids uint8 `[N, H, W]`, whole or in tiles."""
    import torch

    from train_seg.inference.tiles import Tiling, predict_tiled

    if job.tile is None:
        return lambda images: segmenter.predict(images, job.batch_size)
    tiling = Tiling.of_height(job.tile, segmenter.image_size, job.overlap)
    device = next(segmenter.network.parameters()).device

    def logits(tiles: torch.Tensor) -> torch.Tensor:
        return segmenter.network(tiles.to(device))

    def run(images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            masks = [predict_tiled(logits, image, tiling, job.batch_size) for image in images]
        return torch.stack(masks)

    return run
