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
from factory.analysis.synthetic import SyntheticSet, sample_pool, synthetic_sets
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


def cells(study: Study) -> list[Cell]:
    """Real images, and every synthetic set."""
    found = [data.variant for data in synthetic_sets(study)]
    return on_all_splits(study, [REAL, *(found or [OWN])])


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
    split, count = study.split(cell.split), images_per_set(study)
    rows = split.subset(count)
    if cell.variant == REAL:
        labeler = study.fit(study.default_maps, rows, split.seed)
        return study.score(labeler, split.test)
    if cell.variant == OWN:
        pool = sample_pool(study, count)
        teacher = study.fit(study.default_maps, rows, split.seed)
        masks = study.predict(teacher, range(count), pool)
    else:
        data = _find(study, cell.variant)
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
    names = {REAL: "real images"}
    names |= {data.variant: data.name for data in synthetic_sets(study)}
    notes = []
    if len(names) == 1:
        names[OWN] = "samples, labelled by a labeler"
        notes.append(NO_SAMPLES)
    scores = {variant: results.spread(variant) for variant in names}
    losses = {
        variant: difference(results.by_split(REAL), results.by_split(variant))
        for variant in names
        if variant != REAL
    }
    over = {
        variant: difference(results.by_split(variant), results.by_split(REAL)) for variant in names
    }
    rows = [[names[v], scores[v], over[v]] for v in names]
    evidence = f"mIoU is {points(scores[REAL])} after training on real images" + "".join(
        f", {points(scores[v])} on {names[v]}" for v in losses
    )
    return Findings(
        Table(["training data", "mIoU on real images", "over real"], rows),
        sentence(
            "labelers trained on real images are better than on synthetic ones",
            all_of(is_above(loss) for loss in losses.values()),
            evidence,
        ),
        f"{ABOVE} All labelers were trained on {images_per_set(study)} images and scored on the "
        "same real ones.",
        {"training-data": lambda: score_bars(list(names.values()), list(scores.values()))},
        notes,
    )


def _find(study: Study, variant: str) -> SyntheticSet:
    return next(data for data in synthetic_sets(study) if data.variant == variant)


ANALYSIS = Analysis(
    name="training-data",
    title="mIoU by training data (Table 3)",
    cells=cells,
    run=run,
    summarise=summarise,
    check=check,
    prepare=prepare,
)
