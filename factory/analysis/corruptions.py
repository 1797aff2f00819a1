"""Figure 6: labelers trained on clean images, scored on corrupted ones.

The 18 corruptions are those of Hendrycks and Dietterich (2019), the four extra ones included, glass
blur left out. They change the 8-bit image, before any features are taken from it.
"""

from __future__ import annotations

from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING

import torch

from factory.analysis.base import (
    MIOU,
    Analysis,
    Cell,
    Findings,
    Numbers,
    Results,
    Table,
    on_all_splits,
)
from factory.analysis.drawing import score_bars, score_lines
from factory.analysis.judging import (
    ABOVE,
    all_of,
    difference,
    is_above,
    points,
    sentence,
)
from factory.analysis.representing import PIXELS, Representation, notes_on, representations
from factory.analysis.study import Study
from factory.annotation.encoding import encode_batch
from generators.base import batches
from labelers.labeler import Labeler
from train_seg.evaluation.evaluate import Spread
from train_seg.evaluation.robustness import check_size, corruption_names, robustness

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEVERITIES = {1: "weak", 3: "medium", 5: "strong"}
LEFT_OUT = "glass_blur"
SEED = 0


def compared(study: Study) -> list[Representation]:
    """The generator, the encoders, and the colours of pixels as a baseline."""
    return representations(study, (PIXELS,))


def corruptions() -> list[str]:
    """The names of the 18."""
    return [name for name in corruption_names("all") if name != LEFT_OUT]


def check(study: Study) -> None:
    """Raise ValueError for small images or unusable encoders, ImportError without the package."""
    corruptions()
    check_size(study.generator.image_size)
    compared(study)


def prepare(study: Study) -> None:
    """Encode the clean images."""
    for found in compared(study):
        found.compute(study)


def run(study: Study, cell: Cell) -> Numbers:
    """mIoU on clean images, `NAME.SEVERITY` under each corruption, and `severity.N`, their mean."""
    found = next(r for r in compared(study) if r.variant == cell.variant)
    labeler = found.fit(study, cell.split)
    test = list(study.split(cell.split).test)
    clean = study.score(labeler, test, found.pool)[MIOU]
    assert clean is not None
    [result] = robustness(
        [partial(label, found, labeler)],
        study.annotations.images[test],
        study.masks[test],
        study.classes,
        [clean],
        corruptions(),
        tuple(SEVERITIES),
        seed=SEED,
    )
    numbers: Numbers = {MIOU: clean}
    for name, row in zip(result.names, result.miou, strict=True):
        for severity, miou in zip(SEVERITIES, row, strict=True):
            numbers[f"{name}.{severity}"] = miou
    for i, severity in enumerate(SEVERITIES):
        numbers[f"severity.{severity}"] = fmean(row[i] for row in result.miou)
    return numbers


def label(found: Representation, labeler: Labeler, images: torch.Tensor) -> torch.Tensor:
    """Class ids uint8 `[N, H, W]` of images uint8 `[N, 3, H, W]`."""
    encoder = found.encoder
    size = encode_batch(encoder.feature_spec, encoder.batch_size)
    masks = []
    for rows in batches(range(len(images)), size):
        some = images[rows.start : rows.stop]
        masks.append(labeler.predict(some, encoder.encode(some, rows)).mask)
    return torch.cat(masks)


def summarise(study: Study, results: Results) -> Findings:
    """Mean mIoU of the 18 corruptions by severity."""
    found = compared(study)
    ours, *others = found
    columns = {"clean": MIOU} | {w: f"severity.{s}" for s, w in SEVERITIES.items()}
    scores = {
        r.name: {column: results.spread(r.variant, key) for column, key in columns.items()}
        for r in found
    }
    gains = [
        difference(results.by_split(ours.variant, key), results.by_split(r.variant, key))
        for r in others
        for column, key in columns.items()
        if column != "clean"
    ]
    evidence = "mean mIoU under weak, medium and strong corruption is " + "; ".join(
        f"{', '.join(points(scores[r.name][w]) for w in SEVERITIES.values())} with {r.name}"
        for r in found
    )
    lines = {name: list(by.values()) for name, by in scores.items()}
    ticks = ["clean", *(f"{word} ({severity})" for severity, word in SEVERITIES.items())]
    return Findings(
        Table(
            ["representation", *columns],
            [[r.name, *scores[r.name].values()] for r in found],
        ),
        sentence(
            "labelers on a diffusion model are the most robust to corrupted images",
            all_of(is_above(gain) for gain in gains),
            evidence,
        ),
        f"{ABOVE} {ours.name} has to be better than each of the others at every severity. The "
        f"scores are means over {len(corruptions())} corruptions.",
        {
            "corruptions": lambda: score_lines([0, *SEVERITIES], lines, "severity", ticks),
            "corruptions-each": partial(_draw_each, results, ours),
        },
        [f"Worst for {ours.name}: {_worst(results, ours)}.", *notes_on(found, study)],
    )


def _mean_of(results: Results, found: Representation, name: str) -> Spread:
    """mIoU under one corruption: the mean over severities, and its deviation over the splits."""
    by_severity = [results.by_split(found.variant, f"{name}.{s}") for s in SEVERITIES]
    return Spread.of([fmean(by[split] for by in by_severity) for split in by_severity[0]])


def _draw_each(results: Results, found: Representation) -> Figure:
    names = corruptions()
    scores = [_mean_of(results, found, name) for name in names]
    return score_bars([name.replace("_", " ") for name in names], scores)


def _worst(results: Results, found: Representation) -> str:
    """The corruption with the lowest mean mIoU, and that."""
    scores = {name: _mean_of(results, found, name) for name in corruptions()}
    name = min(scores, key=lambda name: scores[name].mean or 0)
    return f"{name.replace('_', ' ')}, {points(scores[name])}"


ANALYSIS = Analysis(
    name="corruptions",
    title="mIoU on corrupted images (Figure 6)",
    cells=lambda study: on_all_splits(study, [r.variant for r in compared(study)]),
    run=run,
    summarise=summarise,
    check=check,
    prepare=prepare,
)
