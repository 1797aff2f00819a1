"""`factory generate`: sample images, label them, compare them with real ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from factory.pipeline.display import run_shown
from factory.pipeline.fidelity import FIDELITY_IMAGES, FIDELITY_NAME, measure_fidelity
from factory.terminal.notes import print_notes
from factory.terminal.progress import quiet_libraries
from factory.terminal.text import byte_size, duration
from factory_core.machine import GIB
from factory_core.spacing import spaced

if TYPE_CHECKING:
    from factory.pipeline.executors import Executor
    from factory.pipeline.job import Job
    from factory_core.annotated.annotations import ImageFolder


def generate(job: Job, executor: Executor, real: Path | None, console: Console) -> None:
    """Make the dataset; with `real` images, measure how far it is from them."""
    from factory.pipeline.photographs import check_photographs
    from factory_core.annotated.annotations import ImageFolder
    from factory_core.images import folder_notes

    photographs = None
    if real is not None:  # checked before hours are spent
        photographs = ImageFolder(real, pictures=job.recipe.pictures)
        print_notes(console, folder_notes(real, photographs.pictures))
        rows = spaced(len(photographs), FIDELITY_IMAGES)
        chosen = [photographs.paths[row] for row in rows]
        check_photographs(real, chosen, photographs.pictures)
    run_shown(job, executor, console)
    if photographs is not None:
        check_fidelity(job, photographs, console)


def dry_run(job: Job, executor: Executor, console: Console) -> None:
    """Print the resolved recipe and the cost of the job; write nothing."""
    import yaml

    from factory.pipeline.estimate import estimate

    quiet_libraries()
    cost = estimate(job, executor)
    recipe = job.recipe.recipe.model_dump(mode="json")
    text = yaml.safe_dump(recipe, sort_keys=False, default_flow_style=None).strip()
    console.print(text, markup=False, soft_wrap=True)
    console.print(f"recipe digest {job.recipe.digest}")
    free = "" if cost.disk_free_gib is None else f", {byte_size(cost.disk_free_gib * GIB)} free"
    gpu = ""
    if cost.gpu_gib is not None:
        gpu = f", {byte_size(cost.gpu_gib * GIB)} of GPU memory per worker"
    console.print(
        f"{job.n} samples on {cost.workers} worker(s): about {duration(cost.total_sec)} "
        f"({cost.samples_per_sec:.1f} samples/s), {byte_size(cost.ram_gib * GIB)} of memory{gpu}, "
        f"{byte_size(cost.disk_gib * GIB)} on disk "
        f"(at most {byte_size(cost.disk_peak_gib * GIB)} while it runs{free})"
    )
    if cost.gpu_gib is not None:
        print_notes(console, ["the same recipe gives the same bytes on GPUs of the same kind only"])


def check_fidelity(job: Job, real: ImageFolder, console: Console) -> None:
    """Compare the finished dataset with real images; print, write fidelity.json."""
    import generators
    from factory.reports import fidelity

    generator = generators.load_encoder(job.recipe.generator, job.device)
    result = measure_fidelity(generator, job.out, real, console)
    console.print(fidelity.render_table(result))
    job.out.write_json(FIDELITY_NAME, result.to_dict())
