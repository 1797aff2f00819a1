"""The pictures of the documentation, from what the commands of the quick start write.

    factory generate --n 64 --out smears --set dataset.uncertainty_maps=true
    factory render-demo --n 24 --start 100000 --out annotated
    ... the rest of docs/quick-start.md ...
    python docs/site/figures.py --smears smears --annotated annotated --predicted segmented \\
        --unseen unseen/images
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from factory_core.dataset import Sample, overlay, read_manifest, read_samples

IMAGES = Path(__file__).parents[1] / "images"
GAP, SCALE, RADIUS = 10, 2, 10
Tile = np.ndarray  # uint8 [H, W, 3]


def sheet(rows: Sequence[Sequence[Tile]], scale: int = SCALE) -> Image.Image:
    """Rows of enlarged tiles with round corners, on a transparent ground."""
    height, width = (scale * side for side in rows[0][0].shape[:2])
    columns = max(map(len, rows))
    size = (columns * (width + GAP) - GAP, len(rows) * (height + GAP) - GAP)
    canvas = Image.new("RGBA", size, (0, 0, 0, 0))
    corners = Image.new("L", (4 * width, 4 * height))
    box = (0, 0, 4 * width - 1, 4 * height - 1)
    ImageDraw.Draw(corners).rounded_rectangle(box, radius=4 * RADIUS, fill=255)
    corners = corners.resize((width, height), Image.Resampling.LANCZOS)
    for y, row in enumerate(rows):
        for x, tile in enumerate(row):
            picture = Image.fromarray(tile).resize((width, height), Image.Resampling.LANCZOS)
            canvas.paste(picture, (x * (width + GAP), y * (height + GAP)), corners)
    return canvas


def save(picture: Image.Image, name: str) -> None:
    picture.save(IMAGES / f"{name}.webp", quality=88, method=6)


def pixels(sample: Sample) -> Tile:
    return sample.image.transpose(1, 2, 0)


def heat(levels: np.ndarray) -> Tile:
    """Uncertainty `[H, W]`, 0 to 1, from dark violet over orange to yellow."""
    stops = np.array([[24, 14, 50], [106, 53, 192], [226, 96, 84], [250, 214, 90]], np.float32)
    place = np.clip(levels, 0, 1) * (len(stops) - 1)
    low = np.minimum(place.astype(int), len(stops) - 2)
    share = (place - low)[..., None]
    return (stops[low] * (1 - share) + stops[low + 1] * share).astype(np.uint8)


def draw(smears: Path, annotated: Path, unseen: Path, predicted: Path) -> None:
    """Write all pictures to `docs/images`."""
    manifest = read_manifest(smears)
    samples = sorted(read_samples(smears), key=lambda sample: sample.meta["uncertainty"])
    palette = manifest.palette

    def masked(sample: Sample) -> Tile:
        return overlay(pixels(sample), sample.mask, palette)

    shown = samples[1 :: len(samples) // 10][:10]
    save(sheet([[pixels(s) for s in shown], [masked(s) for s in shown]]), "strip")
    shown = samples[-8:]
    largest = max(s.uncertainty.max() for s in shown)
    maps = [heat(s.uncertainty / largest) for s in shown]
    save(sheet([[pixels(s) for s in shown], [masked(s) for s in shown], maps]), "uncertainty")

    def read(folder: Path) -> list[Tile]:
        return [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.iterdir())]

    save(sheet([read(unseen)[:10], read(predicted / "overlays")[:10]]), "predicted")
    images = read(annotated / "images")
    masks = [np.asarray(Image.open(path)) for path in sorted((annotated / "masks").iterdir())]
    drawn = [overlay(i, m, palette) for i, m in zip(images, masks, strict=True)]
    save(sheet([images[:10], drawn[:10]]), "annotated")
    save(sheet([images[10:20]]), "photos")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("smears", "annotated", "unseen", "predicted"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    draw(**vars(parser.parse_args()))
