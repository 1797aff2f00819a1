"""Does choosing what to annotate pay? mIoU of labelers on chosen and on random images of the demo.

    python -m benchmarks.choosing

From several pools of renderings, the labels of a few images are used: drawn at random, several
times, or chosen as `factory choose` does. A small fast labeler is trained on each set and scored on
other renderings.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

import numpy as np
import torch

import generators
from factory.annotation.choosing import Candidates, Selection, choose_images, pixel_descriptors
from factory.demo.render import CLASSES, render
from factory.recipe import generator_recipe
from factory.recipe.weights import find_weights
from generators.base import FeatureMaps, Generator, batches
from labelers.config import FastTraining, LabelerConfig
from labelers.labeler import GeneratorInfo, Labeler
from labelers.training.fit import fit
from train_seg.evaluation.metrics import Confusion, scores

POOL, TEST, FIRST_POOL, FIRST_TEST = 150, 80, 600_000, 1_000_000
SIZES = (4, 8, 16)
LABELER = LabelerConfig(members=5, training=FastTraining(steps=200, batch_pixels=256))


class Images:
    """Renderings from `first` on: masks uint8 `[N, H, W]`, features, descriptors."""

    def __init__(self, generator: Generator, first: int, count: int):
        pairs = [render(first + i) for i in range(count)]
        self.images = torch.from_numpy(np.stack([image for image, _ in pairs])).permute(0, 3, 1, 2)
        self.masks = torch.from_numpy(np.stack([mask for _, mask in pairs]))
        self.features = FeatureMaps.concat(
            [generator.encode(self.images[r.start : r.stop], r) for r in batches(range(count), 8)]
        ).to(torch.float32)

    def rows(self, rows: Sequence[int]) -> FeatureMaps:
        """Features of some of them."""
        return FeatureMaps({name: t[list(rows)] for name, t in self.features.items()})


def train(pool: Images, rows: Sequence[int], seed: int) -> Labeler:
    """A labeler on some images of the pool."""
    config = LABELER.model_copy(update={"seed": seed})
    about = GeneratorInfo(digest="demo")
    features, masks = pool.rows(rows), pool.masks[list(rows)]
    return fit(features, masks, config, classes=CLASSES, generator=about, data_digest="")


def miou(labeler: Labeler, test: Images) -> float:
    """On all images of the test set."""
    confusion = Confusion(len(CLASSES))
    for rows in batches(range(len(test.masks)), 16):
        found = labeler.predict(None, test.rows(rows))
        confusion.update(found.mask, test.masks[rows.start : rows.stop])
    return scores(confusion, CLASSES).miou


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pools", type=int, default=4)
    parser.add_argument("--draws", type=int, default=3, help="random draws per pool")
    arguments = parser.parse_args()
    config = generator_recipe(None, "package:factory.demo/generator", []).generator
    weights = str(find_weights("generator.weights", config.weights))
    generator = generators.load(config.model_copy(update={"weights": weights}), "cpu")
    test = Images(generator, FIRST_TEST, TEST)
    found: dict[tuple[str, int], list[float]] = {}
    for number in range(arguments.pools):
        pool = Images(generator, FIRST_POOL + number * POOL, POOL)
        of_features = Candidates(pool.features.pooled())
        of_pixels = Candidates(pixel_descriptors(pool.images))
        sets: list[tuple[str, Selection, Candidates, int]] = [
            *(("random", "random", of_features, draw) for draw in range(arguments.draws)),
            ("diverse, features", "diverse", of_features, 0),
            ("diverse, pixels", "diverse", of_pixels, 0),
        ]
        for name, how, candidates, draw in sets:
            for size in SIZES:
                rows = [c.row for c in choose_images(how, candidates, size, draw)]
                score = miou(train(pool, rows, number), test)
                found.setdefault((name, size), []).append(score)
        known = [c.row for c in choose_images("diverse", of_features, SIZES[0])]
        first = train(pool, known, number)
        rest = [row for row in range(POOL) if row not in known]
        doubts = first.predict(None, pool.rows(rest)).uncertainty.numpy()
        pooled = of_features.descriptors
        judged = Candidates(pooled[rest], doubts, pooled[known])
        for size in SIZES[1:]:
            for how in ("uncertain", "both"):
                more = [rest[c.row] for c in choose_images(how, judged, size - len(known))]
                score = miou(train(pool, [*known, *more], number), test)
                found.setdefault((f"4 diverse, then {how}", size), []).append(score)
        for (name, size), values in sorted(found.items(), key=lambda item: item[0][1]):
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            mean = statistics.fmean(values)
            print(f"{size:3d} images  {name:24s} {mean:.3f} ± {spread:.3f}  n={len(values)}")
        print(flush=True)


if __name__ == "__main__":
    main()
