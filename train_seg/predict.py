"""Running a segmenter over images and writing what it sees: class ids and overlays as PNG.

`predictions.json` marks a folder of predictions, which may be replaced. A folder with masks but
without it is somebody's annotations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from factory.dataset import encode_mask, encode_rgb, overlay, write_bytes, write_json
from train_seg.evaluate import PredictFn

MASKS_DIR = "masks"
OVERLAYS_DIR = "overlays"
MARKER_NAME = "predictions.json"


@dataclass(frozen=True)
class PredictionCounts:
    """How many images were written, and pixels a class over all of them."""

    images: int
    class_pixels: list[int]


def predict(
    predict_fn: PredictFn,
    images: Iterable[tuple[str, torch.Tensor]],
    out: str | Path,
    palette: Sequence[Sequence[int]],
    batch_size: int = 16,
) -> PredictionCounts:
    """Write `out`/masks/NAME.png (class ids) and `out`/overlays/NAME.png for each (name, image).

    Images are uint8 `[3, H, W]` of any sizes; neighbours of equal size share a batch. `palette`
    is RGB 0-255, one colour a class. `out`/predictions.json holds the counts, once complete.

    Raises:
        FileExistsError: `out` holds masks or overlays that `predict` did not write.
        ValueError: two images have the same name, so that one result would replace the other.
    """
    _prepare_folder(Path(out))
    seen: set[str] = set()
    pixels = np.zeros(len(palette), np.int64)
    for batch in _batches(images, batch_size):
        masks = predict_fn(torch.stack([image for _, image in batch])).cpu().numpy()
        for (name, image), mask in zip(batch, masks, strict=True):
            if name in seen:
                raise ValueError(f"two images are called '{name}': rename one, or use two --out")
            seen.add(name)
            write_bytes(Path(out) / MASKS_DIR / f"{name}.png", encode_mask(mask, palette))
            shown = overlay(image.permute(1, 2, 0).cpu().numpy(), mask, palette)
            write_bytes(Path(out) / OVERLAYS_DIR / f"{name}.png", encode_rgb(shown))
            pixels += np.bincount(mask.ravel(), minlength=len(palette))
    counts = PredictionCounts(len(seen), pixels.tolist())
    write_json(
        Path(out) / MARKER_NAME,
        {"complete": True, **asdict(counts), "palette": [list(c) for c in palette]},
    )
    return counts


def _prepare_folder(out: Path) -> None:
    """Make the folders, and mark `out` before its first mask: an interrupted run may be repeated.

    Raises FileExistsError if `out` holds masks or overlays without the mark.
    """
    if not (out / MARKER_NAME).is_file():
        for name in (MASKS_DIR, OVERLAYS_DIR):
            if (out / name).exists():
                raise FileExistsError(
                    f"{out / name} was not written by predict (no {MARKER_NAME} beside it) and "
                    "could be annotations: use another --out"
                )
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / MARKER_NAME, {"complete": False})
    for name in (MASKS_DIR, OVERLAYS_DIR):
        (out / name).mkdir(exist_ok=True)


def _batches(
    images: Iterable[tuple[str, torch.Tensor]], batch_size: int
) -> Iterator[list[tuple[str, torch.Tensor]]]:
    """Consecutive images of equal size, at most `batch_size` together."""
    batch: list[tuple[str, torch.Tensor]] = []
    for item in images:
        if batch and (len(batch) == batch_size or item[1].shape != batch[0][1].shape):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch
