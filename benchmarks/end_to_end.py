"""`factory generate` from its start to the sha256 of the dataset, and the share of each stage.

    python -m benchmarks.end_to_end [--size 256] [--n 64] [--json FILE]
    python -m benchmarks.end_to_end --recipe demo-stylegan2 [--n 64]

By default a StyleGAN2 with random weights at `--size` (channels `--channel-base` / resolution, at
most 512) and a random labeler of ten members; with `--recipe`, that recipe. The job is that of the
command line with `--executor local`, run in this process.

Stages are timed where they run. Encoding and writing run on threads beside sampling and labelling,
so the shares add up to more than 100 % if they overlap.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from rich.console import Console
from rich.table import Table

from factory_core.storage import write_json

if TYPE_CHECKING:  # what the job imports is timed
    from factory.pipeline.job import Job

CLASSES = 21


class Stages(ExitStack):
    """Seconds spent in the stages of a job; calls are timed until it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = {}

    def add(self, stage: str, began: float) -> None:
        """Count the time since `began` (of `time.perf_counter`) for `stage`."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - began

    def watch(self, owner: Any, name: str, stage: str) -> None:
        """Time all calls of `owner.name`."""
        inner: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(inner)
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                self.add(stage, began)

        self.enter_context(patch.object(owner, name, timed))


def random_models(folder: Path, size: int, channel_base: int) -> None:
    """Write a random StyleGAN2 and a random labeler of it into `folder`."""
    import torch

    import generators
    from generators.stylegan2.config import NetworkConfig, StyleGAN2Config
    from generators.stylegan2.network import StyleGAN2
    from generators.stylegan2.storage import save
    from labelers.config import LabelerConfig
    from labelers.ensemble.classifiers import Ensemble
    from labelers.labeler import GeneratorInfo, Labeler, LabelerInfo

    torch.manual_seed(0)
    weights = folder / "generator"
    save(StyleGAN2(NetworkConfig(resolution=size, channel_base=channel_base)), weights)
    settings = StyleGAN2Config(weights=str(weights))
    generator = generators.load(settings, "cpu")
    spec, config = generator.feature_spec, LabelerConfig()
    ensemble = Ensemble(spec, CLASSES, config.hidden_for(CLASSES), config.members)
    info = LabelerInfo(
        classes=[f"class_{i}" for i in range(CLASSES)],
        features=spec,
        generator=GeneratorInfo(digest=generator.digest, config=settings.model_dump(mode="json")),
        image_size=generator.image_size,
        data_digest="",
        config=config,
    )
    Labeler(ensemble, info).save(folder / "labeler")


def timed_job(job: Job) -> tuple[str, dict[str, float]]:
    """Run `job` in this process: the sha256 of its shards, and seconds by stage."""
    from factory.pipeline import run as running
    from factory.pipeline.models import load_models
    from factory.pipeline.shard_writer import ShardWriter
    from labelers.labeler import Labeler

    with Stages() as stages:

        def load(*of: Any) -> Any:
            began = time.perf_counter()
            models = load_models(*of)
            stages.add("load the models", began)
            stages.watch(models[0], "sample", "sample")
            return models

        stages.watch(Labeler, "predict", "label")
        stages.watch(ShardWriter, "_append", "encode and write")
        stages.watch(running, "commit", "select, pack, sha256")
        stages.watch(running.preview, "write_preview", "preview")
        began = time.perf_counter()
        manifest = running.run(replace(job, load=load))
        stages.add("all", began)
    digests = "".join(shard.sha256 for shard in manifest.shards)
    return hashlib.sha256(digests.encode()).hexdigest(), stages.seconds


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recipe", help="default: random weights")
    parser.add_argument("--size", type=int, default=256, help="of random weights, in pixels")
    parser.add_argument("--channel-base", type=int, default=16384, help="of random weights")
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)

    began = time.perf_counter()
    from factory.pipeline.job import Job
    from factory.pipeline.run import run  # noqa: F401 - imports are the first stage
    from factory.recipe import choose_recipe, resolve

    imports_sec = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generator = labeler = None
        if options.recipe is None:
            random_models(folder, options.size, options.channel_base)
            generator, labeler = str(folder / "generator"), str(folder / "labeler")
        recipe = resolve(choose_recipe(options.recipe, generator, labeler, overrides=[]))
        job = Job.sampling(recipe, options.n, folder / "out", device=options.device)
        sha256, stages = timed_job(job)
    stages["imports"] = imports_sec
    stages["all"] += imports_sec
    show(stages, options.n, sha256)
    if options.json:
        write_json(options.json, {"n": options.n, "sha256": sha256, "seconds": stages})


def show(stages: dict[str, float], n: int, sha256: str) -> None:
    """Print the stages, the longest first."""
    whole = stages["all"]
    table = Table(title=f"{n} samples in {whole:.1f} s, {n / whole:.2f} samples/s")
    for column in ("stage", "seconds", "share"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage, seconds in sorted(stages.items(), key=lambda item: -item[1]):
        table.add_row(stage, f"{seconds:.2f}", f"{seconds / whole:.1%}")
    Console().print(table)
    Console().print(f"sha256 {sha256}", soft_wrap=True)


if __name__ == "__main__":
    main()
