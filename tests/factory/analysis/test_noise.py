"""Table 5: the policies encode with the noise that they name."""

from __future__ import annotations

import json

import pytest
import torch
from rich.console import Console

from factory.analysis.features import FeaturePool
from factory.analysis.noise import per_draw
from factory.annotation.samples import load_generator
from generators.base import Diffusing, FeatureMaps
from generators.ddpm.config import DDPMConfig
from labelers.config import FastTraining, LabelerConfig


@pytest.fixture
def encode(generator, tmp_path):
    features = {"blocks": [0], "timesteps": [50, 500]}
    config = DDPMConfig.model_validate(
        {"weights": str(generator), "features": features, "precision": "float32"}
    )
    model, _ = load_generator("--generator", config, "cpu")
    assert isinstance(model, Diffusing)
    images = torch.full((2, 3, 16, 16), 128, dtype=torch.uint8)

    def run(policy: str) -> list[FeatureMaps]:
        """The maps of two equal images."""
        names = ["t50.b0", "t500.b0"]
        pool = FeaturePool(tmp_path / policy, images, model.with_noise(policy), "float32")
        pool.compute(names, Console(quiet=True))
        return [pool.maps(names, row) for row in range(2)]

    return run


def test_timesteps_have_noise_of_their_own(encode) -> None:
    shared, own = encode("shared"), encode("per_timestep")
    of_both = (shared[0]["t50.b0"], own[0]["t50.b0"])  # the first noise of the same seed
    assert torch.allclose(*of_both, atol=1e-5)
    assert not torch.allclose(shared[0]["t500.b0"], own[0]["t500.b0"])
    assert torch.allclose(own[0]["t500.b0"], own[1]["t500.b0"], atol=1e-5)


def test_fresh_noise_differs_between_images(encode) -> None:
    first, second = encode("fresh")
    assert not torch.allclose(first["t50.b0"], second["t50.b0"])


def test_several_draws_take_no_more_steps() -> None:
    config = per_draw(LabelerConfig(), 4)
    assert (config.training.min_epochs, config.training.max_epochs) == (1, 25)
    fast = LabelerConfig(training=FastTraining())
    assert per_draw(fast, 4) == fast


def test_the_table(analyse, tmp_path) -> None:
    result = analyse("noise", draws=2)
    assert result.code == 0, result.err
    found = json.loads((tmp_path / "out" / "noise.json").read_text())
    assert [row["noise"] for row in found["rows"]] == ["shared", "per_timestep", "fresh"]
    assert all(len(row["mIoU"]["values"]) == 2 for row in found["rows"])
    assert "the noise policy hardly matters" in found["sentence"]
    assert "2 draws per training image" in found["rule"]
