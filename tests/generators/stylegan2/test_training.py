"""Training a tiny StyleGAN2, and resuming it exactly."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from generators.stylegan2 import training
from generators.stylegan2.config import StyleGAN2Config, StyleGAN2TrainingConfig
from generators.stylegan2.model import StyleGAN2Generator
from generators.stylegan2.storage import INFO_FILE, WEIGHTS_FILE, load, save
from generators.training.images import TrainingImages


def config(**settings: Any) -> StyleGAN2TrainingConfig:
    tiny = {
        "image_size": 16,
        "channel_base": 128,
        "channel_max": 8,
        "latent_dim": 8,
        "steps": 6,
        "batch_size": 4,
        "r1_every": 2,
        "path_every": 2,
        "ada_kimg": 0.02,  # p > 0 from the second step on
        "checkpoint_every": 3,
        "preview_every": 6,
        "flips": True,
        "precision": "float32",
    }
    return StyleGAN2TrainingConfig(**(tiny | settings))


@pytest.fixture(scope="module")
def images() -> TrainingImages:
    rng = torch.Generator().manual_seed(0)
    return TrainingImages.of(torch.randint(0, 256, (10, 3, 16, 16), generator=rng).to(torch.uint8))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_writes_what_generators_load(
    images: TrainingImages, tmp_path: Path, precision: str
) -> None:
    training.train(images, tmp_path, config(precision=precision), device="cpu")
    assert (tmp_path / "samples" / "step_000006.png").is_file()
    generator = StyleGAN2Generator.load(StyleGAN2Config(weights=str(tmp_path)), "cpu")
    sampled, maps = generator.sample([0])
    assert sampled.shape == (1, 3, 16, 16)
    assert list(maps) == ["b4.conv1", "b8.conv0", "b8.conv1", "b16.conv0", "b16.conv1"]
    state = generator.network.state_dict()
    fresh = training.start_network(config(), None).state_dict()
    moved = [name for name in state if not torch.equal(state[name], fresh[name])]
    assert set(state) - set(moved) == {n for n in state if n.endswith("noise_const")}


@pytest.mark.parametrize("stop_at", [4, 5])
def test_an_interrupted_run_resumes_exactly(
    images: TrainingImages, tmp_path: Path, stop_after: Callable, stop_at: int
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    training.train(images, whole, config(), device="cpu")
    with pytest.raises(KeyboardInterrupt):
        training.train(images, broken, config(), device="cpu", progress=[stop_after(stop_at)])
    assert not (broken / INFO_FILE).exists()
    training.train(images, broken, config(), device="cpu")
    expected, found = load_file(whole / WEIGHTS_FILE), load_file(broken / WEIGHTS_FILE)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    checkpoints = [
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for folder in (whole, broken)
    ]
    assert float(checkpoints[0]["adaptive.p"]) > 0
    assert all(torch.equal(a, b) for a, b in zip(*(c.values() for c in checkpoints), strict=True))


def test_resuming_with_different_settings_is_refused(
    images: TrainingImages, tmp_path: Path
) -> None:
    training.train(images, tmp_path, config(steps=1), device="cpu")
    with pytest.raises(ValueError, match=r"path_weight 2\.0, not 1\.0"):
        training.train(images, tmp_path, config(steps=1, path_weight=1.0), device="cpu")


def test_a_diverged_training_fails(images: TrainingImages, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="diverged"):
        training.train(images, tmp_path, config(lr=1e30), device="cpu")
    assert not (tmp_path / INFO_FILE).exists()


def test_training_can_start_from_another_generator(images: TrainingImages, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    training.train(images, first, config(), device="cpu")
    training.train(images, second, config(steps=1, lr=1e-9), init=str(first), device="cpu")
    before, after = load_file(first / WEIGHTS_FILE), load_file(second / WEIGHTS_FILE)
    for name in before:
        assert torch.allclose(before[name], after[name], atol=0.05), name  # w_avg keeps moving
    for setting, value in (("channel_max", 4), ("image_size", 32), ("latent_dim", 4)):
        with pytest.raises(ValueError, match=f"set {setting}="):
            training.start_network(config(**{setting: value}), init=str(first))


def test_training_continues_with_its_discriminator(images: TrainingImages, tmp_path: Path) -> None:
    training.train(images, tmp_path, config(), device="cpu")
    network = training.start_network(config(), str(tmp_path))
    found = training.start_discriminator(network, str(tmp_path)).state_dict()
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(last[f"discriminator.{k}"], v) for k, v in found.items())
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="damaged"):
        training.start_discriminator(network, str(tmp_path))


def test_a_training_can_be_lengthened_or_shortened(images: TrainingImages, tmp_path: Path) -> None:
    whole, grown = tmp_path / "whole", tmp_path / "grown"
    training.train(images, whole, config(steps=6), device="cpu")
    training.train(images, grown, config(steps=3), device="cpu")
    training.train(images, grown, config(steps=6), device="cpu")
    expected, found = load_file(whole / WEIGHTS_FILE), load_file(grown / WEIGHTS_FILE)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    training.train(images, grown, config(steps=2), device="cpu")  # shorter: the result is kept
    assert all(torch.equal(v, load_file(grown / WEIGHTS_FILE)[k]) for k, v in found.items())


@pytest.mark.slow
def test_training_learns_a_colour(tmp_path: Path) -> None:
    colour = torch.tensor([220, 40, 120], dtype=torch.uint8)
    images = TrainingImages.of(colour[None, :, None, None].repeat(8, 1, 16, 16))
    settings = config(image_size=16, steps=60, batch_size=8, checkpoint_every=60, ada_target=0)
    training.train(images, tmp_path, settings, device="cpu")
    generator = StyleGAN2Generator.load(StyleGAN2Config(weights=str(tmp_path)), "cpu")
    found = generator.sample(range(8))[0].float().mean(dim=(0, 2, 3))
    assert float((found - colour).abs().max()) < 40


class Linear(nn.Module):
    """D(x) = a · x, whose gradient is `a`."""

    def __init__(self) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        self.a = nn.Parameter(torch.randn(3, 16, 16, generator=rng) / 10)

    def forward(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        return (x * self.a).sum(dim=(1, 2, 3))


class TestLosses:
    @pytest.fixture
    def module(self, images: TrainingImages) -> training.StyleGAN2Training:
        settings = config(r1_gamma=0.5, r1_every=8, ada_target=0)
        network = training.start_network(settings, None)
        discriminator = training.start_discriminator(network, None)
        return training.StyleGAN2Training(settings, images, network, discriminator)

    def test_r1_is_half_gamma_times_the_squared_gradient(
        self, module: training.StyleGAN2Training, images: TrainingImages
    ) -> None:
        module.discriminator = Linear()  # type: ignore[assignment]
        real = torch.from_numpy(images.pixels[:4]).float() / 127.5 - 1
        losses = []
        for regularise in (False, True):
            torch.manual_seed(0)
            losses.append(module.discriminator_loss(real, regularise))
        expected = 8 * 0.5 / 2 * module.discriminator.a.square().sum()
        torch.testing.assert_close(losses[1] - losses[0], expected)
        losses[1].backward()
        assert all(p.grad is None for p in module.generator.parameters())

    @pytest.mark.slow
    def test_the_path_penalty_keeps_lengths_at_their_mean(
        self, module: training.StyleGAN2Training
    ) -> None:
        torch.manual_seed(0)
        first = module._path_penalty(16)
        assert 0 < float(module.path_mean) < 1
        first.backward()
        weight = module.generator.synthesis.block(16).conv1.weight
        assert weight.grad is not None
        assert float(weight.grad.abs().sum()) > 0
        for _ in range(300):
            module._path_penalty(4)
        torch.manual_seed(0)
        assert float(module._path_penalty(16).detach()) < 0.5 * float(first.detach())

    def test_styles_are_mixed_from_a_layer_on(self, module: training.StyleGAN2Training) -> None:
        _, ws = module._generate(200)
        apart = (ws[:, 1:] != ws[:, :-1]).any(dim=2)  # [N, num_ws - 1]
        assert set(apart.sum(dim=1).tolist()) == {0, 1}
        assert 0.8 < float(apart.any(dim=1).float().mean()) < 0.98
        assert bool(apart.any(dim=0).all())

    @pytest.mark.slow
    def test_the_mean_of_w_follows(self, module: training.StyleGAN2Training) -> None:
        mapping = module.generator.mapping
        z = torch.randn(2000, 8)
        for _ in range(600):
            module._generate(8)
        distance = float((mapping.w_avg - mapping(z).mean(dim=0)).detach().norm())
        assert distance < 0.3 * float(mapping(z).mean(dim=0).detach().norm()) + 0.1


def test_settings_that_describe_no_network_are_refused() -> None:
    with pytest.raises(ValueError, match=r"image_size\n.*power of two"):
        config(image_size=24)
    with pytest.raises(ValueError, match="leaves no channel"):
        config(channel_base=8)


@pytest.mark.parametrize(
    "wrong",
    [
        {"latent_dim": 2**17},
        {"channel_max": 0},
        {"channel_base": 2**25},
        {"mapping_layers": 65},
        {"ada_kimg": float("inf")},
        {"ema_kimg": float("inf")},
        {"seed": 2**64},
    ],
)
def test_settings_out_of_range_are_named_as_given(wrong: dict[str, Any]) -> None:
    [name] = wrong
    with pytest.raises(ValueError, match=rf"TrainingConfig\n{name}\n"):
        config(**wrong)


def test_training_cannot_start_from_a_network_with_classes(tmp_path: Path) -> None:
    network = config().network().model_copy(update={"c_dim": 3})
    save(training.StyleGAN2(network), tmp_path)
    assert load(tmp_path).config.c_dim == 3
    with pytest.raises(ValueError, match="3 classes: expected a network without"):
        training.start_network(config(), init=str(tmp_path))
