"""The difference between a sample and its regeneration, and between different samples.

    python -m benchmarks.regeneration --recipe demo --generator DIR [--n 24] [--json FILE]

Differences are mean absolute grey levels. The tolerance of `factory.annotation.sample_features`
lies between the two. The same samples are made in float32 and bfloat16 with several batch sizes.
JPEGs of a sample, which must be distinguished from it, are also measured.
"""

from __future__ import annotations

import argparse
import io
import itertools
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

import generators
from factory.annotation.sample_features import TOLERANCE_LEVELS, difference
from factory.recipe import generator_recipe
from factory.recipe.weights import find_weights
from factory_core.storage import write_json
from generators.config import GeneratorConfig

BATCHES = (8, 5, 1)
PRECISIONS = ("float32", "bfloat16")
JPEG_QUALITY = 95


def make(config: GeneratorConfig, n: int, precision: str, batch: int) -> torch.Tensor:
    """Samples 0 to n - 1, uint8 `[N, 3, H, W]`."""
    setting = {"precision": precision, "batch_size": batch}
    generator = generators.load(config.model_copy(update=setting), "cpu")
    parts = [range(start, min(start + batch, n)) for start in range(0, n, batch)]
    return torch.cat([generator.sample(part)[0] for part in parts])


def as_jpeg(image: torch.Tensor) -> torch.Tensor:
    """An image uint8 `[3, H, W]` after saving it as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=JPEG_QUALITY)
    with Image.open(buffer) as read:
        return torch.from_numpy(np.array(read)).permute(2, 0, 1)


def measure(config: GeneratorConfig, n: int) -> dict[str, float]:
    """Grey levels: largest for the same samples, smallest for JPEGs and for other samples."""
    made = {way: make(config, n, *way) for way in itertools.product(PRECISIONS, BATCHES)}
    same = [max(difference(a, b)) for a, b in itertools.combinations(made.values(), 2)]
    first = made[PRECISIONS[0], BATCHES[0]]
    jpeg = difference(first, torch.stack([as_jpeg(image) for image in first]))
    others = [difference(first[:-k], first[k:]) for k in range(1, n)]
    return {
        "same sample, at most": max(same),
        f"JPEG of quality {JPEG_QUALITY}, at least": min(jpeg),
        "another sample, at least": min(itertools.chain.from_iterable(others)),
    }


def main() -> None:
    """Measure every generator, print a table, and write JSON on request."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", action="append", default=[], help="preset or file; repeatable")
    parser.add_argument("--generator", action="append", default=[], help="weights; repeatable")
    parser.add_argument("--n", type=int, default=24, help="samples per generator")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    sources = [(recipe, None) for recipe in options.recipe]
    sources += [(None, generator) for generator in options.generator]
    found = {}
    for recipe, weights in sources or [("demo", None)]:
        config = generator_recipe(recipe, weights, []).generator
        path = str(find_weights("generator.weights", config.weights))
        found[recipe or weights] = measure(config.model_copy(update={"weights": path}), options.n)
    table = Table(title=f"mean absolute grey levels (tolerance {TOLERANCE_LEVELS:g})")
    for column in ("generator", *next(iter(found.values()))):
        table.add_column(column, justify="left" if column == "generator" else "right")
    for name, levels in found.items():
        table.add_row(name, *(f"{level:.2f}" for level in levels.values()))
    Console().print(table)
    if options.json is not None:
        write_json(options.json, found)


if __name__ == "__main__":
    main()
