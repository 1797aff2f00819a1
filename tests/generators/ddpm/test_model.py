"""Sampling and encoding with a tiny diffusion model."""

from pathlib import Path

import pytest
import torch

import generators
from generators.config import DDPMConfig, FeatureConfig
from generators.ddpm.model import DDPMGenerator

FEATURES = FeatureConfig(blocks=(0, 2), timesteps=(50, 250))


def load(weights: Path, **settings) -> DDPMGenerator:
    settings = {"steps": 4, "features": FEATURES} | settings
    return DDPMGenerator.load(DDPMConfig(weights=str(weights), **settings), device="cpu")


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmsolver++"])
def test_sample_depends_on_its_index_alone(tiny_weights: Path, sampler: str) -> None:
    generator = load(tiny_weights, sampler=sampler, eta=0.5 if sampler == "ddim" else 0.0)
    together, maps = generator.sample([3, 8, 5])
    alone, alone_maps = generator.sample([8])
    assert together.shape == (3, 3, 16, 16)
    assert together.dtype == torch.uint8
    # Batch composition moves float sums in the last bits: at most one grey level after rounding.
    assert (together[1].int() - alone[0].int()).abs().max() <= 1
    assert (together[0].int() - together[1].int()).abs().max() > 10
    assert maps.spec == alone_maps.spec == generator.feature_spec
    again, _ = generator.sample([3, 8, 5])
    assert torch.equal(again, together)


def test_the_seed_changes_every_sample(tiny_weights: Path) -> None:
    first, _ = load(tiny_weights, seed=0).sample([0, 1])
    other, _ = load(tiny_weights, seed=1).sample([0, 1])
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[1], other[1])


def test_features_of_a_sample_are_those_of_its_saved_image(tiny_weights: Path) -> None:
    generator = load(tiny_weights)
    images, maps = generator.sample([0, 1])
    again = generator.encode(images, [0, 1])
    assert list(maps) == ["t50.b0", "t50.b2", "t250.b0", "t250.b2"]
    for name in maps:
        torch.testing.assert_close(maps[name], again[name], rtol=0, atol=0)


def test_noise_policies(tiny_weights: Path) -> None:
    image = torch.full((1, 3, 16, 16), 128, dtype=torch.uint8).repeat(2, 1, 1, 1)

    def maps(noise: str):
        features = FeatureConfig(blocks=(0,), timesteps=(100, 101), noise=noise)
        return load(tiny_weights, features=features).encode(image)

    for policy, same_in_batch in (("shared", True), ("per_timestep", True), ("fresh", False)):
        for tensor in maps(policy).values():
            assert torch.allclose(tensor[0], tensor[1], atol=1e-5) is same_in_batch

    def apart(noise: str) -> float:  # between two neighbouring timesteps
        a, b = maps(noise).values()
        return float((a - b).abs().mean())

    assert apart("shared") < 0.1 * apart("per_timestep")


def test_zero_terminal_snr_sampling_starts_from_noise_alone(tiny_weights: Path) -> None:
    generator = load(tiny_weights)
    assert float(generator.schedule.alphas_cumprod[-1]) == 0.0


def test_digest_is_of_the_weights_not_the_settings(tiny_weights: Path) -> None:
    assert load(tiny_weights, steps=2).digest == load(tiny_weights, steps=3).digest
    changed = load(tiny_weights)
    with torch.no_grad():
        changed.unet.conv_in.bias[0] += 1
    assert (
        DDPMGenerator(changed.unet, changed.schedule, changed.noise, changed.config).digest
        != changed.digest
    )


def test_missing_weights_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no generator at .*train-generator"):
        generators.load(DDPMConfig(weights=str(tmp_path)))


def test_truncated_weights_are_one_clear_line(tiny_weights: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for source in tiny_weights.rglob("*"):
        if source.is_file():
            target = copy / source.relative_to(tiny_weights)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cannot read the U-Net weights"):
        load(copy)


def test_settings_out_of_range_are_refused(tiny_weights: Path) -> None:
    with pytest.raises(ValueError, match=r"blocks \[7\] do not exist"):
        load(tiny_weights, features=FeatureConfig(blocks=(7,)))
    with pytest.raises(ValueError, match=r"timesteps \[1000\] do not exist"):
        load(tiny_weights, features=FeatureConfig(blocks=(1,), timesteps=(1000,)))
    with pytest.raises(ValueError, match="ascending"):
        FeatureConfig(blocks=(3, 1))
    with pytest.raises(ValueError, match="images are"):
        load(tiny_weights).encode(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
