"""The generation jobs as a user sees them: plan or run, with a progress line and a summary."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from factory.recipe.recipe import Recipe, build_recipe, load_recipe, recipe_of_labeler, resolve
from factory.terminal.progress import ProgressLine, quiet_libraries
from factory.terminal.text import duration, listing
from factory_core.dataset import read_samples, write_json

if TYPE_CHECKING:
    from factory.pipeline.executors import Executor
    from factory.pipeline.run import Progress
    from factory_core.dataset import Manifest

FIDELITY_NAME = "fidelity.json"
STAGES = {"generate": "making", "commit": "selecting", "done": "finished"}
FIDELITY_IMAGES = 500  # of each kind: enough for the noise floor, minutes at most on a laptop


@dataclass(frozen=True)
class Making:
    """What `generate` and `label` have in common: where, on what, and how much to say."""

    recipe: Recipe
    out: Path
    executor: Executor
    device: str
    keep_candidates: bool
    console: Console


def choose_recipe(
    source: str | None, generator: str | None, labeler: str | None, overrides: list[str]
) -> Recipe:
    """The recipe `source`; without one, that of `labeler`; without both, the demo."""
    if labeler is not None and source is None:
        return recipe_of_labeler(labeler, generator, overrides)
    weights = {"generator.weights": generator, "labeler.weights": labeler}
    explicit = [f"{key}={json.dumps(value)}" for key, value in weights.items() if value is not None]
    return load_recipe(source or "demo", [*explicit, *overrides])


def generator_recipe(
    source: str | None, generator: str | None, overrides: list[str], noted: Path | None = None
) -> Recipe:
    """The recipe for what needs a generator only: a preset's or a file's, or its defaults.

    Without a recipe, an annotated folder `noted` of samples tells how those were made.
    """
    weights = [] if generator is None else [f"generator.weights={json.dumps(generator)}"]
    if source is not None:
        return load_recipe(source, [*weights, *overrides])
    section: dict[str, Any] = {}
    if noted is not None:
        from factory.annotation.samples import find_samples

        _, samples = find_samples(noted)
        section = samples.generator.model_dump(mode="json") if samples is not None else {}
    if generator is None and not section:
        raise ValueError("found no generator: give --generator DIR, or a --recipe that names one")
    content: dict[str, Any] = {"name": "labeler", "generator": section}
    return build_recipe(content, [*weights, *overrides], "of the command line")


def generate(making: Making, n: int, real: Path | None) -> None:
    """Make a dataset of `n` candidates; with `real` images, measure how far it is from them."""
    from factory.pipeline.run import generate as run
    from factory_core.images import list_images

    if real is not None:
        list_images(real)  # a wrong path is told now, not after hours of sampling
    resolved = resolve(making.recipe)
    _make(making, lambda show: run(resolved, n, making.out, on_progress=show, **_how(making)))
    if real is not None:
        check_fidelity(making, real)


def label(making: Making, images: Path) -> None:
    """Make a dataset from the photographs of a folder."""
    from factory.pipeline.run import label as run

    resolved = resolve(making.recipe)
    _make(making, lambda show: run(resolved, images, making.out, on_progress=show, **_how(making)))


def _how(making: Making) -> dict[str, Any]:
    return {
        "executor": making.executor,
        "device": making.device,
        "keep_candidates": making.keep_candidates,
    }


def _make(making: Making, run: Any) -> None:
    from factory.pipeline.failures import ShardsFailed

    quiet_libraries()
    console = making.console
    try:
        with ProgressLine("starting", "samples", 1, console) as line:
            manifest = run(lambda progress: _show(progress, line))
    except ShardsFailed as failed:
        console.print("\n".join(listing(failed.failures)))
        raise
    _summarise(manifest, making.out, console)


def _show(progress: Progress, line: ProgressLine) -> None:
    rate, mean = progress.samples_per_sec, progress.mean_uncertainty
    status = f"{progress.shards_done}/{progress.shards_total} shards"
    if progress.shards_failed:
        status += f"  {progress.shards_failed} failed"
    if rate:
        status += f"  {rate:.1f} samples/s"
    if mean is not None:
        status += f"  uncertainty {mean:.3f}"
    line.describe(STAGES[progress.stage], progress.eta_sec)
    line.update(progress.samples_done, status, progress.samples_total)


def _summarise(manifest: Manifest, out: Path, console: Console) -> None:
    totals = manifest.totals
    console.print(
        f"{totals.candidates} candidates, {totals.dropped} most uncertain dropped, "
        f"{totals.kept} kept in {len(manifest.shards)} shard{'s' * (len(manifest.shards) != 1)}"
    )
    console.print(f"dataset in {out}; see {out / 'preview.png'}")


def dry_run(making: Making, n: int) -> None:
    """Print the resolved recipe and what the job would take; write nothing."""
    import yaml

    from factory.pipeline.run import estimate

    quiet_libraries()
    resolved = resolve(making.recipe)
    made = estimate(resolved, n, making.out, executor=making.executor, device=making.device)
    recipe = resolved.recipe.model_dump(mode="json")
    text = yaml.safe_dump(recipe, sort_keys=False, default_flow_style=None).strip()
    making.console.print(text, markup=False, soft_wrap=True)
    making.console.print(f"recipe digest {resolved.digest}")
    free = "" if made.disk_free_gib is None else f", {made.disk_free_gib:.0f} free"
    making.console.print(
        f"{n} samples on {made.workers} worker(s): about {duration(made.total_sec)} "
        f"({made.samples_per_sec:.1f} samples/s), {made.ram_gib:.1f} GiB of memory, "
        f"{made.disk_gib:.2f} GiB on disk (at most {made.disk_peak_gib:.2f} while it runs{free})"
    )


def check_fidelity(making: Making, real: Path) -> None:
    """Compare the dataset in `out` with a folder of real images; print, write fidelity.json."""
    from itertools import islice

    import numpy as np
    import torch

    import generators
    from factory.commands.train_deeplab.job import encode_batches
    from factory.reports import fidelity
    from factory_core.annotated.annotations import ImageFolder
    from generators.base import Projecting

    resolved = resolve(making.recipe)
    generator = generators.load(resolved.generator, making.device)
    photographs = ImageFolder(real, generator.image_size)
    step = max(1, len(photographs) // FIDELITY_IMAGES)  # evenly: names often go by kind
    real_images = torch.stack([photographs[i] for i in range(0, len(photographs), step)])
    samples = islice(read_samples(making.out), FIDELITY_IMAGES)
    synthetic = torch.stack([torch.from_numpy(sample.image) for sample in samples])

    def pooled(images: torch.Tensor) -> np.ndarray:
        batches = encode_batches(generator, images, making.console)
        return np.concatenate([fidelity.pool(features) for features in batches])

    if isinstance(generator, Projecting):
        making.console.print(
            "no Fréchet distance: a GAN has no features but those of its own images"
        )
        features = None
    else:
        features = (pooled(synthetic), pooled(real_images))
    result = fidelity.compare(synthetic, real_images, features)
    making.console.print(fidelity.render_table(result))
    write_json(making.out / FIDELITY_NAME, result.to_dict())
