"""The cost of executors: scaling from one worker to two, the driver's share, overhead per shard.

    python -m benchmarks.executors [--part scaling|shards|all] [--json FILE]

scaling     samples/s of one and of two Ray actors with one thread each, on the demo recipe, and
            the driver's CPU time meanwhile. Measured from the end of the first fifth of the shards,
            when all workers are running, to the last shard during which all were busy. The start
            of Ray and the loading of the models are left out.
shards      5000 shards of one sample that costs nothing, from an empty folder to the finished
            dataset, in process and on two actors. Overhead is the wall time, without the time of
            generator and labeler, divided by the number of shards.

The CPU time of the driver is that of its own process, all threads.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from factory.pipeline.executors import Executor, LocalExecutor, RayExecutor
from factory.pipeline.job import Job
from factory.pipeline.progress import Progress
from factory.pipeline.run import run
from factory.recipe import ResolvedRecipe, load_recipe, resolve
from factory_core.storage import write_json
from generators.base import FeatureMaps, sample_seed

SIZE = (16, 16)  # size of the stub's images
BATCH = 8  # samples per shard: few, for many shards in a short time


@dataclass(frozen=True)
class Moment:
    """Wall and CPU seconds of this process when this many samples were done."""

    samples: int
    wall_sec: float
    cpu_sec: float


def timed(
    recipe: ResolvedRecipe, n: int, executor: Executor, folder: Path, load: Any = None
) -> tuple[list[Moment], float]:
    """Make a dataset; returns one moment per shard, and the seconds from start to finish."""
    moments: list[Moment] = []

    def note(progress: Progress) -> None:
        if progress.stage == "generate":
            done = progress.samples_done
            moments.append(Moment(done, time.perf_counter(), time.process_time()))

    more = {} if load is None else {"load": load}
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder) as name:
        run(Job.sampling(recipe, n, Path(name) / "out", **more), executor, note)
        took = time.perf_counter() - began
    return moments, took


# --- scaling ---------------------------------------------------------------------------------


def scaling(folder: Path, shards: int, steps: int) -> list[dict[str, Any]]:
    """One and two actors on the demo recipe, with one batch per shard."""
    sizes = [f"generator.batch_size={BATCH}", f"dataset.shard_size={BATCH}"]
    recipe = resolve(load_recipe("demo", [f"generator.steps={steps}", *sizes]))
    rows = []
    for workers in (1, 2):
        moments, _ = timed(recipe, BATCH * shards * workers, RayExecutor(workers), folder)
        first, last = moments[len(moments) // 5], moments[-workers]
        span = last.wall_sec - first.wall_sec
        rows.append(
            {
                "workers": workers,
                "samples_per_sec": (last.samples - first.samples) / span,
                "driver_cpu_share": (last.cpu_sec - first.cpu_sec) / span,
                "seconds": span,
            }
        )
    for row in rows:
        row["of_one"] = row["samples_per_sec"] / rows[0]["samples_per_sec"]
    return rows


# --- overhead per shard --------------------------------------------------------------------


@dataclass
class StubPrediction:
    """Meaningless labels in the format of a labeler."""

    mask: torch.Tensor
    uncertainty: torch.Tensor


class Stub:
    """Generator and labeler that cost next to nothing; records the time they take."""

    image_size = SIZE
    needs_features = True

    def __init__(self, times: Path):
        self.times = times / f"{os.getpid()}"
        self.spent_sec = 0.0

    def sample(self, indices: Any) -> tuple[torch.Tensor, FeatureMaps]:
        self.began = time.perf_counter()
        noise = [np.random.default_rng(sample_seed(0, i)).bytes(3 * 256) for i in indices]
        images = torch.frombuffer(bytearray(b"".join(noise)), dtype=torch.uint8)
        images = images.view(-1, 3, *SIZE)
        return images, FeatureMaps({"image": images.float()})

    def check(self, generator: Any) -> None:
        """Accept any generator."""

    def predict(
        self,
        images: torch.Tensor,
        features: FeatureMaps,
        size: Any,
        vote: Any,
        measure: Any,
        probabilities: bool,
    ) -> StubPrediction:
        grey = features["image"].mean(1)
        found = StubPrediction((grey > 128).byte(), grey.std((1, 2)))
        self.spent_sec += time.perf_counter() - self.began
        self.times.write_text(str(self.spent_sec))
        return found


def stub_loader(times: Path) -> Callable[..., tuple[Stub, Stub]]:
    """Load the stub instead of models; the seconds of each are written to `times`."""

    def load(*_: Any) -> tuple[Stub, Stub]:
        stub = Stub(times)
        return stub, stub

    return load


def stub_recipe(folder: Path) -> ResolvedRecipe:
    """A job with one sample per shard and a network that is never loaded."""
    weights = folder / "weights"
    weights.mkdir(exist_ok=True)
    (weights / "labeler.json").write_text(json.dumps({"classes": ["dark", "bright"]}))
    content = {
        "name": "stub",
        "generator": {"kind": "ddpm", "weights": str(weights)},
        "labeler": {"weights": str(weights)},
        "dataset": {"shard_size": 1},
    }
    (folder / "stub.yaml").write_text(json.dumps(content))
    return resolve(load_recipe(str(folder / "stub.yaml")))


def shard_price(folder: Path, shards: int) -> list[dict[str, Any]]:
    """Overhead of each executor for shards of one cheap sample."""
    recipe = stub_recipe(folder)
    executors: dict[str, Executor] = {"local": LocalExecutor(), "ray, 2": RayExecutor(2)}
    rows = []
    for name, executor in executors.items():
        times = Path(tempfile.mkdtemp(dir=folder))
        moments, took = timed(recipe, shards, executor, folder, stub_loader(times))
        work = sum(float(file.read_text()) for file in times.iterdir())
        workers = len(list(times.iterdir()))
        first, last = moments[1], moments[-1]
        made = last.samples - first.samples
        rows.append(
            {
                "executor": name,
                "shards": shards,
                "job_sec": took,
                "overhead_ms_per_shard": 1e3 * (took - work / workers) / shards,
                "running_ms_per_shard": 1e3 * (last.wall_sec - first.wall_sec) / made,
                "driver_cpu_ms_per_shard": 1e3 * (last.cpu_sec - first.cpu_sec) / made,
                "start_and_commit_sec": took - (last.wall_sec - first.wall_sec),
            }
        )
    return rows


def show(title: str, rows: list[dict[str, Any]], console: Console) -> None:
    """Print one table with one column per run."""
    table = Table(title=title, title_justify="left", show_header=False)
    for key in rows[0]:
        values = (row[key] for row in rows)
        table.add_row(key, *(f"{v:.3g}" if isinstance(v, float) else str(v) for v in values))
    console.print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("scaling", "shards", "all"), default="all")
    parser.add_argument("--shards", type=int, default=5000, help="of the stub")
    parser.add_argument(
        "--demo-shards", type=int, default=30, help=f"per worker, of {BATCH} samples"
    )
    parser.add_argument("--steps", type=int, default=25, help="of the demo's sampler")
    parser.add_argument("--folder", type=Path, help="working folder")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        if options.part in ("scaling", "all"):
            figures["scaling"] = scaling(Path(name), options.demo_shards, options.steps)
        if options.part in ("shards", "all"):
            figures["shards"] = shard_price(Path(name), options.shards)
    for title, rows in figures.items():
        show(title, rows, Console())
    if options.json:
        write_json(options.json, figures)


if __name__ == "__main__":
    main()
