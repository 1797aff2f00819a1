"""Projection into tiny random networks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models import alexnet, vgg16

from generators.base import Projecting
from generators.stylegan2.config import NetworkConfig, ProjectionConfig, StyleGAN2Config
from generators.stylegan2.model import StyleGAN2Generator, from_uint8, to_uint8
from generators.stylegan2.network import StyleGAN2
from generators.stylegan2.perceptual import PerceptualDistance, find_weights
from generators.stylegan2.projection import psnr

Load = Callable[..., StyleGAN2Generator]
FAST: dict[str, Any] = {
    "steps": 80,
    "shared_steps": 20,
    "candidates": 32,
    "lr": 0.2,
    "perceptual": "none",
    "average_weight": 0.01,
    "layers_weight": 0.01,
}


@pytest.fixture
def network(tiny_config: NetworkConfig) -> StyleGAN2:
    """Random weights, with colours within the range of images."""
    torch.manual_seed(1)
    network = StyleGAN2(tiny_config.model_copy(update={"num_fp16_res": 2})).requires_grad_(False)
    for resolution in tiny_config.block_resolutions:
        block = network.synthesis.block(resolution)
        block.torgb.weight.data *= 0.3
        block.conv1.noise_strength.data.fill_(0.1)
    return network


@pytest.fixture
def load(network: StyleGAN2) -> Load:
    def load(config: dict[str, Any] | None = None, **projection: Any) -> StyleGAN2Generator:
        given = {"weights": "", "precision": "float32", "truncation": 1.0} | (config or {})
        settings = StyleGAN2Config.model_validate(given | {"projection": FAST | projection})
        return StyleGAN2Generator(network, settings, "cpu")

    return load


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of torch.hub, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def save_alexnet(path: Path) -> Path:
    """Random weights of its convolutions; the rest, which is large, is not needed."""
    torch.manual_seed(0)
    with torch.device("meta"):
        layers = alexnet(weights=None).features
    state = {f"features.{k}": 0.05 * torch.randn(t.shape) for k, t in layers.state_dict().items()}
    torch.save(state, path)
    return path


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_own_samples_are_recovered(load: Load, precision: str) -> None:
    generator = load({"precision": precision})
    images, _ = generator.sample(range(3))
    found = generator.project(images)
    assert found.latents.shape == (3, generator.network.config.num_ws, 8)
    assert found.images.dtype == torch.uint8
    assert torch.equal(found.psnr, psnr(found.images, images))
    begun = load({"precision": precision}, steps=1).project(images)
    assert begun.psnr.min() < 20
    assert found.psnr.min() > 27
    assert found.psnr.mean() > 40


def test_every_layer_gets_its_own_w_after_the_shared_steps(load: Load) -> None:
    images, _ = load().sample([0])
    shared = load(steps=20).project(images).latents
    assert torch.equal(shared, shared[:, :1].expand_as(shared))
    latents = load().project(images).latents
    assert (latents - latents[:, :1]).abs().amax(dim=(0, 2))[1:].min() > 0.01


def test_regularisers_keep_w_near_its_average(load: Load) -> None:
    generator = load(steps=30, average_weight=0.0, layers_weight=0.0)
    images = torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8)  # not from the network
    average = generator._projector.mean

    def far_and_apart(latents: torch.Tensor) -> tuple[float, float]:
        apart = latents - latents.mean(dim=1, keepdim=True)
        return float((latents - average).square().mean()), float(apart.square().mean())

    free = far_and_apart(generator.project(images).latents)
    held = far_and_apart(
        load(steps=30, average_weight=10.0, layers_weight=0.0).project(images).latents
    )
    joined = far_and_apart(
        load(steps=30, average_weight=0.0, layers_weight=10.0).project(images).latents
    )
    assert held[0] < free[0] / 10
    assert joined[1] < free[1] / 10
    assert joined[0] > held[0]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_latents_depend_on_the_image_alone(load: Load, precision: str) -> None:
    settings = {"precision": precision, "truncation": 0.7}
    generator = load(settings, steps=40)
    images, _ = generator.sample(range(6))
    together = generator.project(images)
    assert torch.equal(generator.project(images).latents, together.latents)
    alone = load(settings | {"batch_size": 3, "seed": 5}, steps=40).project(images[2:3])
    torch.testing.assert_close(alone.latents, together.latents[2:3], rtol=0, atol=1e-3)
    assert (alone.images.int() - together.images[2:3].int()).abs().max() <= 4


@pytest.mark.parametrize("noise", ["const", "random", "none"])
def test_features_come_from_the_latents_found(load: Load, noise: str) -> None:
    generator = load({"noise": noise}, steps=5)
    images = torch.randint(256, (3, 3, 16, 16), dtype=torch.uint8)
    with torch.inference_mode():  # as labelling calls it
        maps = generator.encode(images)
    found = generator.project(images)
    network, fixed = generator.network, "none" if noise == "none" else "const"
    made, kept = network.synthesis(found.latents, fixed, keep=network.synthesis.layers)
    assert maps.spec == generator.feature_spec
    assert (to_uint8(made).int() - found.images.int()).abs().max() <= 1
    for name, activation in kept.items():
        torch.testing.assert_close(maps[name], activation, rtol=1e-4, atol=1e-4)


def test_progress_counts_images(load: Load) -> None:
    generator = load(batch_size=2, steps=4, shared_steps=2)
    done: list[float] = []
    generator.project(torch.zeros(3, 3, 16, 16, dtype=torch.uint8), done.append)
    assert done == [0.5, 1.0, 1.5, 2.0, 2.25, 2.5, 2.75, 3.0]
    assert isinstance(generator, Projecting)


def test_wrong_images_are_one_clear_line(load: Load) -> None:
    generator = load()
    with pytest.raises(ValueError, match=r"uint8 \[1, 3, 8, 8\], expected uint8 \[N, 3, 16, 16\]"):
        generator.encode(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"float32 \[1, 3, 16, 16\], expected uint8"):
        generator.encode(torch.zeros(1, 3, 16, 16))
    with pytest.raises(ValueError, match="found a batch of 0 images"):
        generator.encode(torch.zeros(0, 3, 16, 16, dtype=torch.uint8))


def test_broken_weights_are_reported(load: Load, network: StyleGAN2) -> None:
    network.synthesis.block(16).torgb.bias[0] = float("nan")
    with pytest.raises(ValueError, match=r"not finite: the weights of .* generator.projection.lr"):
        load(steps=1).project(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))


def test_conditional_networks(network: StyleGAN2) -> None:
    shape = network.config.model_copy(update={"c_dim": 3})
    projection = ProjectionConfig(**FAST)
    config = StyleGAN2Config(weights="", class_id="random", projection=projection)
    generator = StyleGAN2Generator(StyleGAN2(shape), config, "cpu")
    assert generator.project(generator.sample([0])[0]).psnr[0] > 20


def test_labelers_are_bound_to_the_settings(load: Load) -> None:
    settings = load(steps=7).feature_settings
    assert settings["projection.steps"] == 7
    assert settings["projection.perceptual"] == "none"


def test_perceptual_loss_is_used_if_its_weights_are_cached(load: Load, cache: Path) -> None:
    assert find_weights("auto") is None
    path = save_alexnet(cache / "alexnet-owt-7be5be79.pth")
    assert find_weights("auto") == path
    assert find_weights("none") is None
    images = torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8)
    distance = PerceptualDistance.load(path)
    targets = distance.features(from_uint8(images))

    def found(**settings: Any) -> float:
        made = load(steps=40, **settings).project(images).images
        return float(distance(from_uint8(made), targets).mean())

    assert found(perceptual="auto", perceptual_weight=10.0) < 0.9 * found()


def test_perceptual_distance(tmp_path: Path) -> None:
    distance = PerceptualDistance.load(save_alexnet(tmp_path / "weights.pth"))
    assert len(distance.features(torch.zeros(1, 3, 16, 16))) == 5
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    targets = distance.features(images)
    torch.testing.assert_close(distance(images, targets), torch.zeros(2))
    near, far = distance(images + 0.01, targets), distance(images.flip(3), targets)
    assert (near > 0).all()
    assert (near < far).all()
    largest = distance.features(torch.zeros(1, 3, 512, 512))[0]
    assert largest.shape == distance.features(torch.zeros(1, 3, 256, 256))[0].shape


def test_layers_of_vgg16(tmp_path: Path) -> None:
    with torch.device("meta"):
        layers = vgg16(weights=None).features
    state = {f"features.{k}": torch.zeros(t.shape) for k, t in layers.state_dict().items()}
    torch.save(state, tmp_path / "vgg.pth")
    maps = PerceptualDistance.load(tmp_path / "vgg.pth").features(torch.zeros(1, 3, 64, 64))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (64, 64, 64), (128, 32, 32), (256, 16, 16), (512, 8, 8), (512, 4, 4)
    ]  # fmt: skip


def test_wrong_perceptual_weights_are_one_clear_line(load: Load, tmp_path: Path) -> None:
    images = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    with pytest.raises(FileNotFoundError, match=r"projection.perceptual: no file .*none.pth"):
        load(perceptual=str(tmp_path / "none.pth")).encode(images)
    for name, content in {"text": b"no weights", "empty": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=r"does not hold torchvision's weights"):
            load(perceptual=str(tmp_path / name)).encode(images)
    for number, state in enumerate(({"a": torch.zeros(1)}, {"features.28.weight": torch.zeros(1)})):
        torch.save(state, tmp_path / f"{number}.pth")
        with pytest.raises(ValueError, match=r"does not hold torchvision's weights"):
            PerceptualDistance.load(tmp_path / f"{number}.pth")


def test_psnr() -> None:
    black = torch.zeros(1, 3, 10, 10, dtype=torch.uint8)
    nearly = black.clone()
    nearly[0, 0, 0, 0] = 1
    assert psnr(black, black + 255).item() == pytest.approx(0)
    assert psnr(black, black + 51).item() == pytest.approx(13.9794)  # 20 log10 5
    assert psnr(black, black) == psnr(black, nearly)
