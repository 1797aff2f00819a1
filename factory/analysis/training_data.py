"""Table 3: labelers trained on real images, or on as many annotated samples of a generator."""

from __future__ import annotations

import numpy as np
import torch

from factory.analysis.base import (
    Analysis,
    Cell,
    Findings,
    Numbers,
    Results,
    Table,
    Value,
    on_all_splits,
    prepare_default,
)
from factory.analysis.drawing import score_bars
from factory.analysis.judging import (
    ABOVE,
    all_of,
    difference,
    is_above,
    points,
    sentence,
)
from factory.analysis.study import Study
from factory.analysis.synthetic import sample_pool, synthetic_sets
from factory_core.dataset import IGNORE

REAL, OWN = "real", "own-labels"
NO_SAMPLES = (
    "No annotated samples were given (--synthetic-labeled DIR), so the synthetic images have the "
    "labels that a labeler trained on the real ones gave them: nobody checked those."
)


def images_per_set(study: Study) -> int:
    """How many images every labeler is trained on: the most that all sets have."""
    counts = [len(found.masks) for found in synthetic_sets(study)]
    return min([len(study.splits[0].train), *counts])


def variants(study: Study) -> dict[str, str]:
    """Real images and every synthetic set: the name of the cells, and that in tables.

    The former includes the number of images, which depends on the smallest set.
    """
    count = images_per_set(study)
    sets = {data.variant: data.name for data in synthetic_sets(study)}
    found = {REAL: "real images", **(sets or {OWN: "samples, labelled by a labeler"})}
    return {f"{variant}-{count}": name for variant, name in found.items()}


def check(study: Study) -> None:
    """Raise ValueError for folders of samples that cannot be read, or without two images."""
    if (found := images_per_set(study)) < 2:
        raise ValueError(
            f"training-data: found {found} images in the smallest set, expected at least 2: "
            "annotate more samples"
        )


def prepare(study: Study) -> None:
    """Encode the real images and all sets."""
    prepare_default(study)
    pools = [data.pool for data in synthetic_sets(study)]
    for pool in pools or [sample_pool(study, images_per_set(study))]:
        pool.compute(study.default_maps, study.console)


def run(study: Study, cell: Cell) -> Numbers:
    """A labeler trained on one set, scored on real images."""
    split = study.split(cell.split)
    variant, _, number = cell.variant.rpartition("-")
    count = int(number)
    rows = split.subset(count)
    if variant == REAL:
        labeler = study.fit(study.default_maps, rows, split.seed)
        return study.score(labeler, split.test)
    if variant == OWN:
        pool = sample_pool(study, count)
        teacher = study.fit(study.default_maps, rows, split.seed)
        masks = study.predict(teacher, range(count), pool)
    else:
        data = next(data for data in synthetic_sets(study) if data.variant == variant)
        pool, chosen = data.pool, subset(len(data.masks), count, split.seed)
        masks = torch.full_like(data.masks, IGNORE)
        masks[chosen] = data.masks[chosen]
    labeler = study.fit_on(pool.tables(study.default_maps), masks, split.seed)
    return study.score(labeler, split.test)


def subset(images: int, count: int, seed: int) -> list[int]:
    """`count` of `images` rows, by seed."""
    return sorted(np.random.default_rng(seed).permutation(images)[:count].tolist())


def summarise(study: Study, results: Results) -> Findings:
    """mIoU on real images, by training data."""
    names = variants(study)
    first, *others = names
    scores = {variant: results.spread(variant) for variant in names}
    losses = {
        variant: difference(results.by_split(first), results.by_split(variant))
        for variant in others
    }
    real = results.by_split(first)
    rows: list[list[Value]] = [
        [names[v], scores[v], difference(results.by_split(v), real)] for v in names
    ]
    evidence = f"mIoU is {points(scores[first])} after training on real images" + "".join(
        f", {points(scores[v])} on {names[v]}" for v in losses
    )
    return Findings(
        Table(["training data", "mIoU on real images", "minus real"], rows),
        sentence(
            "labelers trained on real images are better than on synthetic ones",
            all_of(is_above(loss) for loss in losses.values()),
            evidence,
        ),
        f"{ABOVE} All labelers were trained on {images_per_set(study)} images and scored on the "
        "same real ones.",
        {"training-data": lambda: score_bars(list(names.values()), list(scores.values()))},
        [] if study.sources.synthetic else [NO_SAMPLES],
    )


ANALYSIS = Analysis(
    name="training-data",
    title="mIoU by training data (Table 3)",
    cells=lambda study: on_all_splits(study, variants(study)),
    run=run,
    summarise=summarise,
    check=check,
    prepare=prepare,
)
