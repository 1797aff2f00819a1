"""Settings that a file does not hold, against outputs of the original program."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from generators.ddpm.checkpoints import load_unet
from generators.ddpm.config import DDPMConfig, FeatureConfig
from generators.ddpm.model import DDPMGenerator
from generators.ddpm.unet import embed, walk

GOLDEN = Path(__file__).parents[2] / "golden" / "guided_diffusion"
TOLERANCE = 1e-4  # relative, in float32
# Name of the file -> the settings that differ from the defaults.
NETWORKS: dict[str, dict[str, Any]] = {
    "cosine": {"channels_per_head": 32, "schedule": "cosine"},
    "default_heads": {"image_size": 32},  # 4 heads
}


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert float((found - expected).abs().max() / expected.abs().max()) < TOLERANCE


@pytest.mark.parametrize("name", NETWORKS)
@torch.inference_mode()
def test_network_and_schedule_equal_the_original(name: str) -> None:
    expected = load_file(GOLDEN / f"{name}.expected.safetensors")
    unet, schedule, _ = load_unet(str(GOLDEN / f"{name}.pt"), **NETWORKS[name])
    close(schedule.alphas_cumprod.double(), expected["alphas_cumprod"])
    for t in (50, 250, 900):
        assert float(expected[f"scaled_t.{t}"]) == t
        output, recorded = walk(
            unet, expected[f"x_t.{t}"], embed(unet, torch.tensor([t])), range(6)
        )
        close(output, expected[f"output.{t}"])
        for block, h in recorded.items():
            if t == 50:
                close(h, expected[f"block{block}.{t}"])


@pytest.mark.parametrize("name", NETWORKS)
def test_images_equal_the_original(name: str) -> None:
    config = DDPMConfig(
        weights=str(GOLDEN / f"{name}.pt"),
        sampler="ddim",
        spacing="leading",
        steps=10,
        precision="float32",
        **NETWORKS[name],
    )
    images = DDPMGenerator.load(config, "cpu").sample_images([0, 1])
    expected = load_file(GOLDEN / f"{name}.expected.safetensors")["ddim10.images"]
    assert int((images.int() - expected.int()).abs().max()) <= 1


def generator(**settings: Any) -> DDPMGenerator:
    config = DDPMConfig(weights=str(GOLDEN / "cosine.pt"), channels_per_head=32, **settings)
    return DDPMGenerator.load(config, "cpu")


def test_features_are_on_the_schedule_of_training() -> None:
    """A timestep of 4000 is a quarter of one of 1000, for the sampler and the features alike."""
    features = [FeatureConfig(blocks=(1,), timesteps=(scale * 50,)) for scale in (1, 4)]
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    coarse = generator(schedule="linear", features=features[0], precision="float32")
    fine = generator(
        schedule="linear",
        train_steps=4000,
        rescale_timesteps=True,
        features=features[1],
        precision="float32",
        steps=2,
    )
    [a], [b] = coarse.encode(images).values(), fine.encode(images).values()
    assert float((a - b).abs().max()) < 0.02 * float(a.abs().max())
    assert fine.sample([0])[0].shape == (1, 3, 32, 32)
    late = FeatureConfig(blocks=(1,), timesteps=(3999,))
    generator(train_steps=4000, features=late)
    with pytest.raises(ValueError, match=r"timesteps \[3999\] do not exist: .* 0 to 999"):
        generator(features=late)
    generator(train_steps=4000, steps=2000, features=late)
    with pytest.raises(ValueError, match=r"steps is 2000, but the noise schedule has 1000"):
        generator(steps=2000)


def test_each_setting_makes_different_images() -> None:
    base = {"steps": 4, "features": FeatureConfig(timesteps=(0,)), "precision": "float32"}
    changes: list[dict[str, Any]] = [
        {},
        {"schedule": "cosine"},
        {"predicts": "x_start"},
        {"predicts": "v"},
        {"train_steps": 4000},
        {"train_steps": 4000, "rescale_timesteps": True},
    ]
    found = [generator(**base, **change) for change in changes]
    assert len({g.digest for g in found}) == len(changes)
    images = {g.sample_images([0]).numpy().tobytes() for g in found}
    assert len(images) == len(changes)
