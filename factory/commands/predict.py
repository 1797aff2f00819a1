"""The jobs that use a segmenter: on new images, and as a file for another runtime."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    import torch

    from train_seg.inference.export import Format
    from train_seg.network.segmenter import Segmenter

CHECK_IMAGES = 16  # of a folder, compared with an exported model
LARGE = 4  # times the size of training: details are lost if the whole image is shrunk to that


@dataclass(frozen=True)
class Prediction:
    """How to run a segmenter: whole images shrunk to the size of training, or tiles of them."""

    model: Path
    device: str = "auto"
    batch_size: int = 16
    tile: int | None = None
    overlap: float = 0.25
    overlays: bool = True


def predict(job: Prediction, images: Sequence[str], out: Path, console: Console) -> None:
    """Segment images (files, folders, patterns) at their own size: index PNG and overlay.

    Raises FileNotFoundError or ValueError for what `find_images`, `Segmenter.load` or
    `train_seg.inference.predict.predict` refuse.
    """
    from PIL import Image

    from factory.terminal.progress import ProgressLine
    from factory_core.images import read_image
    from train_seg.inference.predict import predict as write_predictions
    from train_seg.network.segmenter import Segmenter

    paths = find_images(images)
    segmenter = Segmenter.load(job.model, job.device)
    run = _runner(segmenter, job)
    if job.tile is not None:
        Image.MAX_IMAGE_PIXELS = None  # large images are what tiles are for
    large: list[str] = []
    with ProgressLine("predicting", "images", len(paths), console) as line:

        def read() -> Iterator[tuple[str, torch.Tensor]]:
            for number, (name, path) in enumerate(paths.items(), 1):
                image = read_image(path)
                if min(image.shape[1:]) > LARGE * max(segmenter.image_size):
                    large.append(f"{path} ({image.shape[2]} x {image.shape[1]})")
                yield name, image
                line.update(number)

        counts = write_predictions(
            run, read(), out, segmenter.palette, job.batch_size, job.overlays
        )
    total = sum(counts.class_pixels)
    shares = ", ".join(
        f"{name} {100 * pixels / total:.1f} %"
        for name, pixels in zip(segmenter.classes, counts.class_pixels, strict=True)
    )
    what = "masks and overlays" if job.overlays else "masks"
    console.print(f"{counts.images} images: {what} in {out} ({shares})")
    if large and job.tile is None:
        height, width = segmenter.image_size
        console.print(
            f"{len(large)} of them, such as {large[0]}, were shrunk to the {width} x {height} of "
            f"training: if objects had their full size there, use --tile {height}"
        )


def find_images(given: Sequence[str]) -> dict[str, Path]:
    """Image files by the name of their results: of files, folders, and patterns (`day*/*.jpg`).

    The name is that of the file without suffix; with a pattern it keeps the folders below the
    pattern's fixed part.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: a folder or pattern holds no image, or two images share a name.
    """
    found: dict[str, Path] = {}
    for text in given:
        for name, path in _expand(text):
            other = found.setdefault(name, path)
            if other.resolve() != path.resolve():
                raise ValueError(
                    f"{other} and {path} would both be written as {name}.png: rename one, or use "
                    "two --out"
                )
    return found


def _expand(text: str) -> list[tuple[str, Path]]:
    from factory_core.images import IMAGE_SUFFIXES, list_images

    path = Path(text)
    if path.is_dir():
        return [(p.stem, p) for p in list_images(path)]
    if path.is_file():
        return [(path.stem, path)]
    if not glob.has_magic(text):
        raise FileNotFoundError(f"--images {text}: no such file or folder")
    parts = path.parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    base = Path(*parts[:fixed])
    paths = [Path(p) for p in sorted(glob.glob(text, recursive=True))]
    images = [p for p in paths if p.is_file() and p.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise ValueError(f"--images {text}: no image matches this pattern")
    return [(str(p.relative_to(base).with_suffix("")), p) for p in images]


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


def export(
    model: Path, out: Path, asked: Format | None, images: Sequence[str], console: Console
) -> None:
    """Write a segmenter as ONNX or TorchScript, once it was seen to give the same masks.

    Raises as `train_seg.inference.export.export`, `Segmenter.load` and `find_images`.
    """
    from factory_core.images import read_image
    from train_seg.inference import export as exporting
    from train_seg.network.segmenter import Segmenter

    format = exporting.pick_format(out, asked)
    if format == "onnx":
        exporting.require_onnx()
    paths: list[Any] = list(find_images(images).values())
    chosen = paths[:: max(1, len(paths) // CHECK_IMAGES)][:CHECK_IMAGES]
    segmenter = Segmenter.load(model, "cpu")
    check = exporting.export(segmenter, out, format, [read_image(path) for path in chosen])
    seen = f"{len(chosen)} images" if chosen else "images of noise in three sizes"
    console.print(
        f"{format} in {out} ({out.stat().st_size / 1e6:.1f} MB): the same masks on {seen} "
        f"({check.differing} of {check.pixels} pixels differ, logits by {check.logit_error:.0e})"
    )
