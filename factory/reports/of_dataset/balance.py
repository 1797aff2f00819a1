"""The section on class balance, beside that of the annotated images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from factory.reports.class_shares import ClassShares
from factory.reports.of_dataset.samples import Rows
from factory.reports.page import Section, columns, figure, note, table
from factory.reports.page.charts import Axis, bars
from factory.reports.page.parts import percent
from factory_core.dataset import Manifest

OFF = 2.0  # a class whose share differs by more than this factor is named


@dataclass(frozen=True)
class Annotated:
    """Pixels per class of each annotated image, int64 `[N, K]`, and the folder's name."""

    pixels: np.ndarray
    name: str


def section(
    manifest: Manifest, rows: Rows, shares: ClassShares, annotated: Annotated | None
) -> Section:
    """Shares of the pixels, and of the images with each class."""
    kept, present = shares.after, (rows.pixels[rows.kept] > 0).mean(axis=0)
    series = [("this dataset", (100 * kept).tolist())]
    header = ["class", "pixels", "images with it"]
    shown = [kept, present]
    remarks = []
    if annotated is None:
        remarks.append(note("To compare with the annotated images, add `--labeled DIR`."))
    else:
        theirs = annotated.pixels.sum(axis=0) / max(annotated.pixels.sum(), 1)
        there = (annotated.pixels > 0).mean(axis=0)
        series.append(("annotated images", (100 * theirs).tolist()))
        header += ["annotated: pixels", "annotated: images with it"]
        shown += [theirs, there]
        remarks += [note(line, warning=True) for line in _off(manifest, kept, theirs)]
    lines = [
        [name, *(percent(column[k]) for column in shown)] for k, name in enumerate(manifest.classes)
    ]
    chart = bars(manifest.classes, series, Axis("share of the pixels, %"), "Share of each class")
    beside = "" if annotated is None else f", beside the images of {annotated.name}"
    return Section(
        "Class balance",
        f"The share of each class in the pixels of the kept samples{beside}.",
        [columns(figure(chart, "Share of the pixels"), table(header, lines)), *remarks],
    )


def _off(manifest: Manifest, kept: np.ndarray, theirs: np.ndarray) -> list[str]:
    """A line for each class that is much rarer or more common than in the annotated images."""
    lines = []
    for name, ours, other in zip(manifest.classes, kept, theirs, strict=True):
        if other == 0 or 1 / OFF <= ours / other <= OFF:
            continue
        how = "rarer" if ours < other else "more common"
        factor = "absent here" if ours == 0 else f"{max(ours / other, other / ours):.1f}x {how}"
        lines.append(f"Class {name} is {factor} than in the annotated images.")
    return [line.replace("absent here than in", "absent here, though not from") for line in lines]
