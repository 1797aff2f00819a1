"""Table 5: the policies encode with the noise that they name."""

from __future__ import annotations

import json

import pytest
import torch

from factory.analysis.noise import Renoised, per_draw
from factory.annotation.samples import load_generator
from generators.base import Diffusing, FeatureMaps
from generators.ddpm.config import DDPMConfig
from labelers.config import FastTraining, LabelerConfig


@pytest.fixture
def encode(generator):
    features = {"blocks": [0], "timesteps": [50, 500]}
    config = DDPMConfig.model_validate(
        {"weights": str(generator), "features": features, "precision": "float32"}
    )
    model, _ = load_generator("--generator", config, "cpu")
    assert isinstance(model, Diffusing)
    images = torch.full((1, 3, 16, 16), 128, dtype=torch.uint8)

    def run(policy: str, index: int = 0) -> FeatureMaps:
        return Renoised(model.with_noise(policy)).encode(images, [index])

    return run


def test_timesteps_have_noise_of_their_own(encode) -> None:
    shared, own = encode("shared"), encode("per_timestep")
    assert torch.equal(shared["t50.b0"], own["t50.b0"])  # the first is drawn from the same seed
    assert not torch.allclose(shared["t500.b0"], own["t500.b0"])
    again = encode("per_timestep", index=7)
    assert torch.equal(own["t500.b0"], again["t500.b0"])


def test_fresh_noise_differs_by_index(encode) -> None:
    first, second = encode("fresh", 0), encode("fresh", 1)
    assert not torch.allclose(first["t50.b0"], second["t50.b0"])
    assert torch.equal(first["t50.b0"], encode("fresh", 0)["t50.b0"])


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
