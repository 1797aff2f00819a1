"""Pretraining a tiny masked autoencoder, resuming it exactly, and using it as an encoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import generators
from generators.encoders import mae_training as training
from generators.encoders.config import EncoderConfig
from generators.encoders.mae_config import MAETrainingConfig
from generators.encoders.mae_network import MaskedAutoencoder, statistics
from generators.encoders.mae_training import crop, start_network
from generators.encoders.storage import WEIGHTS_FILE
from generators.kind import kind_of
from generators.training.images import TrainingImages

TINY = {
    "image_size": 16,
    "patch_size": 4,
    "width": 16,
    "depth": 2,
    "heads": 2,
    "decoder_width": 8,
    "decoder_depth": 1,
    "decoder_heads": 2,
    "steps": 6,
    "batch_size": 4,
    "warmup_steps": 2,
    "checkpoint_every": 3,
    "preview_every": 6,
    "flips": True,
    "quarter_turns": True,
    "precision": "float32",
}


def config(**settings) -> MAETrainingConfig:
    return MAETrainingConfig(**(TINY | settings))


def network(**settings) -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(config(**settings)).eval()


@pytest.fixture(scope="module")
def images() -> TrainingImages:
    rng = torch.Generator().manual_seed(0)
    return TrainingImages.of(torch.randint(0, 256, (10, 3, 16, 16), generator=rng).to(torch.uint8))


@pytest.fixture(scope="module")
def folder(images: TrainingImages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mae")
    training.train(images, out, config(), device="cpu")
    return out


def orders(count: int, patches: int = 16) -> torch.Tensor:
    rng = torch.Generator().manual_seed(1)
    return torch.rand(count, patches, generator=rng).argsort(dim=1)


def test_patches_are_those_of_the_image_and_back() -> None:
    net, x = network(), torch.randn(2, 3, 16, 16)
    patches = net.patchify(x)
    assert patches.shape == (2, 16, 48)
    assert torch.equal(patches[0, 5].reshape(4, 4, 3), x[0, :, 4:8, 4:8].permute(1, 2, 0))
    assert torch.equal(net.unpatchify(patches), x)


def test_the_encoder_sees_only_the_first_patches_in_order() -> None:
    net, x, order = network(), torch.randn(1, 3, 16, 16), orders(1)
    before = net(x, order)
    assert before.hidden.sum() == 12
    assert (before.hidden[0, order[0, :4]] == 0).all()
    patches = net.patchify(x)
    hidden, seen = patches.clone(), patches.clone()
    hidden[0, order[0, 4:]] += 1
    seen[0, order[0, 0]] += 1
    assert torch.equal(net(net.unpatchify(hidden), order).pixels, before.pixels)
    assert not torch.equal(net(net.unpatchify(seen), order).pixels, before.pixels)


def test_the_order_of_the_visible_patches_does_not_matter() -> None:
    net, x, order = network(), torch.randn(1, 3, 16, 16), orders(1)
    other = torch.cat([order[:, :4].flip(1), order[:, 4:].flip(1)], dim=1)
    torch.testing.assert_close(net(x, order).pixels, net(x, other).pixels)


@pytest.mark.parametrize("norm_pix_loss", [True, False])
def test_the_loss_is_over_masked_patches(norm_pix_loss: bool) -> None:
    net, x, order = network(norm_pix_loss=norm_pix_loss), torch.randn(2, 3, 16, 16), orders(2)
    found, target = net(x, order), net.patchify(x)
    if norm_pix_loss:
        mean, std = statistics(target)
        target = (target - mean) / std
        assert target.var(dim=2) == pytest.approx(1, abs=1e-3)
    errors = [
        (found.pixels[i, j] - target[i, j]).square().mean() for i in range(2) for j in order[i, 4:]
    ]
    assert net.loss(x, order).item() == pytest.approx(torch.stack(errors).mean().item(), rel=1e-5)


def test_it_learns(images: TrainingImages) -> None:
    net = network(depth=1)
    net.train()
    x = net.normalise(torch.stack([images[0]] * 4))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        losses.append(net.loss(x, orders(4)))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]
    assert net.encoder.pos_embed.grad is None


def test_the_folder_is_an_encoder(folder: Path, images: TrainingImages) -> None:
    assert kind_of(folder) == "encoder"
    encoder = generators.load_encoder(EncoderConfig(weights=str(folder)), "cpu")
    assert encoder.image_size == (16, 16)
    assert [m.name for m in encoder.feature_spec] == ["blocks.1"]
    features = encoder.encode(images[0][None])["blocks.1"]
    assert features.shape == (1, 16, 4, 4)
    assert (folder / "samples" / "step_000006.png").is_file()


def test_resumes_exactly(
    folder: Path, images: TrainingImages, tmp_path: Path, stop_after: Callable
) -> None:
    with pytest.raises(KeyboardInterrupt):
        training.train(images, tmp_path, config(), device="cpu", progress=[stop_after(4)])
    assert not (tmp_path / WEIGHTS_FILE).exists()
    training.train(images, tmp_path, config(), device="cpu")
    whole, resumed = (load_file(place / WEIGHTS_FILE) for place in (folder, tmp_path))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_starts_from_a_finished_encoder(folder: Path) -> None:
    started = start_network(config(seed=5), str(folder))
    theirs = load_file(folder / WEIGHTS_FILE)
    assert all(torch.equal(t, theirs[n]) for n, t in started.encoder.state_dict().items())
    assert not torch.equal(started.predict.weight, network().predict.weight)  # new
    trained = {n for n, p in started.named_parameters() if not p.requires_grad}
    assert trained == {"encoder.pos_embed"}
    with pytest.raises(ValueError, match="as of these settings"):
        start_network(config(depth=3), str(folder))


def test_starts_from_an_unfinished_training(
    images: TrainingImages, tmp_path: Path, stop_after: Callable
) -> None:
    with pytest.raises(KeyboardInterrupt):
        training.train(images, tmp_path, config(), device="cpu", progress=[stop_after(4)])
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    started = start_network(config(seed=5), str(tmp_path))
    assert torch.equal(started.predict.weight, state["network.predict.weight"])


def test_crops_are_parts_of_the_image() -> None:
    rows = torch.arange(0, 64).repeat_interleave(4).to(torch.uint8).view(1, 1, 64, 4)
    image = rows[:, :, :, :1].expand(3, 3, 64, 64)
    rng = torch.Generator().manual_seed(0)
    found = crop(image, 0.2, rng)
    assert found.shape == image.shape
    spans = found[:, 0, -1, 0].int() - found[:, 0, 0, 0].int()
    assert (spans < 64).all()
    assert (spans > 15).all()
    assert crop(image, 1, rng) is image


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch_size": 5}, "image_size 16 is not a multiple of patch_size 5"),
        ({"patch_size": 16}, "mask_ratio 0.75 hides 1 of 1 patches"),
        ({"heads": 3}, "width 16 is not divisible by heads 3"),
        ({"decoder_width": 10, "decoder_heads": 5}, "decoder_width 10 is not divisible"),
    ],
)
def test_settings_that_do_not_fit(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**settings)
