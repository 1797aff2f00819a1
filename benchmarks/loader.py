"""The training loader against a plain `Dataset` over the same files in folders.

    python -m benchmarks.loader [--samples 2000] [--workers 1 2] [--json FILE]

The data are made in a temporary folder: smooth 256x256 images with sensor noise, and masks of eight
classes with curved borders. They are written as `factory generate` writes them (PNG in shards of
1000), and again as loose files in `images/` and `masks/`.

The plain way opens each file with Pillow, converts it to an array and a tensor, and leaves
shuffling, batching and processes to torch's `DataLoader`. Both deliver shuffled batches of uint8
images and masks with equally many loader processes, without augmentation, resizing or training.
They are timed in turn over the same number of batches, after the first batches of each.

`resume` is the time to the first batch of a stream that starts at the beginning, in the middle and
late.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from factory_core.dataset import (
    FileInfo,
    Manifest,
    TarWriter,
    Totals,
    default_palette,
    encode_sample,
    sample_key,
)
from factory_core.storage import atomic_file, write_json
from train_seg.config import AugmentConfig
from train_seg.data.augment import Augment
from train_seg.data.training_data import open_training_data

SIZE, CLASSES, SHARD_SAMPLES = 256, 8, 1000
WARM_BATCHES, REPEATS = 4, 3

Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]


# --- data ------------------------------------------------------------------------------------


def make_sample(index: int) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 `[3, H, W]` and mask uint8 `[H, W]`; PNGs of about 120 and 4 KB."""
    rng = torch.Generator().manual_seed(index)
    cells = torch.randn(1, 3, SIZE // 16, SIZE // 16, generator=rng)
    image = 128 + 60 * F.interpolate(cells, size=(SIZE, SIZE), mode="bicubic")[0]
    image += 4 * torch.randn(image.shape, generator=rng)
    areas = F.interpolate(
        torch.randn(1, CLASSES, 8, 8, generator=rng), size=(SIZE, SIZE), mode="bicubic"
    )
    pixels = image.clamp(0, 255).to(torch.uint8)
    return pixels.numpy(), areas[0].argmax(0).to(torch.uint8).numpy()


def write_both(folder: Path, samples: int) -> None:
    """Write a finished dataset to `folder`/shards and the same files to `folder`/loose."""
    dataset, loose = folder / "dataset", folder / "loose"
    for part in (dataset / "shards", loose / "images", loose / "masks"):
        part.mkdir(parents=True)
    palette, infos = default_palette(CLASSES), []
    for number, first in enumerate(range(0, samples, SHARD_SAMPLES)):
        path = dataset / "shards" / f"noise-{number:06d}.tar"
        indices = range(first, min(first + SHARD_SAMPLES, samples))
        with atomic_file(path) as file:
            tar = TarWriter(file)
            for index in indices:
                key = sample_key(index)
                members = encode_sample(key, *make_sample(index), palette, {"index": index})
                tar.add(members)
                files = {name.split(".", 1)[1]: data for name, data in members}
                (loose / "images" / f"{key}.png").write_bytes(files["png"])
                (loose / "masks" / f"{key}.png").write_bytes(files["seg.png"])
            tar.close()
        infos.append(FileInfo.of(path, len(indices)))
    (dataset / "samples.parquet").touch()
    Manifest(
        name="noise",
        recipe_digest="",
        recipe={},
        weights={},
        source={},
        classes=[f"class_{i}" for i in range(CLASSES)],
        palette=palette,
        image_size=(SIZE, SIZE),
        image_format="png",
        shards=infos,
        samples=FileInfo.of(dataset / "samples.parquet", 0),
        totals=Totals(candidates=samples, kept=samples, dropped=0, bytes=0, class_pixels=[]),
        uncertainty_threshold=0.0,
    ).write(dataset)


# --- the two loaders -------------------------------------------------------------------------


class PlainFolder(Dataset):
    """Files in folders, opened one by one: images uint8 `[3, H, W]`, masks uint8 `[H, W]`."""

    def __init__(self, folder: Path):
        self.images = sorted((folder / "images").iterdir())
        self.masks = sorted((folder / "masks").iterdir())

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = torch.from_numpy(np.array(Image.open(self.images[index]).convert("RGB")))
        mask = torch.from_numpy(np.array(Image.open(self.masks[index])))
        return image.permute(2, 0, 1), mask


def plain(folder: Path, batch_size: int, workers: int) -> Batches:
    """Endless shuffled batches of the loose files."""
    loader = DataLoader(
        PlainFolder(folder / "loose"),
        batch_size,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        persistent_workers=workers > 0,
    )
    while True:
        yield from loader


def ours(folder: Path, batch_size: int, workers: int, start_step: int = 0) -> Batches:
    """Endless shuffled batches of the shards."""
    data = open_training_data(
        [folder / "dataset"], lambda size: Augment(AugmentConfig(), size), num_workers=workers
    )
    return data.source.batches(batch_size, start_step)


# --- measuring -------------------------------------------------------------------------------


def first_batch_sec(folder: Path, batch_size: int, start_step: int) -> float:
    """Seconds from opening the dataset to the batch of a step."""
    started = time.perf_counter()
    next(ours(folder, batch_size, 0, start_step))
    return time.perf_counter() - started


def check_same_pixels(folder: Path) -> None:
    """Check that both ways deliver the same images and masks."""
    samples = len(PlainFolder(folder / "loose"))
    sums = []
    for make in (plain, ours):
        pairs = itertools.islice(make(folder, 1, 0), samples)
        sums.append(sorted((int(i.long().sum()), int(m.long().sum())) for i, m in pairs))
    if sums[0] != sums[1]:
        raise SystemExit("the two loaders deliver different pixels: speeds are not comparable")


def rates(folder: Path, batch_size: int, workers: int, samples: int) -> dict[str, list[float]]:
    """Images/s of both ways over `samples` images, REPEATS times, in turn."""
    found: dict[str, list[float]] = {"plain": [], "ours": []}
    ways: dict[str, Callable[[Path, int, int], Batches]] = {"plain": plain, "ours": ours}
    for _ in range(REPEATS):
        for name, make in ways.items():
            stream = make(folder, batch_size, workers)
            for _ in range(WARM_BATCHES):
                next(stream)
            started, count = time.perf_counter(), 0
            while count < samples:
                images, _ = next(stream)
                count += len(images)
            found[name].append(count / (time.perf_counter() - started))
            del stream  # ends the loader processes
    return found


def measure(samples: int, batch_size: int, workers: Sequence[int]) -> dict[str, Any]:
    """Images/s of both ways and their ratio, per number of loader processes; time to resume."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_both(folder, samples)
        check_same_pixels(folder)
        result: dict[str, Any] = {"samples": samples, "batch_size": batch_size, "workers": {}}
        for count in workers:
            found = rates(folder, batch_size, count, samples)
            plainly, ourselves = (statistics.median(found[way]) for way in ("plain", "ours"))
            pairs = zip(found["ours"], found["plain"], strict=True)
            result["workers"][count] = {
                "plain_images_per_sec": plainly,
                "ours_images_per_sec": ourselves,
                "ratio": ourselves / plainly,
                "ratios": [a / b for a, b in pairs],
            }
        epoch = samples // batch_size
        steps = (0, epoch // 2, 20 * epoch + epoch // 2)
        result["resume_sec"] = {s: first_batch_sec(folder, batch_size, s) for s in steps}
    return result


def show(found: dict[str, Any]) -> None:
    """Print the figures."""
    title = f"{found['samples']} samples of {SIZE}x{SIZE} PNG, batches of {found['batch_size']}"
    table = Table(title=title)
    for column in ("loader processes", "plain, images/s", "ours, images/s", "ratio", "worst"):
        table.add_column(column, justify="right")
    for workers, run in found["workers"].items():
        table.add_row(
            str(workers),
            f"{run['plain_images_per_sec']:.0f}",
            f"{run['ours_images_per_sec']:.0f}",
            f"{run['ratio']:.2f}",
            f"{min(run['ratios']):.2f}",
        )
    Console().print(table)
    for step, seconds in found["resume_sec"].items():
        print(
            f"first batch of a stream from step {step}: {seconds:.2f} s, without loader processes"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(options.samples, options.batch_size, options.workers)
    show(found)
    if options.json:
        write_json(options.json, found)


if __name__ == "__main__":
    main()
