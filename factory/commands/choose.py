"""`factory choose`: which photographs to annotate."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from factory.annotation.choosing import Candidates, Selection, choose_images
from factory.locking.lock import exclusive
from factory.pipeline.photographs import check_photographs
from factory.recipe import generator_recipe
from factory.recipe.loading import recipe_of_labeler
from factory.recipe.picture_settings import picture_settings
from factory.recipe.weights import find_weights
from factory.terminal.notes import print_notes
from factory.terminal.progress import quiet_libraries
from factory_core.output_folder import contents
from factory_core.pictures import Pictures, remembered
from factory_core.spacing import spaced
from factory_core.storage import TEMPORARY_PREFIX

if TYPE_CHECKING:
    import torch

    from generators.base import Encoder
    from labelers.labeler import Labeler

IMAGE_DIRS = ("images", "JPEGImages")  # of annotated folders; others hold images directly


@dataclass(frozen=True)
class ChoiceJob:
    """`n` of the images to copy to `out`, by `how` (None: both with a labeler, else diverse).

    At most `candidates` of them are looked at, evenly spaced by name. `exclude` are folders of
    images that are annotated already.
    """

    images: Path
    out: Path
    n: int
    how: Selection | None
    generator: str | None
    labeler: str | None
    exclude: Sequence[Path]
    candidates: int
    seed: int
    overrides: Sequence[str]
    device: str
    console: Console


def choose(job: ChoiceJob) -> None:
    """Copy the chosen images, and write why; a rerun adds as many others.

    Raises:
        ValueError: an unreadable image, no image left to choose, a labeler of another generator, a
            selection that needs a labeler, or `out` holds other files.
        OSError: no such folder or weights, `out` is in use, or the disk is full.
    """
    from factory.annotation.candidates import describe_images
    from factory.annotation.chosen import read_chosen, write_chosen

    how = job.how or ("diverse" if job.labeler is None else "both")
    if how in ("uncertain", "both") and job.labeler is None:
        raise ValueError(f"--select {how} needs a labeler: give --labeler, or --select diverse")
    quiet_libraries()
    before = read_chosen(job.out)
    if not before and (others := contents(job.out)):
        raise ValueError(f"--out {job.out} holds {others[0]}: give a new or empty folder")
    free, known = _candidates(job)
    generator, labeler, pictures = _models(job)
    pictures = _settle(job, pictures, [*free, *known])
    size = (64, 64) if generator is None else generator.image_size
    images = _read([*free, *known], size, pictures)
    descriptors, doubts = describe_images(images, generator, labeler, job.console)
    candidates = Candidates(
        descriptors[: len(free)],
        None if doubts is None else doubts[: len(free)],
        descriptors[len(free) :] if known else None,
    )
    chosen = choose_images(how, candidates, job.n, job.seed)
    files = [free[choice.row] for choice in chosen]
    with (
        exclusive(job.out),
        tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=job.out) as copies,
    ):
        # Whatever takes long comes first: stopped before the end, the folder is as it was.
        for file in files:
            shutil.copyfile(file, Path(copies) / file.name)
        shown = images[[choice.row for choice in chosen]]
        write_chosen(job.out, [file.name for file in files], shown, how, candidates, chosen)
        (job.out / "images").mkdir(exist_ok=True)
        for file in files:
            os.replace(Path(copies) / file.name, job.out / "images" / file.name)
    _report(job, how, len(files), len(free), generator is None)


def _candidates(job: ChoiceJob) -> tuple[list[Path], list[Path]]:
    """The images to choose from, and those that are annotated or chosen already."""
    from factory_core.images import list_images, stem_of

    known = list(_images_of(job.exclude))
    if (job.out / "images").is_dir() and contents(job.out / "images"):
        known += list_images(job.out / "images")
    stems, sizes = {stem_of(path) for path in known}, {path.stat().st_size for path in known}
    digests = {_digest(path) for path in known}
    every = list_images(job.images)
    free = [
        path
        for path in every
        if stem_of(path) not in stems
        and (path.stat().st_size not in sizes or _digest(path) not in digests)
    ]
    if not free:
        raise ValueError(f"all {len(every)} images in {job.images} are annotated or chosen already")
    if left_out := len(every) - len(free):
        job.console.print(f"{left_out} of {len(every)} images are annotated or chosen already")
    return [free[i] for i in spaced(len(free), job.candidates)], known


def _images_of(folders: Iterable[Path]) -> Iterable[Path]:
    from factory_core.images import list_images

    for folder in folders:
        inside = (folder / name for name in IMAGE_DIRS if (folder / name).is_dir())
        yield from list_images(next(inside, folder))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _models(job: ChoiceJob) -> tuple[Encoder | None, Labeler | None, Pictures]:
    """Generator and labeler as far as they are given, and how their pictures were read."""
    from factory.annotation.candidates import load_labeler
    from factory.annotation.samples import load_encoder

    given, overrides = picture_settings(job.overrides)
    if job.labeler is None and job.generator is None:
        if overrides:
            raise ValueError(f"--set {overrides[0]}: found no generator to set it for")
        return None, None, given
    if job.labeler is not None:
        config = recipe_of_labeler(job.labeler, job.generator, overrides).generator
    else:
        config = generator_recipe(None, job.generator, overrides).generator
    generator, _ = load_encoder("--generator", config, job.device)
    pictures = given.over(remembered(find_weights("--generator", config.weights)))
    labeler = None
    if job.labeler is not None:
        labeler = load_labeler(job.labeler, generator, job.device)
        pictures = given.over(remembered(find_weights("--labeler", job.labeler)) or pictures)
    return generator, labeler, pictures


def _settle(job: ChoiceJob, pictures: Pictures, paths: Sequence[Path]) -> Pictures:
    """The range of values of the images; raises ValueError if one of them cannot be read."""
    from factory_core.images import image_notes, measured

    pictures = measured(pictures, paths)
    print_notes(job.console, image_notes(paths, pictures))
    check_photographs(job.images, paths, pictures)
    return pictures


def _read(paths: Sequence[Path], size: tuple[int, int], pictures: Pictures) -> torch.Tensor:
    from concurrent.futures import ThreadPoolExecutor

    import torch

    from factory_core.images import read_image
    from factory_core.machine import available_cpus

    with ThreadPoolExecutor(available_cpus()) as pool:
        return torch.stack(list(pool.map(lambda path: read_image(path, size, pictures), paths)))


def _report(job: ChoiceJob, how: Selection, chosen: int, looked_at: int, is_plain: bool) -> None:
    by = "thumbnails and colours (for features, give --generator)" if is_plain else "features"
    compared = f", compared by {by}" if how in ("diverse", "both") else ""
    job.console.print(
        f"{chosen} of {looked_at} images in {job.out / 'images'} ({how}{compared}); why: "
        f"{job.out / 'chosen.png'}\nDraw masks with the same names into {job.out / 'masks'}, most "
        f"useful first (chosen.csv); images without one are left out"
    )
