"""Running an analysis: its features, its cells, and what follows; finished work is kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from factory.analysis import writing
from factory.analysis.base import MIOU, Analysis, Cell, Need, Numbers, Results, Settings, Work
from factory.analysis.results import CellFolder
from factory.analysis.study import Given, Study, read_study
from factory.locking.lock import exclusive
from factory.recipe import build_settings
from factory.terminal.progress import ProgressLine
from factory.terminal.text import byte_size, duration
from factory_core.machine import disk_free_bytes
from factory_core.storage import naming_full_disk
from generators.base import Diffusing

TIMED_IMAGES = 4  # in a dry run
LACKING: dict[Need, str] = {
    "images": "found no --images: give a folder of unlabelled images",
    "timesteps": "found a generator without timesteps, expected a diffusion model",
}


def analyse(analysis: Analysis, given: Given, console: Console, is_dry_run: bool = False) -> None:
    """Run an analysis and write its files to `given.out`, or say what that costs; resumes.

    Raises ValueError or OSError in one line for a user's mistake, before any training.
    """
    study = start(analysis, given, console)
    if is_dry_run:
        dry_run(analysis, study, given.out, console)
        return
    with naming_full_disk(given.out), exclusive(given.out):
        cells = analysis.cells(study)
        results = run_cells(analysis, study, CellFolder(given.out, analysis, study), cells)
        findings = analysis.summarise(study, results)
        writing.write(analysis, study, findings, given.out, console)


def start(work: Work, given: Given, console: Console) -> Study:
    """The study, with what the work needs; raises ValueError if something is missing."""
    settings = analysis_settings(work, given.of_analysis)
    if "images" in work.needs and given.images is None:
        raise ValueError(f"{work.name}: {LACKING['images']}")
    study = read_study(given, settings, console)
    if "timesteps" in work.needs and not isinstance(study.generator, Diffusing):
        raise ValueError(f"{work.name}: {LACKING['timesteps']}")
    work.check(study)
    return study


def analysis_settings(work: Work, overrides: Sequence[str]) -> Settings:
    """The defaults with `overrides` (`KEY=VALUE`); raises ValueError as `build_settings`."""
    # A section that is changed keeps our other defaults, which are not those of a recipe.
    content = work.settings().model_dump(mode="json")
    return build_settings(work.settings, content, overrides, f"settings of {work.name}")


def run_cells(work: Work, study: Study, folder: CellFolder, cells: Sequence[Cell]) -> Results:
    """Run those cells that are not finished; features are computed only if there are any."""
    missing = [cell for cell in cells if folder.find(cell) is None]
    if not missing:
        return folder.results(cells)
    work.prepare(study)
    with ProgressLine(work.name, "cells", len(cells), study.console, folder.folder) as line:
        done = len(cells) - len(missing)
        line.update(done)
        for cell in missing:
            numbers, seconds = timed(work, study, cell)
            folder.add(cell, numbers, seconds)
            done += 1
            line.update(done, _status(cell, numbers))
    return folder.results(cells)


def timed(work: Work, study: Study, cell: Cell) -> tuple[Numbers, float]:
    """The numbers of a cell, and how long it took in seconds."""
    began = time.monotonic()
    numbers = work.run(study, cell)
    return numbers, time.monotonic() - began


def _status(cell: Cell, numbers: Numbers) -> str:
    score = numbers.get(MIOU)
    return cell.variant if score is None else f"{cell.variant} mIoU {score:.3f}"


def dry_run(work: Work, study: Study, out: Path, console: Console) -> None:
    """Print time and disk, measured on a few images in a temporary folder."""
    cells, count = work.cells(study), len(study.annotations.stems)
    few = min(count, TIMED_IMAGES)
    with TemporaryDirectory() as folder:
        small = study.small(Path(folder), few)
        began = time.monotonic()
        work.prepare(small)
        features_sec = (time.monotonic() - began) * count / few
        small_cells = work.cells(small)
        ends = [small_cells[0], small_cells[-1]]  # usually the cheapest and the dearest
        cell_sec = sum(timed(work, small, cell)[1] for cell in ends) / 2
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        disk = sum(path.stat().st_size for path in files) * count / few
    total = features_sec + len(cells) * cell_sec
    console.print(
        f"{work.name}: {len(cells)} cells of {duration(cell_sec)} on {len(study.splits)} splits"
        f" of {count} annotated images, and {duration(features_sec)} for the features: about "
        f"{duration(total)} (timed on {few} images)\n"
        f"disk: {byte_size(disk)} of features; {byte_size(disk_free_bytes(out))} free"
    )
