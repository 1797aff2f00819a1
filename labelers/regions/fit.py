"""Making a labeler of the regions of a factorized generator: nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from generators.base import REGIONS_MAP, FeatureMapSpec
from labelers.config import LabelerConfig
from labelers.info import GeneratorInfo, LabelerInfo
from labelers.labeler import Labeler
from labelers.regions.naming import match_regions, resized
from labelers.training.feature_store import FeatureStore


def fit_regions(
    store: FeatureStore,
    masks: Tensor,
    config: LabelerConfig,
    *,
    classes: Sequence[str],
    generator: GeneratorInfo,
    data_digest: str,
    palette: list[list[int]] | None = None,
) -> Labeler:
    """Name the regions in `store` by masks uint8 `[N, H, W]`, where 255 is ignored.

    The score `train_accuracy` is the share of pixels that agree.
    """
    C, size = len(classes), (masks.shape[1], masks.shape[2])
    regions = number_of_regions(store.spec)
    confusion = torch.zeros(regions, C, dtype=torch.long)
    for row, mask in enumerate(masks.long()):
        m = resized(store.features(row)[REGIONS_MAP], size)[0]
        pairs = (m.argmax(0) * C + mask)[mask < C]
        confusion += torch.bincount(pairs, minlength=regions * C).view(regions, C)
    class_of = match_regions(confusion)
    agree = confusion[torch.arange(regions), torch.tensor(class_of)].sum() / confusion.sum()
    return Labeler.of_regions(
        LabelerInfo(
            classes=list(classes),
            palette=palette,
            features=store.spec,
            regions=class_of,
            generator=generator,
            image_size=size,
            data_digest=data_digest,
            config=config,
            scores={"train_accuracy": agree.item()},
        )
    )


def unnamed_regions(
    spec: Sequence[FeatureMapSpec],
    image_size: tuple[int, int],
    generator: GeneratorInfo,
    config: LabelerConfig,
) -> Labeler:
    """A labeler without any annotated image: its classes are `region 0` to `region K-1`."""
    regions = number_of_regions(spec)
    return Labeler.of_regions(
        LabelerInfo(
            classes=[f"region {k}" for k in range(regions)],
            features=tuple(spec),
            regions=tuple(range(regions)),
            generator=generator,
            image_size=image_size,
            data_digest="",
            config=config,
        )
    )


def number_of_regions(spec: Sequence[FeatureMapSpec]) -> int:
    """K; raises ValueError if the generator has no regions."""
    for item in spec:
        if item.name == REGIONS_MAP:
            return item.channels
    raise ValueError(
        "found a generator without regions, expected one of `train-generator --kind factorized`: "
        "give that, or another --kind"
    )
