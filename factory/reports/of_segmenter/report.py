"""The page of a segmenter."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from factory.reports.of_segmenter.scores import Measured, Shown
from factory.reports.page import (
    Fact,
    Page,
    Section,
    columns,
    details,
    facts,
    figure,
    legend,
    note,
    pairs,
    table,
)
from factory.reports.page.charts import Axis, Line, bars, lines, matrix
from factory.reports.page.parts import percent, score
from factory.reports.provenance import program, rows_of
from train_seg.evaluation.metrics import POLICY_MIOU
from train_seg.evaluation.report import row_shares
from train_seg.network.segmenter import SegmenterInfo
from train_seg.training.curves import TABLE_NAME
from train_seg.training.folder import TRAINING_NAME

NAMES = {"miou": "mIoU", "pixel_accuracy": "pixel accuracy", "boundary_f1": "boundary F1"}
TEST_IT = "To measure this, add `--labeled DIR`: annotated images that were not trained on."


@dataclass(frozen=True)
class Known:
    """What is known besides the model's own files; None where it was not asked for.

    `measured` are the best scores there are, `baseline` those of another model on the same images,
    with its name; `best` and `worst` are test images in that order.
    """

    measured: Measured | None
    corruptions: Mapping[str, Any] | None = None
    baseline: tuple[str, Measured] | None = None
    best: Sequence[Shown] = ()
    worst: Sequence[Shown] = ()


def segmenter_page(folder: Path, info: SegmenterInfo, known: Known) -> Page:
    """The report of a trained segmenter in `folder`."""
    height, width = info.image_size
    encoder = "" if info.encoder == "none" else f" with {info.encoder}"
    summary = (
        f"{info.architecture}{encoder}, trained to find {len(info.classes)} classes in images of"
        f" {width} × {height} pixels."
    )
    opening = [legend(info.classes, info.palette)]
    if known.measured is not None:
        opening.insert(0, _headline(known.measured))
    sections = [
        _curves(folder),
        _classes(info, known),
        _confusion(info, known.measured),
        _predictions(known),
        _corruptions(known.corruptions),
        _provenance(folder, info),
    ]
    return Page(folder.resolve().name, "Segmenter", summary, opening, sections)


def _headline(measured: Measured) -> Markup:
    found = [Fact(score(v), NAMES[n]) for n, v in measured.headline.items() if n in NAMES]
    return facts([*found, Fact(str(measured.images), measured.on)])


def _curves(folder: Path) -> Section:
    title, lead = "Training", "The loss, and the mIoU on the validation images, step by step."
    file = folder / TABLE_NAME
    if not file.is_file():
        return Section(title, lead, [note(f"{TABLE_NAME} is not in the folder.")])
    with file.open(newline="") as text:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(text)]
    steps = [row["step"] for row in rows]
    found = [
        figure(
            lines(
                [Line(name, steps, [row[key] for row in rows], dots=len(rows) < 30)],
                Axis("optimiser step"),
                Axis(label, 0, high),
                f"{name} over the steps",
            ),
            name,
        )
        for key, name, label, high in (
            ("loss", "Training loss", "loss, mean since the last point", None),
            ("miou", "Validation mIoU", "mIoU", 1.0),
        )
        if rows and key in rows[0]
    ]
    without = [] if len(found) > 1 else [note("For a validation curve, train with `--val DIR`.")]
    return Section(title, lead, [columns(*found), *without])


def _classes(info: SegmenterInfo, known: Known) -> Section:
    title, measured = "Scores of each class", known.measured
    if measured is None:
        return Section(title, "How well each class is found.", [note(TEST_IT)])
    header, cells = ["class", "IoU"], [[score(v)] for v in measured.iou]
    series = [("this model", list(measured.iou))]
    if measured.boundary is not None:
        header.append("boundary F1")
        cells = [[*row, score(v)] for row, v in zip(cells, measured.boundary, strict=True)]
    if known.baseline is not None:
        name, other = known.baseline
        header += ["baseline: IoU", "baseline: boundary F1", "IoU gained"]
        series.append((f"baseline ({name})", list(other.iou)))
        assert other.boundary is not None  # measured now
        for row, mine, iou, f1 in zip(cells, measured.iou, other.iou, other.boundary, strict=True):
            gain = "–" if mine is None or iou is None else f"{mine - iou:+.3f}"
            row += [score(iou), score(f1), gain]
    rows = [[name, *row] for name, row in zip(info.classes, cells, strict=True)]
    body = [
        columns(
            figure(bars(info.classes, series, Axis("IoU", 0, 1.0), "IoU of each class"), "IoU"),
            table(header, rows),
        )
    ]
    if known.baseline is not None:
        body.append(_against(measured, *known.baseline))
    elif measured.confusion is not None:
        body.append(note("To compare with another model, add `--baseline MODEL --labeled DIR`."))
    if measured.boundary is None:
        body.append(note(f"Boundary F1 was not measured in training. {TEST_IT}"))
    lead = f"On {measured.images} {measured.on}. mIoU: {POLICY_MIOU}."
    return Section(title, lead, body)


def _against(measured: Measured, name: str, other: Measured) -> Markup:
    rows = [
        [NAMES[key], score(measured.headline.get(key)), score(other.headline.get(key))]
        for key in NAMES
    ]
    return table(["", "this model", f"baseline ({name})"], rows, "Both on the same images")


def _confusion(info: SegmenterInfo, measured: Measured | None) -> Section:
    title, lead = "Confusion", "What the pixels of each true class (row) are taken for (column)."
    if measured is None or measured.confusion is None:
        return Section(title, lead, [note(TEST_IT)])
    chart = matrix(info.classes, row_shares(measured.confusion), "Confusion matrix in per cent")
    return Section(title, lead, [figure(chart, "% of the pixels of each class")])


def _predictions(known: Known) -> Section:
    title, lead = "Worst and best predictions", "By the mIoU over the classes in each image."
    if not known.worst:
        return Section(title, lead, [note(TEST_IT)])
    body: list[Markup] = []
    for heading, shown in (("Worst", known.worst), ("Best", known.best)):
        if shown:
            body.append(Markup("<h3>{}</h3>").format(heading))
            body.append(pairs([(s.truth, s.prediction) for s in shown], "truth", "prediction"))
    return Section(title, lead, body)


def _corruptions(found: Mapping[str, Any] | None) -> Section:
    title, lead = "Corrupted images", "mIoU on images with noise, blur, weather and the like."
    if found is None:
        hint = (
            "To show this, add `--evaluation FILE`, from `factory evaluate --model DIR"
            " --labeled DIR --corruptions all --json FILE`."
        )
        return Section(title, lead, [note(hint)])
    severities = [0, *found["severities"]]
    rows = [
        [name.replace("_", " "), *map(score, row), score(sum(row) / len(row))]
        for name, row in found["miou"].items()
    ]
    hardest = sorted(found["miou"].items(), key=lambda item: sum(item[1]))[:6]
    chart = lines(
        [
            Line(n.replace("_", " "), severities, [found["clean"], *row], dots=True)
            for n, row in hardest
        ],
        Axis("severity (0: clean)"),
        Axis("mIoU", 0, 1.0),
        "mIoU by severity of the most harmful corruptions",
    )
    header = ["severity", *map(str, found["severities"]), "mean"]
    summary = f"Clean {score(found['clean'])}, mean under corruption {score(found['mpc'])}"
    if found["rpc"] is not None:
        summary += f": {percent(found['rpc'])} of it is kept"
    body = [note(f"{summary}. {found['policy']}."), figure(chart, "The most harmful")]
    return Section(title, lead, [*body, table(header, rows)])


def _provenance(folder: Path, info: SegmenterInfo) -> Section:
    about = {"sha256 of the weights": info.weights_sha256, "training digest": info.training_digest}
    if info.encoder_start is not None:
        about["weights the encoder started from"] = info.encoder_start
    if info.skipped:
        about["damaged samples left out"] = str(sum(info.skipped.values()))
    settings = [c.model_dump(mode="json") for c in info.members] or info.config.model_dump(
        mode="json"
    )
    body = [
        table(["", "model"], rows_of(about), words=True),
        details("Settings of the training", json.dumps(settings, indent=1)),
    ]
    record = folder / TRAINING_NAME
    if record.is_file():
        body.append(details("What decided the result", record.read_text(encoding="utf-8").strip()))
    body.append(table(["", "program that wrote this report"], rows_of(program()), words=True))
    return Section("Provenance", "How to make this model again.", body)
