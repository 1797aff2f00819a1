"""`factory predict`: segment new images, whole or in tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from factory.terminal.text import listing
from factory_core.pictures import DEFAULT_PICTURES, Pictures, remembered

if TYPE_CHECKING:
    import torch

    from train_seg.inference.predict import PredictionCounts
    from train_seg.network.segmenter import Segmenter

LARGE = 4  # times the training size: shrinking a whole image by more than that loses detail


@dataclass(frozen=True)
class Prediction:
    """How to run a segmenter.

    `tile` is the height of tiles in pixels, `overlap` the share (0-0.9) of a tile that overlaps the
    next; without `tile`, whole images are shrunk to the training size. `pictures` is how images are
    read, as far as it differs from the training.
    """

    model: Path
    device: str
    batch_size: int
    tile: int | None
    overlap: float
    overlays: bool
    pictures: Pictures = DEFAULT_PICTURES


def predict(job: Prediction, images: Sequence[str], out: Path, console: Console) -> None:
    """Segment images (files, folders, patterns) at their own size: index PNGs and overlays.

    Raises FileNotFoundError, FileExistsError or ValueError as `find_images`, `Segmenter.load` and
    `train_seg.inference.predict.predict`; ValueError, after segmenting the others, if some images
    cannot be read.
    """
    from PIL import Image

    from factory.terminal.notes import print_notes
    from factory.terminal.progress import ProgressLine
    from factory_core.images import find_images, image_notes, left_out, measured, read_image
    from train_seg.inference.predict import predict as write_predictions
    from train_seg.network.segmenter import Segmenter

    paths = find_images(images)
    files = list(paths.values())
    pictures = measured(job.pictures.over(remembered(job.model)), files)
    print_notes(console, (*left_out(images), *image_notes(files, pictures)))
    segmenter = Segmenter.load(job.model, job.device)
    run = _runner(segmenter, job)
    if job.tile is not None:
        Image.MAX_IMAGE_PIXELS = None  # tiles exist for large images
    large: list[str] = []
    with ProgressLine("predicting", "images", len(paths), console, out) as line:

        def read(number: int, path: Path) -> torch.Tensor:
            line.update(number)
            image = read_image(path, pictures=pictures)
            if min(image.shape[1:]) > LARGE * max(segmenter.image_size):
                large.append(f"{path} ({image.shape[2]} x {image.shape[1]})")
            return image

        readers = {name: partial(read, i, path) for i, (name, path) in enumerate(paths.items(), 1)}
        counts = write_predictions(
            run, readers, out, segmenter.palette, job.batch_size, job.overlays
        )
    _report(job, counts, segmenter.classes, out, console)
    if large and job.tile is None:
        height, width = segmenter.image_size
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
