"""The whole pipeline on real images: do synthetic data beat the labels alone?

    python -m benchmarks.real_images --data DIR --out DIR [--json FILE]

`--data` holds `unlabeled/` (images), `labeled/` and `test/` (annotated folders) and, optionally,
`classes.json`. Every step is a `factory` command, which is printed when it starts; existing results
are reused. Two DeepLabV3 trainings run in parallel, on one thread each.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from factory_core.storage import write_json

AUGMENT = ("horizontal_flip", "vertical_flip", "quarter_turns")


@dataclass(frozen=True)
class Row:
    """One row of the table: a name, and the data its segmenters are trained on."""

    name: str
    data: tuple[Path, ...]


def run(arguments: Sequence[object], log: Path, threads: int | None = None) -> float:
    """Run one `factory` command with its output in `log`; returns seconds, exits if it fails."""
    command = [sys.executable, "-m", "factory", *map(str, arguments)]
    print("$ factory " + shlex.join(command[3:]), flush=True)
    environment = dict(os.environ)
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    started = time.perf_counter()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
    if done.returncode:
        raise SystemExit(f"failed with exit code {done.returncode}, see {log}:\n{log.read_text()}")
    return time.perf_counter() - started


def prepare(options: argparse.Namespace) -> dict[str, float]:
    """Make generator, labeler, synthetic and pseudo-labelled datasets; seconds of new ones."""
    data, out = options.data, options.out
    seconds: dict[str, float] = {}

    def make(name: str, marker: str, *arguments: object) -> None:
        if not (out / name / marker).exists():
            log = out / "logs" / f"{name}.txt"
            seconds[name] = run([*arguments, "--out", out / name], log)

    init = () if options.init is None else ("--init", options.init)
    settings = [part for setting in options.settings for part in ("--set", setting)]
    make(
        *("generator", "model_index.json", "train-generator", "--images", data / "unlabeled"),
        *("--image-size", options.size, "--steps", options.generator_steps),
        *("--batch-size", 8, "--flips", "--quarter-turns"),
        *(*init, *settings),
    )
    make(
        *("labeler", "labeler.json", "train-labeler", "--generator", out / "generator"),
        *("--labeled", data / "labeled"),
    )
    make(
        *("synthetic", "dataset.json", "generate", "--labeler", out / "labeler"),
        *("--n", options.n, "--real", data / "unlabeled"),
        *("--set", f"generator.steps={options.sampler_steps}"),
    )
    make(
        *("pseudo", "dataset.json", "label", "--labeler", out / "labeler"),
        *("--images", data / "unlabeled"),
    )
    return seconds


def train_and_score(row: Row, seed: int, options: argparse.Namespace) -> float:
    """mIoU on the test images of a DeepLabV3 trained on the row's data."""
    name = f"{row.name.replace(' ', '_')}_{seed}"
    model, scores = options.out / "models" / name, options.out / "scores" / f"{name}.json"
    log = options.out / "logs" / f"{name}.txt"
    if not scores.exists():
        data = [part for folder in row.data for part in ("--data", folder)]
        flips = [part for key in AUGMENT for part in ("--set", f"augment.{key}=true")]
        size = f"image_size=[{options.size},{options.size}]"
        scale = f"input_scale={options.input_scale}"
        shared = ("encoder_depth=4", "batch_size=16", "schedule=cosine", size, scale)
        settings = [part for setting in shared for part in ("--set", setting)]
        command = ("train-deeplab", *data, "--encoder", "resnet18", "--steps", options.steps)
        run([*command, *settings, *flips, "--seed", seed, "--out", model], log, threads=1)
        scores.parent.mkdir(parents=True, exist_ok=True)
        test = ("--labeled", options.data / "test", "--json", scores)
        run(["evaluate", "--model", model, *test], log, threads=1)
    return float(json.loads(scores.read_text())["miou"])


def direct(options: argparse.Namespace) -> float:
    """mIoU on the test images of the labeler itself, without a segmenter."""
    scores = options.out / "scores" / "direct.json"
    if not scores.exists():
        scores.parent.mkdir(parents=True, exist_ok=True)
        command = ("evaluate", "--labeler", options.out / "labeler")
        test = ("--labeled", options.data / "test", "--json", scores)
        run([*command, *test], options.out / "logs" / "direct.txt")
    return float(json.loads(scores.read_text())["miou"])


def add_segmenter_options(parser: argparse.ArgumentParser) -> None:
    """The arguments of `train_and_score`."""
    parser.add_argument("--size", type=int, default=64, help="side of the images, in pixels")
    parser.add_argument("--steps", type=int, default=400, help="of each DeepLabV3 training")
    parser.add_argument("--input-scale", type=float, default=2, help="see SegmenterConfig")
    parser.add_argument("--seeds", type=int, default=3)


def scores_of(rows: Sequence[Row], options: argparse.Namespace) -> dict[str, list[float]]:
    """mIoU on the test images, per row and seed; two trainings run in parallel."""
    jobs = [(row, seed) for seed in range(options.seeds) for row in rows]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda job: train_and_score(job[0], job[1], options), jobs))
    return {
        row.name: [s for (r, _), s in zip(jobs, results, strict=True) if r is row] for row in rows
    }


def scores_table(scores: dict[str, list[float]], title: str) -> Table:
    """Mean and standard deviation over the seeds."""
    table = Table(title=title)
    for column in ("trained on", "mean", "std", "seeds"):
        table.add_column(column)
    for name, values in scores.items():
        spread = f"{statistics.stdev(values):.4f}" if len(values) > 1 else "-"
        table.add_row(name, f"{statistics.mean(values):.4f}", spread, str(len(values)))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--init", help="generator to start from")
    parser.add_argument("--generator-steps", type=int, default=2600)
    parser.add_argument("--settings", nargs="*", default=["channels=[16,32,64,128]", "lr=0.001"])
    parser.add_argument("--n", type=int, default=2000, help="synthetic candidates")
    parser.add_argument("--sampler-steps", type=int, default=12)
    add_segmenter_options(parser)
    parser.add_argument("--rows", nargs="*", help="only these rows")
    options = parser.parse_args()
    seconds = prepare(options)
    synthetic, pseudo = options.out / "synthetic", options.out / "pseudo"
    rows = [
        Row("labels", (options.data / "labeled",)),
        Row("synthetic", (synthetic,)),
        Row("pseudo", (pseudo,)),
        Row("synthetic+pseudo", (synthetic, pseudo)),
    ]
    rows = [row for row in rows if not options.rows or row.name in options.rows]
    scores = {**scores_of(rows, options), "direct": [direct(options)]}
    Console().print(scores_table(scores, f"mIoU on {options.data / 'test'}, {options.steps} steps"))
    peak_gib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"peak memory of one process {peak_gib:.2f} GiB")
    if options.json:
        content = {"miou": scores, "seconds": seconds, "peak_gib": peak_gib}
        write_json(options.json, content)


if __name__ == "__main__":
    main()
