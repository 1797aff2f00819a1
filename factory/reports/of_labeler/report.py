"""The page of a labeler: folds, classes, calibration, the dropped tenth."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from factory.reports.calibration import Calibration
from factory.reports.of_segmenter.scores import Share
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
    table,
)
from factory.reports.page.charts import Axis, Line, Mark, bars, lines
from factory.reports.page.parts import percent, score
from factory.reports.provenance import program, rows_of
from factory_core.dataset import default_palette
from labelers.info import LabelerInfo, describe

SCORES = {"miou": "mIoU", "miou_reference": "mIoU (reference)", "pixel_accuracy": "pixel accuracy"}
COVERAGE = 0.9  # what is left when a tenth is dropped


@dataclass(frozen=True)
class Folds:
    """Scores on one or several sets of images that were not trained on.

    `splits` hold `miou`, `miou_reference`, `pixel_accuracy` and `iou` (by class), 0-1, and the
    number of images in `images`; `on` says what they are. `calibration` is None if older.
    """

    on: str
    splits: Sequence[Mapping[str, Any]]
    summary: Mapping[str, Mapping[str, Share]]
    iou: Mapping[str, Mapping[str, Share]]
    calibration: Calibration | None
    was_trained_on: bool = False


def labeler_page(name: str, info: LabelerInfo, folds: Folds | None) -> Page:
    """The report of a labeler, with its scores if there are any."""
    height, width = info.image_size
    config, kinds = info.config, []
    if config.has_ensemble:
        kinds.append(f"{config.members} pixel classifiers on the generator's features")
    if config.has_network:
        kinds.append(f"{config.network.members} networks that began as the generator")
    summary = (
        f"Labels images of {width} × {height} pixels with {len(info.classes)} classes, and says how"
        f" sure it is: {' and '.join(kinds)}."
    )
    palette = info.palette or default_palette(len(info.classes))
    opening = [legend(info.classes, palette)]
    if folds is not None:
        opening.insert(0, _headline(folds))
        if folds.was_trained_on:
            text = "These images were trained on, so all scores are better than on new images."
            opening.insert(1, note(text, warning=True))
    calibration = None if folds is None else folds.calibration
    sections = [_folds(folds), _classes(folds), _calibrated(calibration), _tenth(calibration)]
    return Page(name, "Labeler", summary, opening, [*sections, _provenance(info)])


def _headline(folds: Folds) -> Any:
    found = [Fact(_spread(folds.summary[key]), name) for key, name in SCORES.items()]
    return facts([*found, Fact(str(sum(s["images"] for s in folds.splits)), folds.on)])


HINT = (
    "To measure this, add `--labeled DIR`: annotated images that were not trained on; or report on"
    " the output of `factory train-labeler --folds 5`."
)


def _folds(folds: Folds | None) -> Section:
    title = "Scores"
    lead = "How well it labels real images that it was not trained on."
    if folds is None:
        return Section(title, lead, [note(HINT)])
    rows = [
        [f"split {i}" if len(folds.splits) > 1 else folds.on, str(split["images"])]
        + [score(split[key]) for key in SCORES]
        for i, split in enumerate(folds.splits, 1)
    ]
    if len(rows) > 1:
        rows.append(["mean ± deviation", "", *(_spread(folds.summary[key]) for key in SCORES)])
    return Section(title, lead, [table(["", "test images", *SCORES.values()], rows)])


def _classes(folds: Folds | None) -> Section:
    title, lead = "Scores of each class", "A class that the labeler misses, the dataset misses."
    if folds is None:
        return Section(title, lead, [note(HINT)])
    names = list(folds.iou)
    means = [folds.iou[name]["mean"] for name in names]
    chart = bars(names, [("IoU", means)], Axis("IoU", 0, 1.0), "IoU of each class")
    rows = [[name, _spread(folds.iou[name])] for name in names]
    caption = "mean ± standard deviation over the splits" if len(folds.splits) > 1 else ""
    return Section(
        title, lead, [columns(figure(chart, "IoU"), table(["class", "IoU"], rows, caption))]
    )


def _calibrated(found: Calibration | None) -> Section:
    title = "Does the uncertainty predict errors?"
    lead = "Dropping the uncertain helps only as far as it does."
    if found is None:
        return Section(title, lead, [note(HINT)])
    x, y = found.reliability()
    reliability = lines(
        [Line("error", x, [100 * v for v in y], dots=True)],
        Axis("uncertainty of the pixel, nats", 0),
        Axis("wrong pixels, %", 0),
        "Share of wrong pixels by uncertainty",
    )
    coverage, risk = found.risk_coverage()
    curve = lines(
        [
            Line("most certain first", [100 * c for c in coverage], [100 * r for r in risk]),
            Line("in random order", [0, 100], [100 * found.error] * 2),
        ],
        Axis("pixels kept, %", 0, 100),
        Axis("wrong pixels among them, %", 0),
        "Share of wrong pixels among the most certain ones",
        [Mark(100 * COVERAGE, "a tenth dropped")],
    )
    body = [
        facts(
            [
                Fact(percent(found.error, 2), "wrong pixels: area in random order"),
                Fact(percent(found.area, 2), "area under risk-coverage"),
                Fact(percent(found.least_area, 2), "least possible area"),
            ]
        ),
        columns(
            figure(
                reliability,
                "Reliability",
                "Groups of equally many pixels; a curve that rises means that the uncertainty"
                " warns of errors.",
            ),
            figure(
                curve,
                "Risk and coverage",
                "Error rate of the pixels that remain if the least certain are set aside.",
            ),
        ),
    ]
    return Section(title, lead, body)


def _tenth(found: Calibration | None) -> Section:
    title = "Where the dropped tenth sits"
    lead = "A dataset loses its most uncertain tenth. On these images, it would be the following."
    if found is None:
        return Section(title, lead, [note(HINT)])
    dropped = set(found.dropped())
    groups = [
        (name, [image for i, image in enumerate(found.images) if (i in dropped) == is_dropped])
        for name, is_dropped in (("kept", False), ("dropped", True))
    ]
    chart = lines(
        [
            Line(
                name,
                [image.uncertainty for image in images],
                [100 * image.error for image in images],
                joined=False,
            )
            for name, images in groups
        ],
        Axis("uncertainty of the image, nats"),
        Axis("wrong pixels, %", 0),
        "Wrong pixels of each image by its uncertainty",
    )
    rows = [
        [name, str(len(images)), percent(sum(i.error for i in images) / max(len(images), 1), 2)]
        for name, images in groups
    ]
    header = ["images", "number", "wrong pixels, mean"]
    names = ", ".join(found.images[i].name for i in found.dropped()[:10])
    return Section(
        title,
        lead,
        [
            columns(
                figure(chart, "Each image", "Right of the others: the most uncertain tenth."),
                table(header, rows),
            ),
            note(f"Most uncertain: {names}."),
        ],
    )


def _provenance(info: LabelerInfo) -> Section:
    about = {
        "sha256 of the weights": info.weights_sha256,
        "generator": str(info.generator.config.get("weights", "unknown")),
        "sha256 of the generator": info.generator.digest,
        "sha256 of the annotations": info.data_digest,
        "feature maps": describe(info.features) or "none",
    }
    return Section(
        "Provenance",
        "What the labeler was made from; digests are sha256 of the contents.",
        [
            table(["", "labeler"], rows_of(about), words=True),
            details("Settings", json.dumps(info.config.model_dump(mode="json"), indent=1)),
            table(["", "program that wrote this report"], rows_of(program()), words=True),
        ],
    )


def _spread(found: Mapping[str, Share]) -> str:
    std = found.get("std")
    return score(found["mean"]) + ("" if std is None else f" ± {std:.3f}")
