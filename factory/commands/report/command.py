"""From the options of `factory report` to the file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from factory.terminal.text import byte_size
from factory_core.dataset import CANDIDATES_DIR, MANIFEST_NAME
from factory_core.pictures import DEFAULT_PICTURES, Pictures
from factory_core.storage import Store, write_bytes

if TYPE_CHECKING:
    from factory.reports.page import Page

REPORT_NAME = "report.html"
SEGMENTER_NAME, LABELER_NAMES = "model.json", ("labeler.json", "folds.json")


@dataclass(frozen=True)
class ReportOptions:
    """What to report on, and what to compare it with.

    `real` are the images that a generator was trained on, `labeled` an annotated folder,
    `baseline` another segmenter, `evaluation` a JSON file of `factory evaluate`; `samples` bounds
    the number of samples that are compared with `real`. `pictures` is how images are read, as far
    as it differs from what the dataset or the model remembers. `out` None writes report.html in
    `folder`.
    """

    folder: Store
    out: Path | None
    real: Path | None
    labeled: Path | None
    baseline: Path | None
    evaluation: Path | None
    generator: str | None
    samples: int
    device: str
    pictures: Pictures = DEFAULT_PICTURES


Make = Callable[[ReportOptions, Console], "Page"]


def report(options: ReportOptions, console: Console) -> None:
    """Write the report of what is in the folder.

    Raises FileNotFoundError if that is no dataset, segmenter or labeler, ValueError for options
    that do not apply to it, and what reading it raises.
    """
    from factory.reports.page import render

    make, unused = _maker(options)
    for name in unused:
        if getattr(options, name) is not None:
            kind = make.__name__.removesuffix("_report")
            raise ValueError(f"found --{name} for a {kind}, which does not use it: leave it out")
    content = render(make(options, console))
    if options.out is not None:
        write_bytes(options.out, content)
        where = str(options.out)
    else:
        options.folder.write(REPORT_NAME, content)
        where = str(options.folder / REPORT_NAME)
    console.print(f"report in {where} ({byte_size(len(content))}): open it in a browser")


def _maker(options: ReportOptions) -> tuple[Make, tuple[str, ...]]:
    """What makes the page for this folder, and the options that do not apply."""
    folder = options.folder
    models = (SEGMENTER_NAME, *LABELER_NAMES)
    if folder.is_remote and any(folder.exists(name) for name in models):
        raise ValueError(f"{folder} holds a model in a bucket: copy it to this machine")
    if folder.exists(SEGMENTER_NAME):
        from factory.commands.report.of_segmenter import segmenter_report

        return segmenter_report, ("real", "generator")
    if any(folder.exists(name) for name in LABELER_NAMES):
        from factory.commands.report.of_labeler import labeler_report

        return labeler_report, ("real", "baseline", "evaluation")
    if folder.exists(MANIFEST_NAME) or (folder / CANDIDATES_DIR).is_folder():
        from factory.commands.report.of_dataset import dataset_report

        return dataset_report, ("baseline", "evaluation")
    names = ", ".join((MANIFEST_NAME, *models))
    raise FileNotFoundError(
        f"{folder} holds none of {names}: expected a dataset, a segmenter or a labeler"
    )
