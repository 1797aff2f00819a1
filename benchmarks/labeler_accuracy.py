"""Held-out mIoU of a labeler on real images: the plain implementation, `reference` and `fast`.

    python -m benchmarks.labeler_accuracy --data DIR [--generator DIR] [--json FILE]

`--data` holds the annotated folders `labeled/` and `test/`. All ways train on the same features.
Each is repeated with several seeds, which also shows how much the seed matters.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import generators
from benchmarks import plain_labeler as plain
from factory.annotation.encoding import encode_batches
from factory.recipe.weights import find_weights
from factory_core.annotated.annotations import Annotations, read_annotations
from factory_core.device import pick_dtype
from factory_core.images import IGNORE
from factory_core.storage import write_json
from generators.base import FeatureMaps
from generators.ddpm.config import DDPMConfig
from labelers.config import FastTraining, LabelerConfig, ReferenceTraining
from labelers.labeler import GeneratorInfo
from labelers.training.feature_store import FeatureStore
from labelers.training.fit import fit
from train_seg.evaluation.metrics import POLICY_MIOU, Confusion, scores

WAYS: dict[str, ReferenceTraining | FastTraining | None] = {
    "plain": None,
    "reference": ReferenceTraining(),
    "reference, float32": ReferenceTraining(precision="float32"),
    "fast": FastTraining(),
    "fast, float32": FastTraining(precision="float32"),
}
CPU = torch.device("cpu")
Predict = Callable[[FeatureMaps], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Part:
    """An annotated folder and its features."""

    annotations: Annotations
    features: FeatureMaps


def encode(data: Path, weights: str, console: Console) -> tuple[Part, Part]:
    """Features of `labeled/` and `test/`, in float32."""
    path = str(find_weights("--generator", weights))
    generator = generators.load(DDPMConfig(weights=path), "cpu")
    parts = []
    for name in ("labeled", "test"):
        annotations = read_annotations(data / name, generator.image_size)
        batches = list(encode_batches(generator, annotations.images, console))
        parts.append(Part(annotations, FeatureMaps.concat(batches)))
    return parts[0], parts[1]


def train(way: str, part: Part, seed: int) -> Predict:
    """A function that labels the features of an image: mask and JS divergence `[1, H, W]`."""
    annotations, training = part.annotations, WAYS[way]
    classes, size = annotations.classes, annotations.masks.shape[1:]
    config = LabelerConfig(seed=seed, training=training or ReferenceTraining())
    if training is None:
        hidden, members = config.hidden_for(len(classes)), config.members
        ensemble = plain.train_ensemble(
            part.features, annotations.masks, len(classes), hidden, members, seed * members
        )

        def predict(features: FeatureMaps) -> tuple[torch.Tensor, torch.Tensor]:
            mask, js = plain.predict(ensemble, features, (size[0], size[1]))
            return mask[None], js[None]

        return predict
    with tempfile.TemporaryDirectory() as folder:
        maps = part.features
        store = FeatureStore(Path(folder), maps.spec, maps.batch_size, config.feature_dtype)
        store.append(part.features)
        labeler = fit(
            *(store, annotations.masks, config),
            classes=classes,
            generator=GeneratorInfo(digest=""),
            data_digest=annotations.digest,
            dtype=pick_dtype(training.precision, CPU),
        )

    def label(features: FeatureMaps) -> tuple[torch.Tensor, torch.Tensor]:
        made = labeler.predict(None, features)
        return made.mask, made.pixel_uncertainty

    return label


def measure(way: str, seed: int, labeled: Part, test: Part) -> dict[str, float]:
    """Seconds of training, mIoU on the test images, and how well JS predicts wrong pixels."""
    started = time.perf_counter()
    predict = train(way, labeled, seed)
    seconds = time.perf_counter() - started
    confusion = Confusion(len(labeled.annotations.classes))
    uncertainty, wrong = [], []
    for i, mask in enumerate(test.annotations.masks.split(1)):
        guess, js = predict(test.features.select(slice(i, i + 1)))
        confusion.update(guess, mask)
        known = mask != IGNORE
        uncertainty.append(js[known])
        wrong.append((guess != mask)[known])
    return {
        "miou": scores(confusion, labeled.annotations.classes).miou,
        "train_sec": seconds,
        "js_nats": float(torch.cat(uncertainty).mean()),
        "error_auroc": auroc(torch.cat(uncertainty), torch.cat(wrong)),
    }


def auroc(score: torch.Tensor, positive: torch.Tensor) -> float:
    """Probability that a positive scores above a negative; ties are in arbitrary order."""
    ranks = torch.empty(len(score), dtype=torch.double)
    ranks[score.argsort()] = torch.arange(1, len(score) + 1, dtype=torch.double)
    positives = int(positive.sum())
    above = ranks[positive].sum() - positives * (positives + 1) / 2
    return float(above / (positives * (len(score) - positives)))


def show(results: dict[str, list[dict[str, float]]], console: Console) -> None:
    """Mean and sample standard deviation over the seeds."""
    table = Table(title="on the test images, mean ± std over seeds")
    for column in ("", "seeds", "mIoU", "JS, nats", "AUROC of errors", "training, s"):
        table.add_column(column)
    for way, runs in results.items():
        cells = []
        for key in ("miou", "js_nats", "error_auroc", "train_sec"):
            values = [run[key] for run in runs]
            spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
            cells.append(f"{statistics.fmean(values):.4f}{spread}")
        table.add_row(way, str(len(runs)), *cells)
    console.print(table)
    console.print(f"mIoU: {POLICY_MIOU}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--generator", default="package:factory.demo/generator")
    parser.add_argument("--ways", nargs="*", choices=tuple(WAYS), default=list(WAYS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--json", type=Path, help="also read for earlier results")
    options = parser.parse_args()
    console = Console()
    labeled, test = encode(options.data, options.generator, console)
    results: dict[str, list[dict[str, float]]] = {}
    if options.json and options.json.is_file():
        results = json.loads(options.json.read_text())
    for seed in options.seeds:
        for way in options.ways:
            if any(run["seed"] == seed for run in results.get(way, [])):
                continue
            found = measure(way, seed, labeled, test)
            results.setdefault(way, []).append({"seed": seed, **found})
            console.print(f"{way}, seed {seed}: mIoU {found['miou']:.4f}")
            if options.json:
                write_json(options.json, results)
    show(results, console)


if __name__ == "__main__":
    main()
