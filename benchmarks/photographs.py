"""`train-generator` on photographs of 6 megapixels, against plainer ways to feed it.

    python -m benchmarks.photographs [--count 200] [--steps 60] [--size 64] [--json FILE]

The photographs are JPEGs of 3000 x 2000 pixels, made in a temporary folder. All contenders train
the same diffusion model (channels 16, 32, 64, 128; batches of 16) for the same steps, from the
folder to the written generator:

- `at each use`: a plain `Dataset` that opens, decodes and resizes a photograph whenever it is drawn
- `once, whole`: decoded once at full size, in turn, and kept at the size of the model
- `ours`: once, on all cores, and at the smallest scale of the JPEG that is large enough
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from factory.terminal.progress import quiet_libraries
from factory_core.images import image_tensor, load_image
from factory_core.storage import write_json
from generators.ddpm.config import DDPMTrainingConfig
from generators.ddpm.training import train
from generators.training.images import TrainingImages, read_training_images

WIDTH, HEIGHT, QUALITY = 3000, 2000, 90
CHANNELS = (16, 32, 64, 128)
WAYS = ("at each use", "once, whole", "ours")


def write_photographs(folder: Path, count: int) -> None:
    """Smooth shapes with sensor noise; JPEGs of about 2 MB."""
    folder.mkdir(parents=True)
    for index in range(count):
        rng = torch.Generator().manual_seed(index)
        shapes = torch.randn(1, 3, HEIGHT // 100, WIDTH // 100, generator=rng)
        image = 128 + 60 * F.interpolate(shapes, size=(HEIGHT, WIDTH), mode="bicubic")[0]
        image += 4 * torch.randn(image.shape, generator=rng)
        pixels = image.clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"{index:06d}.jpg", quality=QUALITY)


def decode(path: Path, size: int) -> Tensor:
    """As one writes it without thinking of the size: uint8 `[3, size, size]`."""
    return image_tensor(load_image(path), (size, size))


@dataclass(frozen=True)
class Undecoded(TrainingImages):
    """Photographs that stay files."""

    paths: tuple[Path, ...] = ()
    size: int = 64

    def image(self, index: int) -> Tensor:
        return decode(self.paths[index], self.size)


def images_of(way: str, folder: Path, size: int, scratch: Path) -> TrainingImages:
    """The photographs as a contender gives them to the training."""
    if way == "ours":
        return read_training_images(folder, size, scratch, lambda *_: None)
    paths = tuple(sorted(folder.iterdir()))
    if way == "once, whole":
        return TrainingImages.of(torch.stack([decode(path, size) for path in paths]))
    names = {path.name: "" for path in paths}
    nothing = np.broadcast_to(np.uint8(0), (len(paths), 3, size, size))
    return Undecoded(nothing, names, paths=paths, size=size)


@dataclass(frozen=True)
class Timed:
    """Seconds of a contender, from the folder to the written generator."""

    way: str
    reading_sec: float
    training_sec: float

    @property
    def total_sec(self) -> float:
        return self.reading_sec + self.training_sec


def run(count: int, steps: int, size: int, console: Console) -> list[Timed]:
    rows = []
    config = DDPMTrainingConfig(image_size=size, steps=steps, channels=CHANNELS)
    with tempfile.TemporaryDirectory() as folder:
        photographs = Path(folder) / "photographs"
        console.print(f"writing {count} photographs of {WIDTH} x {HEIGHT}")
        write_photographs(photographs, count)
        for way in WAYS:
            out, began = Path(folder) / way, time.perf_counter()
            images = images_of(way, photographs, size, out)
            read = time.perf_counter()
            train(images, out, config)
            rows.append(Timed(way, read - began, time.perf_counter() - read))
            console.print(f"{way}: {rows[-1].total_sec:.1f} s")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--json", type=Path)
    given, console = parser.parse_args(), Console()
    quiet_libraries()
    rows = run(given.count, given.steps, given.size, console)
    table = Table(title=f"{given.count} photographs, {given.steps} steps at {given.size} pixels")
    for column in ("decoded", "reading, s", "training, s", "total, s", "ours is faster"):
        table.add_column(column, justify="left" if column == "decoded" else "right")
    for row in rows:
        times = (row.reading_sec, row.training_sec, row.total_sec)
        ratio = f"{row.total_sec / rows[-1].total_sec:.2f}x"
        table.add_row(row.way, *(f"{value:.1f}" for value in times), ratio)
    console.print(table)
    if given.json:
        settings = {key: getattr(given, key) for key in ("count", "steps", "size")}
        write_json(given.json, {"settings": settings, "rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
