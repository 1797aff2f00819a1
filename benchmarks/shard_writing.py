"""The speed of writing shards, against `tarfile` and Pillow alone on the same images.

    python -m benchmarks.shard_writing [--samples 200] [--repeats 7] [--json FILE]

Ours encodes each sample, writes a reproducible tar under a temporary name while hashing it, flushes
it to disk and renames it. Plain only writes the same three members with the defaults of Pillow and
`tarfile`. Both use the same compression: PNG at Pillow's default level, JPEG at quality 95 without
subsampling. They run in turn, on one thread.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from factory_core.dataset import (
    FileInfo,
    ImageFormat,
    TarWriter,
    default_palette,
    encode_sample,
    sample_key,
)
from factory_core.storage import atomic_file, write_json

SIZE = 256
CLASSES = 5
PALETTE = default_palette(CLASSES)


@dataclass(frozen=True)
class Picture:
    """One sample: image uint8 `[3, H, W]`, mask uint8 `[H, W]`, and the content of its .json."""

    key: str
    image: np.ndarray
    mask: np.ndarray
    meta: dict[str, Any]


def make_up(count: int) -> list[Picture]:
    """Blobs with a little grain, which compress about like photographs; masks of the blobs."""
    random = torch.Generator().manual_seed(0)
    pictures = []
    for index in range(count):
        coarse = torch.rand(1, 3, 16, 16, generator=random)
        smooth = torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bicubic")[0]
        grain = torch.randn(3, SIZE, SIZE, generator=random) * 0.02
        image = ((smooth + grain).clamp(0, 1) * 255).byte().numpy()
        mask = (smooth[0].clamp(0, 0.999) * CLASSES).byte().numpy()
        counts = np.bincount(mask.ravel(), minlength=CLASSES).tolist()
        meta = {"index": index, "seed": index, "uncertainty": 0.125, "class_pixels": counts}
        pictures.append(Picture(sample_key(index), image, mask, meta))
    return pictures


def ours(path: Path, pictures: Sequence[Picture], image_format: ImageFormat) -> None:
    """Write a shard as a worker does, including its size and sha256."""
    with atomic_file(path) as file:
        tar = TarWriter(file)
        for p in pictures:
            tar.add(encode_sample(p.key, p.image, p.mask, PALETTE, p.meta, image_format))
        tar.close()
    FileInfo.written(file, path.name, len(pictures))


def plain(
    path: Path,
    pictures: Sequence[Picture],
    image_format: ImageFormat,
    palette: Sequence[Sequence[int]] = PALETTE,
) -> None:
    """Write the same members in plain code."""
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(palette)] = palette
    colours[255] = 255
    kind: dict[str, Any] = {"format": "PNG"}
    if image_format == "jpg":
        kind = {"format": "JPEG", "quality": 95, "subsampling": 0}
    with tarfile.open(path, "w") as tar:
        for p in pictures:
            image, mask = io.BytesIO(), io.BytesIO()
            Image.fromarray(p.image.transpose(1, 2, 0)).save(image, **kind)
            ids = Image.fromarray(p.mask)
            ids.putpalette(colours.tobytes())
            ids.save(mask, "PNG")
            members = {
                image_format: image.getvalue(),
                "json": json.dumps(p.meta).encode(),
                "seg.png": mask.getvalue(),
            }
            for extension, data in members.items():
                info = tarfile.TarInfo(f"{p.key}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def seconds(function: Callable[[], None]) -> float:
    """Wall-clock seconds of one call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def measure(folder: Path, samples: int, repeats: int, image_format: ImageFormat) -> dict[str, Any]:
    """Samples/s of both, and the median ratio of consecutive runs."""
    pictures = make_up(samples)
    times: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(repeats + 1):
        for name, write in (("ours", ours), ("plain", plain)):
            path = folder / f"{name}.tar"
            times[name].append(seconds(partial(write, path, pictures, image_format)))
    warm = {name: found[1:] for name, found in times.items()}
    pairs = zip(warm["ours"], warm["plain"], strict=True)
    return {
        "image_format": image_format,
        "samples": samples,
        "mib": (folder / "ours.tar").stat().st_size / 2**20,
        "ours_samples_per_sec": samples / statistics.median(warm["ours"]),
        "plain_samples_per_sec": samples / statistics.median(warm["plain"]),
        "speed_of_plain": statistics.median(plain / ours for ours, plain in pairs),
    }


def main() -> None:
    """Measure both formats, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="folder to write to: on a disk, not in memory")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        results = [
            measure(Path(name), options.samples, options.repeats, image_format)
            for image_format in ("png", "jpg")
        ]
    table = Table(title=f"shards of {options.samples} samples of {SIZE} x {SIZE}")
    for column in ("images", "MiB", "ours, samples/s", "plain, samples/s", "of plain"):
        table.add_column(column)
    for r in results:
        table.add_row(
            r["image_format"],
            f"{r['mib']:.1f}",
            f"{r['ours_samples_per_sec']:.0f}",
            f"{r['plain_samples_per_sec']:.0f}",
            f"{r['speed_of_plain']:.1%}",
        )
    Console().print(table)
    if options.json:
        write_json(options.json, results)


if __name__ == "__main__":
    main()
