"""Shared fixtures: the outputs of the reference program, and small random features."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from generators.base import FeatureMaps
from labelers.ensemble.classifiers import Ensemble

GOLDEN = Path(__file__).parents[1] / "golden" / "pixel_classifier" / "expected.safetensors"


@pytest.fixture(scope="session")
def golden() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN)


@pytest.fixture(scope="session")
def golden_features(golden: dict[str, torch.Tensor]) -> FeatureMaps:
    return FeatureMaps({f"map{i}": golden[f"activation.{i}"] for i in range(3)})


@pytest.fixture(scope="session")
def golden_states(golden: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    states: list[dict[str, torch.Tensor]] = [{} for _ in range(10)]
    for key, tensor in golden.items():
        if key.startswith("model_"):
            model, name = key.split(".", 1)
            states[int(model.removeprefix("model_"))][name] = tensor
    return states


@pytest.fixture(scope="session")
def golden_ensemble(
    golden_features: FeatureMaps, golden_states: list[dict[str, torch.Tensor]]
) -> Ensemble:
    return Ensemble.from_reference(golden_features.spec, golden_states)


@pytest.fixture
def random_features() -> FeatureMaps:
    """Two images; maps of three sizes, one size twice and not adjacent, none square."""
    rng = torch.Generator().manual_seed(1)
    shapes = {"a": (3, 4, 6), "b": (5, 8, 12), "c": (2, 4, 6), "d": (4, 16, 24)}
    return FeatureMaps({k: torch.randn(2, *s, generator=rng) for k, s in shapes.items()})
