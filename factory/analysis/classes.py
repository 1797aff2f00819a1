"""Figures 9 and 10: the IoU of every class, and how often classes occur in training sets."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np

from factory.analysis.base import (
    Analysis,
    Cell,
    Findings,
    Numbers,
    Results,
    Table,
    Value,
    on_all_splits,
)
from factory.analysis.counting import Counts, count_classes
from factory.analysis.drawing import class_bars
from factory.analysis.judging import sentence
from factory.analysis.representing import Representation, representations
from factory.analysis.sources import cell_name
from factory.analysis.study import Study
from factory.analysis.synthetic import synthetic_sets
from factory_core.dataset.sample_set import SampleSet
from train_seg.evaluation.evaluate import Spread
from train_seg.network.segmenter import Segmenter

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REAL, DATA = "real", "dataset"
MOST_OF_DATA = 1000  # samples of a dataset whose masks are counted
MODELS_NOTE = (
    "Models were scored on the images of every split: if one was trained on some of these images, "
    "its scores are too high."
)
NO_SETS = (
    "Give annotated samples (--synthetic-labeled DIR) or a dataset (--data DIR) to count classes "
    "in them too."
)


@lru_cache(maxsize=8)
def load_model(folder: str, device: str) -> Segmenter:
    """The segmenter in `folder`, once per process; raises as `Segmenter.load`."""
    return Segmenter.load(folder, device)


def models(study: Study) -> dict[str, Segmenter]:
    """The segmenters that were given, by cell; raises ValueError for one of other classes."""
    found = {}
    for name, folder in study.sources.models.items():
        model = load_model(folder, str(study.device))
        if model.classes != study.classes:
            raise ValueError(
                f"--model {folder} has the classes {', '.join(model.classes)}, --labeled "
                f"{', '.join(study.classes)}: they must agree in names and order"
            )
        found[cell_name(name, model.training_digest)] = model
    return found


def contenders(study: Study) -> dict[str, str]:
    """What is scored: the name of its cells, and that in tables."""
    labelers = {r.variant: f"labeler, {r.name}" for r in representations(study)}
    return labelers | dict(zip(models(study), study.sources.models, strict=True))


def check(study: Study) -> None:
    """Raise ValueError or OSError for models, encoders and sets that cannot be used."""
    contenders(study)
    sets(study)


def prepare(study: Study) -> None:
    """Encode the annotated images."""
    for found in representations(study):
        found.compute(study)


def run(study: Study, cell: Cell) -> Numbers:
    """The IoU of every class on the split's test images."""
    test = study.split(cell.split).test
    if (model := models(study).get(cell.variant)) is not None:
        return study.score_masks(model.predict(study.annotations.images[list(test)]), test)
    found: Representation = next(r for r in representations(study) if r.variant == cell.variant)
    return study.score(found.fit(study, cell.split), test, found.pool)


def sets(study: Study) -> dict[str, Counts]:
    """How often classes occur in the annotated images, and in what they are compared with.

    Raises ValueError for a dataset of other classes.
    """
    count = len(study.classes)
    found = {REAL: count_classes(study.masks.numpy(), count)}
    for data in synthetic_sets(study):
        found[data.name] = count_classes(data.masks.numpy(), count)
    if study.sources.data is not None:
        samples = SampleSet.open(study.sources.data)
        if samples.classes != study.classes:
            raise ValueError(
                f"--data {study.sources.data} has the classes {', '.join(samples.classes)}, "
                f"--labeled {', '.join(study.classes)}: they must agree in names and order"
            )
        masks = np.stack([sample.mask for sample in samples[:MOST_OF_DATA]])
        found[DATA] = count_classes(masks, count)
    return found


def summarise(study: Study, results: Results) -> Findings:
    """IoU by class and contender, and counts by class and set."""
    names, counts = contenders(study), sets(study)
    iou = {
        name: [results.spread(variant, f"iou.{c}") for c in study.classes]
        for variant, name in names.items()
    }
    columns = ["class", *(f"IoU: {name}" for name in iou)]
    columns += [f"{what}: {name}" for name in counts for what in ("images", "components")]
    rows: list[list[Value]] = []
    for i, class_name in enumerate(study.classes):
        row: list[Value] = [class_name, *(scores[i] for scores in iou.values())]
        row += [n for found in counts.values() for n in (found.images[i], found.components[i])]
        rows.append(row)
    notes = [
        f"Sets: {', '.join(f'{name} {found.masks} images' for name, found in counts.items())}.",
        *([MODELS_NOTE] if study.sources.models else []),
        *([NO_SETS] if len(counts) == 1 else []),
    ]
    said, rule = _said(study.classes, iou, counts)
    return Findings(
        Table(columns, rows),
        said,
        rule,
        {
            "classes-iou": partial(_draw_iou, study.classes, iou),
            "classes-counts": partial(_draw_counts, study.classes, counts),
        },
        notes,
    )


def _said(
    classes: list[str], iou: Mapping[str, list[Spread]], counts: Mapping[str, Counts]
) -> tuple[str, str]:
    """Sentences on classes and contenders, and how they were decided."""
    parts, rules = [], []
    first, *others = iou
    if others:
        wins, scored = best_in(iou)
        parts.append(
            sentence(
                "the labeler of a diffusion model finds most classes better than other methods do",
                "holds" if 2 * wins > scored else "does not hold",
                f"{first} has the highest IoU in {wins} of {scored} classes",
            )
        )
        rules.append("It counts as better in most if its mean IoU is highest in over half of them.")
    if len(counts) > 1:
        more, compared = more_in_real(counts)
        parts.append(
            sentence(
                "real training images show more instances of most classes than synthetic ones",
                "holds" if 2 * more > compared else "does not hold",
                f"per image, {more} of {compared} classes have more connected components in real "
                "images than in any synthetic set",
            )
        )
        rules.append("Connected components stand for instances; over half of the classes decide.")
    if not parts:
        hardest = min(zip(iou[first], classes, strict=True), key=lambda pair: _mean(pair[0]))
        parts.append(
            f"There is nothing to compare with: {first} finds {hardest[1]} worst, with an IoU of "
            f"{100 * _mean(hardest[0]):.1f}."
        )
    return " ".join(parts), " ".join(rules)


def best_in(iou: Mapping[str, list[Spread]]) -> tuple[int, int]:
    """In how many classes the first contender has the highest mean IoU, and how many have one."""
    first, *others = iou.values()
    scored = [i for i, score in enumerate(first) if score.mean is not None]
    wins = [i for i in scored if all(_mean(first[i]) > _mean(other[i]) for other in others)]
    return len(wins), len(scored)


def more_in_real(counts: Mapping[str, Counts]) -> tuple[int, int]:
    """In how many classes real masks have the most components per image, and how many occur."""
    real, *others = (found.per_image for found in counts.values())
    occurring = [i for i in range(len(real)) if any(found[i] for found in (real, *others))]
    more = [i for i in occurring if all(real[i] > other[i] for other in others)]
    return len(more), len(occurring)


def _mean(score: Spread) -> float:
    return score.mean or 0.0


def _draw_iou(classes: list[str], iou: Mapping[str, list[Spread]]) -> Figure:
    means = {name: [100 * _mean(s) for s in scores] for name, scores in iou.items()}
    stds = {name: [100 * (s.std or 0.0) for s in scores] for name, scores in iou.items()}
    return class_bars(classes, {"IoU": means}, stds)


def _draw_counts(classes: list[str], counts: Mapping[str, Counts]) -> Figure:
    """Relative to the number of masks, because sets differ in size."""
    panels = {
        "% of the images": {name: found.shares for name, found in counts.items()},
        "connected components per image": {n: found.per_image for n, found in counts.items()},
    }
    return class_bars(classes, panels)


ANALYSIS = Analysis(
    name="classes",
    title="IoU of each class, and how often it occurs (Figures 9 and 10)",
    cells=lambda study: on_all_splits(study, contenders(study)),
    run=run,
    summarise=summarise,
    check=check,
    prepare=prepare,
)
