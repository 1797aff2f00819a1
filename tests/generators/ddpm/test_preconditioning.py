"""EDMs and consistency models: formulas, samplers, and files of openai/consistency_models."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import CMStochasticIterativeScheduler
from torch import Tensor

import generators
from generators.base import sample_generators
from generators.ddpm.checkpoints import load_checkpoint, load_unet
from generators.ddpm.config import SIGMA_MAX, SIGMA_MIN, DDPMConfig, FeatureConfig
from generators.ddpm.guided_settings import LSUN, Settings
from generators.ddpm.model import to_uint8
from generators.ddpm.preconditioned import PreconditionedGenerator
from generators.ddpm.preconditioning import (
    input_scaling,
    noise_levels,
    preconditioned,
    sample,
    scalings,
    sigma_of,
    time_of,
)
from tests.generators.ddpm.test_guided_diffusion import TINY, ReferenceUNet, random_state

NET = replace(TINY, learns_sigma=False, scale_shift=False)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """As that program saves it: attention has four dimensions."""
    state = random_state(NET)
    return state | {name: state[name][..., None] for name in attention(state)}


def attention(state: dict[str, Tensor]) -> list[str]:
    return [name for name in state if name.endswith(("qkv.weight", "proj_out.weight"))]


@pytest.fixture(scope="module")
def file(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("consistency") / "tiny.pt"
    torch.save(state, path)
    return path


def config(weights: object = "", **settings: Any) -> DDPMConfig:
    features = FeatureConfig(blocks=(0, 2), timesteps=(50, 250))
    return DDPMConfig(**{"weights": str(weights), "features": features} | settings)


def load(weights: Path, **settings: Any) -> PreconditionedGenerator:
    generator = generators.load(config(weights, precision="float32", **settings), "cpu")
    assert isinstance(generator, PreconditionedGenerator)
    return generator


def number(found: Tensor) -> float:
    return float(found)


def test_formulas_at_a_noise_level() -> None:
    """At sigma = 0.75 by hand, with sigma_data = 0.5: sigma² + sigma_data² = 0.8125."""
    sigma = torch.tensor(0.75, dtype=torch.float64)
    assert number(input_scaling(sigma)) == pytest.approx(1.1094003924504583)  # 1 / √0.8125
    assert number(time_of(sigma)) == pytest.approx(-71.92051811294523)  # 250 ln 0.75
    skip, out = map(number, scalings(sigma, "edm"))
    assert skip == pytest.approx(0.25 / 0.8125)
    assert out == pytest.approx(0.375 / 0.8125**0.5)
    skip, out = map(number, scalings(sigma, "consistency"))
    assert skip == pytest.approx(0.25 / (0.748**2 + 0.25))
    assert out == pytest.approx(0.374 / 0.8125**0.5)
    assert number(sigma_of(torch.tensor(0.8))) == pytest.approx(0.5)


def test_a_consistency_model_changes_nothing_at_the_least_noise() -> None:
    x = torch.randn(2, 3, 4, 4)

    def network(x: Tensor, t: float) -> Tensor:
        return 100 * torch.ones_like(x)

    unchanged = preconditioned(network, "consistency", clip=False)(x, SIGMA_MIN)
    assert torch.equal(unchanged, x)
    assert not torch.allclose(preconditioned(network, "edm", clip=False)(x, SIGMA_MIN), x)
    assert preconditioned(network, "edm", clip=True)(x, 1.0).max() <= 1


def test_noise_levels() -> None:
    levels = noise_levels(config(parametrisation="edm", steps=3))
    middle = ((SIGMA_MAX ** (1 / 7) + SIGMA_MIN ** (1 / 7)) / 2) ** 7
    assert levels == pytest.approx([80, middle, 0.002])
    assert noise_levels(config(parametrisation="edm", steps=1)) == [pytest.approx(80)]
    assert noise_levels(config(parametrisation="consistency")) == pytest.approx([80, middle])
    given = config(parametrisation="consistency", noise_levels=(80, 5, 1))
    assert (given.steps, noise_levels(given)) == (3, [80, 5, 1])


@pytest.mark.parametrize(("sampler", "order"), [("heun", 2), ("euler", 1)])
def test_edm_samplers_solve_the_equation(sampler: str, order: int) -> None:
    """Of Gaussian images of deviation s: D = x s²/(s² + σ²), x(0) = x(80) s/√(s² + 80²)."""
    s = 0.4
    noise = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    exact = SIGMA_MAX * noise * s / (s**2 + SIGMA_MAX**2) ** 0.5

    def error(steps: int) -> float:
        calls = []

        def clean(x: Tensor, sigma: float) -> Tensor:
            calls.append(sigma)
            return x * s**2 / (s**2 + sigma**2)

        settings = config(parametrisation="edm", sampler=sampler, steps=steps)
        found = sample(clean, settings, lambda: noise)
        assert len(calls) == order * steps - (order - 1)
        return float((found / exact - 1).abs().max())

    assert error(40) < 0.1
    assert error(80) / error(160) == pytest.approx(2**order, rel=0.2)


def test_two_step_samples_are_those_of_diffusers(file: Path) -> None:
    scheduler = CMStochasticIterativeScheduler()
    scheduler.set_timesteps(timesteps=[17, 0])  # published for bedrooms
    levels = tuple(scheduler.sigmas[:2].tolist())
    generator = load(file, parametrisation="consistency", noise_levels=levels, seed=5)
    unet = generator.network.unet
    [stream] = sample_generators(5, [3])
    x = torch.randn(1, 3, 16, 16, generator=stream) * scheduler.init_noise_sigma
    with torch.inference_mode():
        for t in scheduler.timesteps:
            output = unet(scheduler.scale_model_input(x, t), t).sample
            x = scheduler.step(output, t, x, generator=stream).prev_sample
    found = generator.sample_images([3])
    assert (to_uint8(x).int() - found.int()).abs().max() <= 1
    assert found.float().std() > 10


def test_the_network_is_that_program_s(file: Path, state: dict[str, Tensor]) -> None:
    """Attention in the new order, 64 channels per head, and time as a real number."""
    squeezed = state | {name: state[name].squeeze(-1) for name in attention(state)}
    reference = ReferenceUNet(squeezed, NET, lambda name, width: width // 64, "new")
    unet = load_unet(str(file), parametrisation="edm")[0]
    x, t = torch.randn(1, 3, 16, 16), torch.tensor([-71.92])
    expected = reference(x, t)
    with torch.inference_mode():
        error = (unet(x, t).sample - expected).abs().max() / expected.abs().max()
    assert float(error) < 1e-5


def test_published_networks_need_no_other_settings() -> None:
    net = replace(LSUN, learns_sigma=False, scale_shift=False)
    settings = Settings.choose(net, parametrisation="edm")
    assert (settings.image_size, settings.channels_per_head, settings.attention_order) == (
        256,
        64,
        "new",
    )
    assert settings.assumed == {"image_size", "channels_per_head", "attention_order"}


@pytest.mark.parametrize("kind", ["edm", "consistency"])
def test_a_sample_depends_on_its_index_alone(file: Path, kind: str) -> None:
    generator = load(file, parametrisation=kind, steps=2, batch_size=4)
    images, maps = generator.sample([3, 8, 5])
    assert maps.spec == generator.feature_spec
    assert torch.equal(generator.sample([3, 8, 5])[0], images)
    alone, own = generator.sample([8])
    assert (alone[0].int() - images[1].int()).abs().max() <= 1
    assert (images[0].int() - images[1].int()).abs().max() > 10
    for name in maps:
        assert (own[name][0] - maps[name][1]).abs().mean() < 0.02 * maps[name][1].abs().mean()


def test_features_are_of_the_noise_level_of_the_timestep(file: Path) -> None:
    generator = load(file, parametrisation="edm")
    images = generator.sample_images([0])
    maps = generator.encode(images)
    abar = (1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(0)[250]
    sigma = ((1 - abar) / abar).sqrt()
    eps = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    noisy = (images / 127.5 - 1 + sigma * eps) / (sigma**2 + 0.25).sqrt()
    _, expected = generator.network(noisy, 250 * sigma.log().view(1), blocks=(0, 2))
    for block, h in expected.items():
        assert torch.allclose(maps[f"t250.b{block}"], h, rtol=1e-3, atol=1e-3)


def test_parametrisations_are_different_generators(file: Path) -> None:
    found = {load(file, parametrisation=kind).digest for kind in ("edm", "consistency")}
    assert len(found) == 2


def test_converting(factory: Callable, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "net"
    result = factory("convert", file, out, "--parametrisation", "consistency")
    assert result.code == 0, result.err
    assert f"--generator {out} --set generator.parametrisation=consistency" in result.out
    given = {"parametrisation": "consistency"}
    original, converted = load(file, **given), load(out, **given)
    assert original.digest == converted.digest
    assert torch.equal(original.sample_images([0, 1]), converted.sample_images([0, 1]))
    with pytest.raises(ValueError, match=r"generator\.parametrisation=consistency"):
        load_unet(str(out))
    with pytest.raises(ValueError, match=r"with a guided-diffusion \.pt file only"):
        load_unet(str(out), parametrisation="edm")
    refused = factory("convert", file, tmp_path / "edm", "--parametrisation", "edm")
    assert refused.code != 0
    assert "use the file itself as --generator" in " ".join(refused.err.split())


def test_sampling_by_command(factory: Callable, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "images"
    options = ("--n", 2, "--device", "cpu", "--set", "generator.parametrisation=edm")
    few = ("--set", "generator.steps=2")
    result = factory("sample", "--generator", file, "--out", out, *options, *few)
    assert result.code == 0, result.err
    assert len(list((out / "images").glob("*.png"))) == 2


def test_files_and_settings_that_do_not_fit(file: Path, tiny_weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"an EDM or a consistency model .*parametrisation=edm"):
        load_checkpoint(file)
    with pytest.raises(ValueError, match="found schedule with parametrisation edm"):
        load_checkpoint(file, parametrisation="edm", schedule="cosine")
    plain = tmp_path / "plain.pt"
    torch.save(random_state(TINY), plain)
    with pytest.raises(ValueError, match="this network sees timesteps"):
        load_checkpoint(plain, parametrisation="consistency")
    with pytest.raises(ValueError, match=r"set generator\.parametrisation=null"):
        load_unet(str(tiny_weights), parametrisation="consistency")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"parametrisation": "edm", "sampler": "ddim"}, "ddim, not heun or euler"),
        ({"sampler": "heun"}, "parametrisation is none, but the sampler is heun"),
        ({"parametrisation": "consistency", "noise_levels": (5, 80)}, "expected descending"),
        ({"parametrisation": "consistency", "noise_levels": (90,)}, "at most 80"),
        ({"parametrisation": "edm", "noise_levels": (80,)}, "for parametrisation consistency"),
        ({"parametrisation": "consistency", "noise_levels": (80,), "steps": 2}, "steps is 2"),
        (
            {"parametrisation": "edm", "features": FeatureConfig(record="trajectory")},
            "visits no timesteps",
        ),
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        config(**settings)
