"""The samplers against the original program and diffusers' steps, and where diffusers fails."""

from pathlib import Path

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    UNet2DModel,
    UniPCMultistepScheduler,
)
from safetensors.torch import load_file
from torch import Tensor

from generators.base import sample_generators
from generators.ddpm import samplers
from generators.ddpm.checkpoints import load_unet
from generators.ddpm.config import DDPMConfig
from generators.ddpm.noise import NoiseModel

WHITE = NoiseModel()
SAMPLERS = ("ddpm", "ddim", "dpmsolver++", "unipc")
GOLDEN = Path(__file__).parents[2] / "golden" / "guided_diffusion"


@pytest.fixture(scope="module")
def unet(tiny_weights: Path) -> UNet2DModel:
    return load_unet(str(tiny_weights))[0]


def schedule(prediction: str, zero_snr: bool = False, **settings) -> DDPMScheduler:
    return DDPMScheduler(prediction_type=prediction, rescale_betas_zero_snr=zero_snr, **settings)


def denoiser(unet: UNet2DModel, visited: list[int] | None = None) -> samplers.Denoise:
    def denoise(x: Tensor, t: int) -> Tensor:
        if visited is not None:
            visited.append(t)
        return unet(x, t).sample

    return denoise


@torch.no_grad()
def ours(unet: UNet2DModel, base: DDPMScheduler, noise: NoiseModel = WHITE, **settings) -> Tensor:
    config = DDPMConfig(weights="", **settings)
    streams = sample_generators(0, [0, 1])
    return samplers.sample(denoiser(unet), base, config, lambda: noise.draw(streams, (3, 16, 16)))


@torch.no_grad()
def diffusers(unet: UNet2DModel, scheduler, steps: int = 20, **arguments) -> Tensor:
    """The plain loop with a scheduler from diffusers."""
    scheduler.set_timesteps(steps)
    streams = sample_generators(0, [0, 1])
    x = WHITE.draw(streams, (3, 16, 16))
    if isinstance(scheduler, DDPMScheduler):
        arguments["generator"] = streams
    for t in scheduler.timesteps:
        x = scheduler.step(unet(x, t).sample, t, x, **arguments).prev_sample
    return x


# --- against the original program -------------------------------------------------------------


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    return load_file(GOLDEN / "expected.safetensors")


@pytest.fixture(scope="module")
def published() -> tuple[UNet2DModel, DDPMScheduler]:
    unet, base, _ = load_unet(str(GOLDEN / "tiny_lsun_style.pt"), channels_per_head=16)
    return unet, base


def close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-4


@pytest.mark.parametrize("t", [50, 150, 250])
def test_noising_equals_the_original(expected, published, t: int) -> None:
    abar = published[1].alphas_cumprod[t]
    close(samplers.q_sample(expected["x0"], expected["noise"], abar), expected[f"x_t.{t}"])


@pytest.mark.parametrize("t", [0, 1, 500, 999])
def test_mean_and_learned_variance_equal_the_original(expected, published, t: int) -> None:
    unet, base = published
    posterior = samplers.Posterior(base, list(range(1000)))
    x = expected["x_T"]
    with torch.no_grad():
        output = unet(x, t).sample
    x_0 = samplers.predict_x_0(output, x, base.alphas_cumprod[t], base, clip=True)
    # At t = 999 x_0 is 157 times as far off as the network's output, whose rounding alone moves a
    # few of the original's pixels by 7e-5: compare the mean.
    theirs = expected[f"p_mean_variance.{t}.pred_xstart"]
    assert (x_0 - theirs).norm() / theirs.norm() < 1e-4
    close(posterior.mean(x_0, x, t), expected[f"p_mean_variance.{t}.mean"])
    close(posterior.log_variance(output, t), expected[f"p_mean_variance.{t}.log_variance"])


def test_ten_ddim_steps_equal_the_original(expected, published) -> None:
    unet, base = published
    config = DDPMConfig(weights="", sampler="ddim", steps=10, spacing="leading")
    visited: list[int] = []
    with torch.no_grad():
        x_0 = samplers.sample(denoiser(unet, visited), base, config, lambda: expected["x_T"])
    assert visited == expected["ddim10.timestep_map"].tolist()[::-1]
    close(x_0, expected["ddim10.sample"])


# --- against diffusers ------------------------------------------------------------------------


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_ancestral_sampling_is_algorithm_2(unet, prediction: str, variance: str) -> None:
    base = schedule(prediction, variance_type=variance)
    # Not trailing: diffusers adds noise in a last step from t > 0.
    reference = DDPMScheduler.from_config(base.config, timestep_spacing="leading")
    found = ours(unet, base, sampler="ddpm", steps=20, spacing="leading")
    torch.testing.assert_close(found, diffusers(unet, reference), rtol=0, atol=1e-4)


def test_ancestral_sampling_honours_the_learned_variance(unet: UNet2DModel) -> None:
    torch.manual_seed(0)
    wide = UNet2DModel.from_config(dict(unet.config, out_channels=6)).eval()
    base = schedule("epsilon", variance_type="learned_range")
    reference = DDPMScheduler.from_config(base.config, timestep_spacing="leading")
    found = ours(wide, base, sampler="ddpm", steps=20, spacing="leading")
    torch.testing.assert_close(found, diffusers(wide, reference), rtol=0, atol=1e-4)
    for sampler in SAMPLERS:
        assert ours(wide, base, sampler=sampler, steps=5).isfinite().all()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_ddim_equals_diffusers_if_the_steps_divide(unet, prediction: str) -> None:
    base = schedule(prediction)
    reference = DDIMScheduler.from_config(base.config, timestep_spacing="trailing")
    found = ours(unet, base, sampler="ddim", steps=20)
    theirs = diffusers(unet, reference, use_clipped_model_output=True)
    torch.testing.assert_close(found, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("karras", [False, True])
@pytest.mark.parametrize("sampler", ["dpmsolver++", "unipc"])
def test_multistep_solvers_equal_diffusers(unet, sampler: str, karras: bool) -> None:
    base = schedule("epsilon")
    kind = UniPCMultistepScheduler if sampler == "unipc" else DPMSolverMultistepScheduler
    # Dynamic thresholding with a largest value of 1 is a plain clip of x_0 to [-1, 1].
    reference = kind.from_config(
        base.config, timestep_spacing="trailing", use_karras_sigmas=karras, thresholding=True
    )
    found = ours(unet, base, sampler=sampler, steps=20, karras=karras)
    torch.testing.assert_close(found, diffusers(unet, reference), rtol=0, atol=1e-4)


# --- where diffusers fails, and our own rules -------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 4, 15, 40])
@pytest.mark.parametrize("sampler", [*SAMPLERS, "dpmsolver++ karras", "unipc karras"])
def test_finite_at_zero_terminal_snr(unet: UNet2DModel, sampler: str, steps: int) -> None:
    base = schedule("v_prediction", zero_snr=True)
    name, karras = sampler.removesuffix(" karras"), sampler.endswith("karras")
    settings = {"eta": 1.0} if name == "ddim" else {"karras": karras}
    x_0 = ours(unet, base, NoiseModel(0.1), sampler=name, steps=steps, **settings)
    assert x_0.isfinite().all()
    assert x_0.abs().max() <= 1 + 1e-5


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
def test_the_network_is_evaluated_at_the_listed_timesteps(unet, sampler: str, spacing: str) -> None:
    base, visited = schedule("epsilon"), []
    config = DDPMConfig(weights="", sampler=sampler, steps=7, spacing=spacing)
    streams = sample_generators(0, [0])
    with torch.no_grad():
        samplers.sample(
            denoiser(unet, visited), base, config, lambda: WHITE.draw(streams, (3, 16, 16))
        )
    assert visited == samplers.timesteps(base, config)
    assert len(set(visited)) == 7
    assert visited == sorted(visited, reverse=True)


@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
def test_as_many_distinct_timesteps_as_steps(spacing: str) -> None:
    base = schedule("epsilon")
    for steps in range(1, 1001):
        config = DDPMConfig(weights="", sampler="ddim", steps=steps, spacing=spacing)
        visited = samplers.timesteps(base, config)
        assert len(visited) == steps
        assert sorted(set(visited), reverse=True) == visited
        assert visited[-1] >= 0
        assert visited[0] <= 999
        assert spacing != "trailing" or visited[0] == 999


@pytest.mark.parametrize("steps", [1, 2, 61, 103, 201])
@pytest.mark.parametrize("sampler", [*SAMPLERS, "dpmsolver++ karras", "unipc karras"])
def test_as_many_network_passes_as_steps(sampler: str, steps: int) -> None:
    name, karras = sampler.removesuffix(" karras"), sampler.endswith("karras")
    config = DDPMConfig(weights="", sampler=name, steps=steps, karras=karras)
    base, visited = schedule("epsilon"), []

    def denoise(x: Tensor, t: int) -> Tensor:
        visited.append(t)
        return x / 2

    x_0 = samplers.sample(denoise, base, config, lambda: torch.randn(1, 3, 4, 4))
    assert x_0.isfinite().all()
    assert visited == samplers.timesteps(base, config)
    assert len(visited) == steps


@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_thousand_steps_visit_each_timestep(sampler: str, spacing: str) -> None:
    base, visited = schedule("v_prediction", zero_snr=True), []
    config = DDPMConfig(weights="", sampler=sampler, steps=1000, spacing=spacing)

    def denoise(x: Tensor, t: int) -> Tensor:
        visited.append(t)
        return -x / 2

    x_0 = samplers.sample(denoise, base, config, lambda: torch.randn(1, 3, 4, 4))
    assert x_0.isfinite().all()
    assert visited == list(range(1000))[::-1]


@pytest.mark.parametrize("steps", [5, 16, 25, 100])
@pytest.mark.parametrize("sampler", ["dpmsolver++", "unipc"])
def test_noise_levels_equal_those_of_diffusers_at_its_timesteps(sampler: str, steps: int) -> None:
    base = schedule("v_prediction", zero_snr=True)
    config = DDPMConfig(weights="", sampler=sampler, steps=steps)
    found = samplers._multistep_scheduler(base, config)
    reference = type(found).from_config(found.config, timestep_spacing="trailing")
    reference.set_timesteps(steps)
    assert torch.equal(found.timesteps, reference.timesteps)
    assert torch.equal(found.sigmas, reference.sigmas)


def test_an_unknown_variance_is_refused(unet: UNet2DModel) -> None:
    base = schedule("epsilon", variance_type="learned")
    with pytest.raises(ValueError, match=r"variance_type learned, expected one of .*fixed_small"):
        ours(unet, base, sampler="ddpm", steps=2)


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
    for content in ("{", '{"offset_std": -1}', '{"other": 1}'):
        (tmp_path / "noise.json").write_text(content)
        with pytest.raises(ValueError, match=r"noise\.json is damaged \('"):
            NoiseModel.load(tmp_path)


def test_settings_of_a_different_sampler_are_refused() -> None:
    with pytest.raises(ValueError, match=r"eta is 0\.5, but the sampler is ddpm"):
        DDPMConfig(weights="", sampler="ddpm", eta=0.5)
    with pytest.raises(ValueError, match=r"karras is true, but the sampler is ddim"):
        DDPMConfig(weights="", sampler="ddim", karras=True)
    with pytest.raises(ValueError, match=r"karras is true, but features.record is trajectory"):
        DDPMConfig(weights="", karras=True, features={"record": "trajectory"})
