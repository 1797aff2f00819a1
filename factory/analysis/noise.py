"""Table 5: the noise with which images are encoded. Shared by all, per timestep, or always new.

For the paper's third policy, new noise in every iteration, every training image is encoded with
several draws of noise, which take turns; test images have draws that were never trained on.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field

from factory.analysis.base import (
    Analysis,
    Cell,
    Findings,
    Numbers,
    Results,
    Settings,
    Table,
    Value,
    on_all_splits,
)
from factory.analysis.drawing import score_bars
from factory.analysis.features import FeaturePool
from factory.analysis.judging import (
    all_of,
    difference,
    is_equal,
    points,
    sentence,
)
from factory.analysis.study import Study
from factory_core.dataset import IGNORE
from labelers.config import LabelerConfig, ReferenceTraining

SHARED, PER_TIMESTEP, FRESH = "shared", "per_timestep", "fresh"
# As in the paper's table: shared by training and test images, shared by timesteps.
POLICIES = {
    SHARED: ("yes", "yes"),
    PER_TIMESTEP: ("yes", "no"),
    FRESH: ("no", "no"),
}


class NoiseSettings(Settings):
    """Also: how many draws of noise a training image has."""

    draws: int = Field(
        default=4, ge=1, description="of noise per training image, where it is always new"
    )


def pool_of(study: Study, policy: str) -> FeaturePool:
    """The annotated images, encoded with the noise of a policy.

    Where it is always new, the images come once per draw, and once more, to be scored.
    """
    generator = study.diffusing.with_noise(policy)
    images, indices = study.pool.images, None
    if policy == FRESH:
        copies = _draws(study) + 1
        images = images.repeat(copies, 1, 1, 1)
        indices = list(range(len(images)))
    folder = study.folder / f"noise-{policy}"
    return FeaturePool(folder, images, generator, study.settings.labeler.feature_dtype, indices)


def prepare(study: Study) -> None:
    """Encode with all policies."""
    for policy in POLICIES:
        pool_of(study, policy).compute(study.default_maps, study.console)


def run(study: Study, cell: Cell) -> Numbers:
    """A labeler trained and scored on images with the noise of one policy."""
    split, pool = study.split(cell.split), pool_of(study, cell.variant)
    masks, config, first = study.masks_of(split.train), study.settings.labeler, 0
    if cell.variant == FRESH:
        draws, count = _draws(study), len(masks)
        config, first = per_draw(config, draws), draws * count
        masks = torch.cat([*[masks] * draws, torch.full_like(masks, IGNORE)])
    labeler = study.fit_on(pool.tables(study.default_maps), masks, split.seed, config)
    rows = [first + row for row in split.test]
    return study.score_masks(study.predict(labeler, rows, pool), split.test)


def per_draw(config: LabelerConfig, draws: int) -> LabelerConfig:
    """The settings for images that come `draws` times, such that as many steps are taken."""
    training = config.training
    if not isinstance(training, ReferenceTraining):
        return config  # a fixed number of steps
    changes = {
        "min_epochs": math.ceil(training.min_epochs / draws),
        "max_epochs": math.ceil(training.max_epochs / draws),
    }
    return config.model_copy(update={"training": training.model_copy(update=changes)})


def summarise(study: Study, results: Results) -> Findings:
    """mIoU by policy."""
    scores = {policy: results.spread(policy) for policy in POLICIES}
    gains = {
        policy: difference(results.by_split(policy), results.by_split(SHARED))
        for policy in POLICIES
    }
    rows: list[list[Value]] = [
        [policy, *POLICIES[policy], scores[policy], gains[policy]] for policy in POLICIES
    ]
    others = [PER_TIMESTEP, FRESH]
    changes = " and ".join(f"{points(gains[policy])} with {policy} noise" for policy in others)
    evidence = f"mIoU is {points(scores[SHARED])} with shared noise, and changes by {changes}"
    shared_by = ["shared by training and test", "shared by timesteps"]
    return Findings(
        Table(["noise", *shared_by, "mIoU", "minus shared"], rows),
        sentence(
            "the noise policy hardly matters",
            all_of(is_equal(gains[policy]) for policy in others),
            evidence,
        ),
        "Two policies count as equal if the mean of the differences in mIoU, split by split, is "
        f"within their standard deviation. Always new noise: {_draws(study)} draws per training "
        "image, which take turns, and unseen ones for the images that are scored.",
        {"noise": lambda: score_bars(list(scores), list(scores.values()))},
    )


def _draws(study: Study) -> int:
    assert isinstance(study.settings, NoiseSettings)
    return study.settings.draws


ANALYSIS = Analysis(
    name="noise",
    title="mIoU by noise policy (Table 5)",
    cells=lambda study: on_all_splits(study, POLICIES),
    run=run,
    summarise=summarise,
    settings=NoiseSettings,
    needs=frozenset({"timesteps"}),
    prepare=prepare,
)
