"""Running a segmenter over images and writing class ids and overlays as PNG.

`predictions.json` marks a folder of predictions and counts what is in it. Images of the same names
may replace them, but no other images are added. A folder with masks but without this file holds
annotations.
"""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from factory_core.dataset import encode_mask, overlay
from factory_core.storage import write_bytes, write_json
from train_seg.config import INFERENCE_BATCH_SIZE
from train_seg.evaluation.evaluate import PredictFn

MASKS_DIR = "masks"
OVERLAYS_DIR = "overlays"
MARKER_NAME = "predictions.json"
MAX_BATCH_PIXELS = 2**22  # logits of the image size take 4 bytes per pixel and class
READ_AHEAD = 2  # images, which may be of 100 megapixels
WRITERS = min(8, os.cpu_count() or 1)  # threads
Readers = Mapping[str, Callable[[], torch.Tensor]]  # images uint8 [3, H, W] by name
BAND_ROWS = 512  # large overlays are drawn in bands, since they pass through float64


@dataclass(frozen=True)
class PredictionCounts:
    """The number of images written, and of pixels per class over all of them.

    `failed` holds the images that could not be read, with one line each.
    """

    images: int
    class_pixels: list[int]
    failed: dict[str, str] = field(default_factory=dict)


def predict(
    predict_fn: PredictFn,
    images: Readers,
    out: str | Path,
    palette: Sequence[Sequence[int]],
    batch_size: int = INFERENCE_BATCH_SIZE,
    overlays: bool = True,
) -> PredictionCounts:
    """Write `out`/masks/NAME.png (class ids) and `out`/overlays/NAME.png for each image.

    Images may have any sizes; consecutive ones of equal size share a batch. A name may contain
    folders (`day/a`). An image whose reader raises ValueError or OSError is left out. `palette` is
    RGB 0-255, one colour per class. Finally, `out`/predictions.json is written with the counts.

    Raises FileExistsError if `out` holds masks or overlays that `predict` did not write, or that it
    wrote for other images.
    """
    folder = Path(out)
    _prepare_folder(folder, images)
    failed: dict[str, str] = {}
    pixels, writing = np.zeros(len(palette), np.int64), list[Future[np.ndarray]]()
    with ThreadPoolExecutor(WRITERS) as pool:  # zlib and numpy run in parallel with the network
        for batch in _batches(_read(images, failed), batch_size):
            masks = predict_fn(torch.stack([image for _, image in batch])).cpu().numpy()
            # One batch is written while the next is segmented; no more batches wait in memory.
            pixels += sum(job.result() for job in writing)
            writing = [
                pool.submit(_write, folder, name, image, mask, palette, overlays)
                for (name, image), mask in zip(batch, masks, strict=True)
            ]
        pixels += sum(job.result() for job in writing)
    for name in failed:
        _remove(folder, name, (MASKS_DIR, OVERLAYS_DIR))  # of an earlier run
    counts = PredictionCounts(len(images) - len(failed), pixels.tolist(), failed)
    write_json(
        folder / MARKER_NAME,
        {"complete": True, **asdict(counts), "palette": [list(c) for c in palette]},
    )
    return counts


def _read(images: Readers, failed: dict[str, str]) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and images, decoded beside the network; why one cannot be read goes into `failed`."""
    readers = iter(images.items())
    with ThreadPoolExecutor(1) as pool:
        ahead = deque((name, pool.submit(read)) for name, read in islice(readers, READ_AHEAD))
        try:
            while ahead:
                name, image = ahead.popleft()
                ahead.extend((name, pool.submit(read)) for name, read in islice(readers, 1))
                try:
                    yield name, image.result()
                except (ValueError, OSError) as error:
                    failed[name] = str(error)
        finally:
            pool.shutdown(cancel_futures=True)  # after Ctrl-C, no more are decoded


def _write(
    out: Path,
    name: str,
    image: torch.Tensor,
    mask: np.ndarray,
    palette: Sequence[Sequence[int]],
    overlays: bool,
) -> np.ndarray:
    """Write the results of one image; returns its number of pixels per class, int64."""
    _write_png(out / MASKS_DIR / f"{name}.png", encode_mask(mask, palette))
    if overlays:
        shown = _overlay(image.permute(1, 2, 0).cpu().numpy(), mask, palette)
        buffer = io.BytesIO()
        # At the default level, compressing a photograph takes longer than everything else.
        Image.fromarray(shown).save(buffer, "PNG", compress_level=1)
        _write_png(out / OVERLAYS_DIR / f"{name}.png", buffer.getvalue())
    else:
        _remove(out, name, (OVERLAYS_DIR,))  # an overlay of an earlier run shows an earlier mask
    pixels = np.zeros(len(palette), np.int64)
    for band in np.array_split(mask, -(-len(mask) // BAND_ROWS)):  # bincount converts to int64
        pixels += np.bincount(band.ravel(), minlength=len(palette))
    return pixels


def _write_png(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)  # a name may contain folders
    write_bytes(path, data)


def _remove(out: Path, name: str, folders: Sequence[str]) -> None:
    for folder in folders:
        (out / folder / f"{name}.png").unlink(missing_ok=True)


def _overlay(image: np.ndarray, mask: np.ndarray, palette: Sequence[Sequence[int]]) -> np.ndarray:
    """`overlay` in bands of rows; each includes a row of its neighbours, for the contours."""
    shown = np.empty_like(image)
    for top in range(0, len(mask), BAND_ROWS):
        end, first = top + BAND_ROWS, max(0, top - 1)
        band = overlay(image[first : end + 1], mask[first : end + 1], palette)
        shown[top:end] = band[top - first : end - first]
    return shown


def _prepare_folder(out: Path, names: Collection[str]) -> None:
    """Create `out` and mark it before its first mask, so that an interrupted run can be repeated.

    Raises FileExistsError if `out` holds masks or overlays without the marker, or of other images
    than `names`.
    """
    is_ours = (out / MARKER_NAME).is_file()
    for folder in (out / MASKS_DIR, out / OVERLAYS_DIR):
        if folder.exists() and not is_ours:
            raise FileExistsError(
                f"{folder} was not written by predict (no {MARKER_NAME} next to it) and "
                "may hold annotations: use another --out"
            )
        found = (
            path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.png")
        )
        if others := sorted(set(found) - set(names)):
            raise FileExistsError(
                f"{folder} holds {len(others)} predictions of other images, such as "
                f"{others[0]}.png: use another --out, or delete {out}"
            )
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / MARKER_NAME, {"complete": False})


def _batches(
    images: Iterator[tuple[str, torch.Tensor]], batch_size: int
) -> Iterator[list[tuple[str, torch.Tensor]]]:
    """Consecutive images of equal size, at most `batch_size` and MAX_BATCH_PIXELS in total."""
    batch: list[tuple[str, torch.Tensor]] = []
    for item in images:
        height, width = item[1].shape[1:]
        most = min(batch_size, max(1, MAX_BATCH_PIXELS // (height * width)))
        if batch and (len(batch) >= most or item[1].shape != batch[0][1].shape):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch
