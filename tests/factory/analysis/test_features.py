"""Features on disk: each map once, from one pass per timestep, and resumed map by map."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rich.console import Console

import generators
from factory.analysis.features import FeaturePool
from generators.base import FeatureMaps, Generator
from generators.ddpm.config import DDPMConfig
from generators.ddpm.model import DDPMGenerator
from labelers.ensemble.classifiers import channel_last, group_by_size

IMAGES = torch.randint(0, 256, (11, 3, 16, 16), dtype=torch.uint8, generator=torch.manual_seed(0))
NAMES = ["t10.b3", "t10.b0", "t500.b2", "t500.b3"]
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def network(generator: Path) -> Generator:
    return generators.load(DDPMConfig(weights=str(generator), precision="float32"), "cpu")


def one_pass(network: Generator) -> FeatureMaps:
    """The maps of all images at once, as a recipe would record them."""
    assert isinstance(network, DDPMGenerator)
    return network.recording([0, 2, 3], [10, 500]).encode(IMAGES)


def test_maps_are_those_of_the_generator(network: Generator, tmp_path: Path) -> None:
    pool = FeaturePool(tmp_path, IMAGES, network, "float32")
    pool.compute(NAMES, QUIET)
    expected = one_pass(network)
    for row in (0, 10):
        for name, found in pool.maps(NAMES, row).items():
            torch.testing.assert_close(found[0], expected[name][row], rtol=1e-4, atol=1e-5)
    tables = pool.tables(NAMES)
    assert tables.spec == FeatureMaps({name: expected[name] for name in NAMES}).spec
    for size, table in channel_last(expected, group_by_size(tables.spec)).items():
        torch.testing.assert_close(tables.tables()[size], table, rtol=1e-4, atol=1e-5)


def test_interrupted_maps_resume_where_each_stopped(
    network: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kill comes after the first map of the second batch: the maps differ in length."""
    from labelers.training.feature_store import FeatureStore

    append, appended = FeatureStore.append, []

    def interrupted(self: FeatureStore, features: FeatureMaps) -> None:
        if len(appended) == 3:
            raise KeyboardInterrupt
        appended.append(self.folder.name)
        append(self, features)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureStore, "append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            FeaturePool(tmp_path, IMAGES, network, "float32").compute(NAMES, QUIET)
    assert appended == ["t10.b3", "t10.b0", "t10.b3"]
    pool = FeaturePool(tmp_path, IMAGES, network, "float32")
    pool.compute(NAMES, QUIET)
    expected = one_pass(network)
    for row in range(len(IMAGES)):
        for name, found in pool.maps(NAMES, row).items():
            torch.testing.assert_close(found[0], expected[name][row], rtol=1e-4, atol=1e-5)


def test_other_noise_is_other_features(generator: Path, network: Generator, tmp_path: Path) -> None:
    FeaturePool(tmp_path, IMAGES, network).compute(NAMES[:1], QUIET)
    config = DDPMConfig(weights=str(generator), precision="float32")
    features = config.features.model_copy(update={"noise_seed": 1})
    other = generators.load(config.model_copy(update={"features": features}), "cpu")
    pool = FeaturePool(tmp_path, IMAGES, other)
    pool.compute(NAMES[:1], QUIET)
    assert isinstance(other, DDPMGenerator)
    expected = other.recording([3], [10]).encode(IMAGES[:1])["t10.b3"]
    torch.testing.assert_close(pool.maps(NAMES[:1], 0)["t10.b3"], expected, rtol=1e-2, atol=1e-2)
