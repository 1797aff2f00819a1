"""Naming regions by counting, and the labels and uncertainty they give."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from generators.base import REGIONS_MAP, FeatureMaps, FeatureMapSpec
from labelers.config import LabelerConfig
from labelers.info import GeneratorInfo
from labelers.labeler import Labeler
from labelers.regions.fit import fit_regions, unnamed_regions
from labelers.regions.naming import match_regions
from labelers.training.feature_store import FeatureStore

SIZE, K = 8, 3
SPEC = (FeatureMapSpec(REGIONS_MAP, K, SIZE, SIZE),)
CONFIG, GENERATOR = LabelerConfig(kind="regions"), GeneratorInfo(digest="of the generator")


def hard(regions: torch.Tensor) -> torch.Tensor:
    """Masks `[N, K, H, W]` of region numbers `[N, H, W]`."""
    return torch.nn.functional.one_hot(regions, K).permute(0, 3, 1, 2).float()


@pytest.fixture
def regions() -> torch.Tensor:
    return torch.randint(0, K, (4, SIZE, SIZE), generator=torch.Generator().manual_seed(0))


def fitted(regions: torch.Tensor, masks: torch.Tensor, folder: Path) -> Labeler:
    store = FeatureStore(folder, SPEC, len(regions), "float16", "test")
    store.append(FeatureMaps({REGIONS_MAP: hard(regions)}))
    about = {"generator": GENERATOR, "data_digest": "of the masks"}
    return fit_regions(store, masks, CONFIG, classes=["a", "b", "c"], **about)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_regions_find_their_classes(
    regions: torch.Tensor, tmp_path: Path, order: tuple[int, ...]
) -> None:
    masks = torch.tensor(order)[regions].to(torch.uint8)
    masks[:, 0] = 255
    labeler = fitted(regions, masks, tmp_path / "features")
    assert labeler.info.regions == order
    assert labeler.info.scores == {"train_accuracy": 1}
    labeler.save(tmp_path / "labeler")
    found = Labeler.load(tmp_path / "labeler")
    assert found.info.regions == order
    predicted = found.predict(None, FeatureMaps({REGIONS_MAP: hard(regions)}), probabilities=True)
    assert torch.equal(predicted.mask[:, 1:], masks[:, 1:])
    assert predicted.probabilities is not None
    assert torch.equal(predicted.probabilities.argmax(1).to(torch.uint8), predicted.mask)
    assert predicted.uncertainty.tolist() == [0] * 4


def test_uncertainty_is_the_entropy_of_the_masks(regions: torch.Tensor, tmp_path: Path) -> None:
    labeler = fitted(regions, regions.to(torch.uint8), tmp_path)
    even = torch.full((1, K, SIZE, SIZE), 1 / K)
    found = labeler.predict(None, FeatureMaps({REGIONS_MAP: even}), size=(16, 24))
    assert found.mask.shape == (1, 16, 24)
    assert found.uncertainty.item() == pytest.approx(math.log(K))


@pytest.mark.parametrize(
    ("confusion", "expected"),
    [
        # Region 1 has most of class 0, but region 0 has nothing else.
        ([[10, 0, 0], [12, 11, 0], [0, 0, 5]], (0, 1, 2)),
        ([[10, 0], [0, 8], [6, 1]], (0, 1, 0)),  # a third region for two classes
        ([[1, 2, 30]], (2,)),
    ],
)
def test_matching(confusion: list[list[int]], expected: tuple[int, ...]) -> None:
    assert match_regions(torch.tensor(confusion)) == expected


def test_without_names() -> None:
    info = unnamed_regions(SPEC, (SIZE, SIZE), GENERATOR, CONFIG)
    assert info.classes == ["region 0", "region 1", "region 2"]
    other = (FeatureMapSpec("t50.b1", 4, SIZE, SIZE),)
    with pytest.raises(ValueError, match="found a generator without regions"):
        unnamed_regions(other, (SIZE, SIZE), GENERATOR, CONFIG)
