"""`factory annotate`: draw masks in a browser, with proposals from what has been drawn so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from factory.annotation.samples import find_samples, load_encoder
from factory.locking.lock import exclusive
from factory.recipe import Recipe, find_weights, generator_recipe, recipe_of_labeler
from factory.terminal.progress import quiet_libraries
from factory_core.annotated.layouts import PAGE_FOLDER

if TYPE_CHECKING:
    from factory.annotation.page.assist import Load

HINT = (
    "Proposals are off. They need a diffusion model of such pictures: "
    "factory annotate {folder} --generator DIR"
)


@dataclass(frozen=True)
class AnnotateJob:
    """What to draw on, and how the page is served; see `factory annotate --help`."""

    folder: Path
    classes: Sequence[str] | None
    generator: str | None
    labeler: str | None
    host: str
    port: int | None
    browser: bool
    device: str
    console: Console


def annotate(job: AnnotateJob) -> None:
    """Serve the page until interrupted. Raises ValueError, OSError or ImportError in one line."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise ImportError(
            "the page needs starlette and uvicorn: pip install 'dataset-factory[annotate]'"
        ) from None
    from factory.annotation.page.app import Page
    from factory.annotation.page.assist import Assist
    from factory.annotation.page.changes import Changes
    from factory.annotation.page.folder import Folder
    from factory.annotation.page.serving import bind, serve

    quiet_libraries()
    folder = Folder(job.folder, job.classes)
    with exclusive(job.folder / PAGE_FOLDER):
        load, changes = _loader(job, folder.classes), Changes()
        assist = None if load is None else Assist(folder, load, changes)
        page = Page(folder, changes, assist, HINT.format(folder=job.folder))
        count, classes = len(folder.names), ", ".join(folder.classes)
        job.console.print(f"{count} images, {len(folder.classes)} classes: {classes}")
        if assist is None:
            job.console.print(page.hint)
        serve(page, bind(job.host, job.port), job.browser, job.console)


def _loader(job: AnnotateJob, classes: Sequence[str]) -> Load | None:
    """What loads the models; None without any. Raises ValueError for a labeler of other classes."""
    recipe = _recipe(job)
    if recipe is None:
        return None
    key = "--generator" if job.labeler is None else "--labeler"

    def load() -> tuple:
        from factory_core.device import pick_device, pick_dtype
        from labelers.labeler import Labeler

        generator, _ = load_encoder(key, recipe.generator, job.device)
        if job.labeler is None:
            return generator, None
        where = pick_device(job.device)
        weights = find_weights(key, job.labeler)
        labeler = Labeler.load(weights, where, pick_dtype(recipe.labeler.precision, where))
        if labeler.classes != list(classes):
            raise ValueError(
                f"--labeler {job.labeler}: found classes {labeler.classes}, expected "
                f"{list(classes)}"
            )
        return generator, labeler

    return load


def _recipe(job: AnnotateJob) -> Recipe | None:
    """The recipe whose generator gives features: of the options, or of the folder's samples."""
    if job.labeler is not None:
        return recipe_of_labeler(job.labeler, job.generator, [])
    _, samples = find_samples(job.folder)
    recorded = None if samples is None else samples.generator.model_dump(mode="json")
    if job.generator is None and recorded is None:
        return None
    return generator_recipe(None, job.generator, [], recorded)
