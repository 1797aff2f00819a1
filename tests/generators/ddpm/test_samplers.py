"""The samplers against diffusers' own steps, and where those fail."""

from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel

from generators.base import sample_generators
from generators.config import DDPMConfig
from generators.ddpm import samplers
from generators.ddpm.model import load_unet
from generators.ddpm.noise import NoiseModel

WHITE = NoiseModel()


@pytest.fixture(scope="module")
def unet(tiny_weights: Path) -> UNet2DModel:
    return load_unet(str(tiny_weights))[0]


def schedule(prediction: str, zero_snr: bool) -> DDPMScheduler:
    return DDPMScheduler(prediction_type=prediction, rescale_betas_zero_snr=zero_snr)


@torch.no_grad()
def ours(unet: UNet2DModel, base: DDPMScheduler, noise: NoiseModel = WHITE, **settings):
    config = DDPMConfig(weights="", **settings)
    return samplers.sample(unet, base, noise, config, sample_generators(0, [0, 1]), (16, 16))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_ancestral_sampling_is_algorithm_2(unet: UNet2DModel, prediction: str) -> None:
    base = schedule(prediction, zero_snr=False)
    generators = sample_generators(0, [0, 1])
    x = WHITE.draw(generators, (3, 16, 16))
    reference = DDPMScheduler.from_config(base.config, timestep_spacing="trailing")
    reference.set_timesteps(20)
    with torch.no_grad():
        for t in reference.timesteps:
            x = reference.step(unet(x, t).sample, t, x, generator=generators).prev_sample
    torch.testing.assert_close(ours(unet, base, sampler="ddpm", steps=20), x, rtol=0, atol=1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_ddim_is_that_of_diffusers_where_steps_divide(unet: UNet2DModel, prediction: str) -> None:
    base = schedule(prediction, zero_snr=False)
    x = WHITE.draw(sample_generators(0, [0, 1]), (3, 16, 16))
    reference = DDIMScheduler.from_config(base.config, timestep_spacing="trailing")
    reference.set_timesteps(20)
    with torch.no_grad():
        for t in reference.timesteps:
            output = unet(x, t).sample
            x = reference.step(output, t, x, use_clipped_model_output=True).prev_sample
    torch.testing.assert_close(ours(unet, base, sampler="ddim", steps=20), x, rtol=0, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 4, 10, 15, 40])
@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmsolver++"])
def test_finite_at_zero_terminal_snr(unet: UNet2DModel, sampler: str, steps: int) -> None:
    base = schedule("v_prediction", zero_snr=True)
    settings = {"eta": 1.0} if sampler == "ddim" else {}
    x_0 = ours(unet, base, NoiseModel(0.1), sampler=sampler, steps=steps, **settings)
    assert x_0.isfinite().all()
    assert x_0.abs().max() <= 1 + 1e-5


def test_a_network_that_learnt_its_variance(unet: UNet2DModel) -> None:
    wide = UNet2DModel.from_config(dict(unet.config, out_channels=6)).eval()
    base = DDPMScheduler(variance_type="learned_range", clip_sample=True)
    for sampler in ("ddpm", "ddim", "dpmsolver++"):
        assert ours(wide, base, sampler=sampler, steps=5).isfinite().all()


def test_offset_noise_shifts_whole_channels() -> None:
    generators = sample_generators(0, range(200))
    shifted = NoiseModel(0.5).draw(generators, (3, 16, 16))
    white = WHITE.draw(sample_generators(0, range(200)), (3, 16, 16))
    assert shifted.mean((2, 3)).std() == pytest.approx((0.25 + 1 / 256) ** 0.5, rel=0.1)
    assert white.mean((2, 3)).std() == pytest.approx(1 / 16, rel=0.1)


def test_the_noise_model_is_kept_with_the_weights(tmp_path: Path) -> None:
    NoiseModel(0.25).save(tmp_path)
    assert NoiseModel.load(tmp_path) == NoiseModel(0.25)
    assert NoiseModel.load(tmp_path / "elsewhere") == NoiseModel(0.0)


def test_eta_without_ddim_is_refused() -> None:
    with pytest.raises(ValueError, match=r"eta is 0\.5, but the sampler is ddpm"):
        DDPMConfig(weights="", sampler="ddpm", eta=0.5)
