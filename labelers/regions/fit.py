"""Making a labeler of regions: those of a factorized generator, or clusters of features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from generators.base import REGIONS_MAP, FeatureMapSpec
from labelers.config import LabelerConfig
from labelers.info import GeneratorInfo, LabelerInfo
from labelers.labeler import Labeler
from labelers.regions.clusters import PIXELS, fit_clusters, pixel_vectors
from labelers.regions.naming import match_regions
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

    Clusters are fitted first, on the images of which anything is known. The score `train_accuracy`
    is the share of pixels that agree. Raises ValueError if the generator has no regions.
    """
    C, size = len(classes), (masks.shape[1], masks.shape[2])
    known = [row for row, mask in enumerate(masks) if (mask < C).any()]
    clusters = None
    if config.kind == "clusters":
        vectors = pixel_vectors(store.tables(), size, known, PIXELS, config.seed)
        clusters = fit_clusters(vectors, store.spec, config.clusters, config.seed)
    regions = config.clusters if clusters else number_of_regions(store.spec)
    info = LabelerInfo(
        classes=list(classes),
        palette=palette,
        features=store.spec,
        regions=tuple(range(regions)),
        generator=generator,
        image_size=size,
        data_digest=data_digest,
        config=config,
    )
    labeler = Labeler.of_regions(info, clusters)
    confusion = torch.zeros(regions, C, dtype=torch.long)
    for row in known:
        mask = masks[row].long()
        m = labeler.regions(store.features(row), size)[0].cpu()
        pairs = (m.argmax(0) * C + mask)[mask < C]
        confusion += torch.bincount(pairs, minlength=regions * C).view(regions, C)
    class_of = match_regions(confusion)
    agree = confusion[torch.arange(regions), torch.tensor(class_of)].sum() / confusion.sum()
    found = {"regions": class_of, "scores": {"train_accuracy": agree.item()}}
    return Labeler.of_regions(info.model_copy(update=found), clusters)


def unnamed_regions(
    spec: Sequence[FeatureMapSpec],
    image_size: tuple[int, int],
    generator: GeneratorInfo,
    config: LabelerConfig,
) -> LabelerInfo:
    """Of a labeler without any annotated image: its classes are `region 0` to `region K-1`.

    Raises ValueError if the regions are those of a generator that has none.
    """
    regions = config.clusters if config.kind == "clusters" else number_of_regions(spec)
    return LabelerInfo(
        classes=[f"region {k}" for k in range(regions)],
        features=tuple(spec),
        regions=tuple(range(regions)),
        generator=generator,
        image_size=image_size,
        data_digest="",
        config=config,
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
