"""`factory export`: a segmenter as a file for another runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from train_seg.inference.export import Format

CHECK_IMAGES = 16  # at most, on which the masks are compared


@dataclass(frozen=True)
class ExportJob:
    """The options of `export`: `format` None means that the suffix of `out` decides.

    `images` are files, folders or patterns to compare masks on; without any, noise is used.
    """

    model: Path
    out: Path
    format: Format | None
    images: Sequence[str]


def export(job: ExportJob, console: Console) -> None:
    """Write a segmenter as ONNX or TorchScript after checking that the exported masks match.

    Raises as `train_seg.inference.export.export`, `Segmenter.load` and `find_images`.
    """
    from factory_core.images import (
        DEFAULT_PICTURES,
        find_images,
        measured,
        read_image,
        remembered,
    )
    from factory_core.spacing import spaced
    from train_seg.inference import export as exporting
    from train_seg.network.segmenter import Segmenter

    format = exporting.pick_format(job.out, job.format)
    if format == "onnx":
        exporting.require_onnx()
    paths = list(find_images(job.images).values())
    chosen = [paths[i] for i in spaced(len(paths), CHECK_IMAGES)]
    segmenter = Segmenter.load(job.model, "cpu")
    pictures = measured(remembered(job.model) or DEFAULT_PICTURES, paths)
    images = [read_image(path, pictures=pictures) for path in chosen]
    check = exporting.export(segmenter, job.out, format, images)
    compared = f"{len(chosen)} images" if chosen else "images of noise in three sizes"
    console.print(
        f"{format} in {job.out} ({job.out.stat().st_size / 1e6:.1f} MB): the same masks on "
        f"{compared} ({check.differing} of {check.pixels} pixels differ, logits by "
        f"{check.logit_error:.0e})"
    )
