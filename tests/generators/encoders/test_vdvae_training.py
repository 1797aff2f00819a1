"""Training a tiny VDVAE, resuming it exactly, and using it as an encoder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from generators.encoders.config import EncoderConfig
from generators.encoders.model import ImageEncoder
from generators.encoders.storage import WEIGHTS_FILE
from generators.encoders.vdvae_config import VDVAETrainingConfig, derived_blocks
from generators.encoders.vdvae_training import VDVAETraining, free_energy, start_network, train
from generators.training.images import TrainingImages

TINY = {
    "image_size": 16,
    "width": 8,
    "zdim": 2,
    "mixtures": 2,
    "steps": 6,
    "batch_size": 4,
    "checkpoint_every": 3,
    "preview_every": 6,
    "flips": True,
    "quarter_turns": True,
    "precision": "float32",
}


def config(**settings: Any) -> VDVAETrainingConfig:
    return VDVAETrainingConfig(**(TINY | settings))


@pytest.fixture(scope="module")
def images() -> TrainingImages:
    rng = torch.Generator().manual_seed(0)
    flat = torch.randint(0, 256, (10, 3, 1, 1), generator=rng).to(torch.uint8)
    return TrainingImages.of(flat.repeat(1, 1, 16, 16))


@pytest.fixture(scope="module")
def folder(images: TrainingImages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("vdvae") / "encoder"
    train(images, out, config(), device="cpu")
    return out


def test_the_blocks_follow_from_the_size_of_the_images() -> None:
    assert derived_blocks(16, 2) == (
        "16x2,16d2,8x2,8d2,4x2,4d4,1x2",
        "1x2,4m1,4x2,8m4,8x2,16m8,16x2",
    )
    assert derived_blocks(28, 1)[0] == "28x1,28d2,14x1,14d2,7x1,7d7,1x1"
    with pytest.raises(ValueError, match=r"image_size 100 cannot be halved .* such as 96"):
        config(image_size=100)


def test_an_interrupted_training_resumes_to_the_bit(
    images: TrainingImages,
    folder: Path,
    tmp_path: Path,
    stop_after: Callable[[int], Any],
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(images, tmp_path, config(), device="cpu", progress=[stop_after(4)])
    assert not (tmp_path / WEIGHTS_FILE).exists()
    train(images, tmp_path, config(), device="cpu")
    ours, theirs = (load_file(out / WEIGHTS_FILE) for out in (tmp_path, folder))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_it_writes_an_encoder(folder: Path, images: TrainingImages) -> None:
    encoder = ImageEncoder.load(EncoderConfig(weights=str(folder)), "cpu")
    assert encoder.image_size == (16, 16)
    maps = encoder.encode(images[0][None])
    assert maps.spec == encoder.feature_spec
    assert [(spec.channels, spec.height) for spec in maps.spec] == [
        (8, size) for size in (16, 8, 4, 1, 1, 4, 8, 16)
    ]
    assert encoder.notes == ()  # no licence: nobody published it
    for key, value in (("preset", "cifar10"), ("encoder_blocks", "16x1")):
        settings = EncoderConfig(weights=str(folder), **{key: value})
        with pytest.raises(ValueError, match=f"generator.{key} is set.* leave it out"):
            ImageEncoder.load(settings, "cpu")


def test_the_sheet_has_images_reconstructions_and_samples(folder: Path) -> None:
    with Image.open(folder / "samples" / "step_000006.png") as sheet:
        assert sheet.size == (2 + 8 * 18, 2 + 3 * 18)


def test_a_damaged_folder(folder: Path, tmp_path: Path) -> None:
    info = json.loads((folder / "encoder.json").read_text())
    info["settings"]["decoder_blocks"] = "1x1,16x3"
    (tmp_path / "encoder.json").write_text(json.dumps(info))
    (tmp_path / WEIGHTS_FILE).write_bytes((folder / WEIGHTS_FILE).read_bytes())
    with pytest.raises(ValueError, match="not the weights of a VDVAE") as caught:
        ImageEncoder.load(EncoderConfig(weights=str(tmp_path)), "cpu")
    assert "\n" not in str(caught.value)
    info["settings"]["zdim"] = "many"
    (tmp_path / "encoder.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match=r"its settings are damaged .'zdim'"):
        ImageEncoder.load(EncoderConfig(weights=str(tmp_path)), "cpu")


@pytest.mark.slow
def test_it_learns(images: TrainingImages) -> None:
    settings = config(lr=3e-3, steps=1, flips=False)
    network = start_network(settings, None)
    adam = torch.optim.AdamW(network.parameters(), lr=settings.lr)
    batch = torch.stack([images[i] for i in range(len(images))])
    losses = []
    for step in range(150):
        distortion, rate = free_energy(network, batch, torch.Generator().manual_seed(step))
        adam.zero_grad()
        (distortion + rate).backward()
        adam.step()
        losses.append((distortion + rate).item())
    assert losses[-1] < 0.8 * losses[0]
    assert rate.item() > 0


def test_steps_with_a_huge_gradient_are_skipped(images: TrainingImages) -> None:
    module = VDVAETraining(config(skip_above=1.0), images, start_network(config(), None))
    optimizer = torch.optim.AdamW(module.network.parameters(), lr=1.0)
    before = {name: p.clone() for name, p in module.network.named_parameters()}
    for size, is_skipped in ((1e3, True), (float("nan"), True), (1e-6, False)):
        for parameter in module.network.parameters():
            parameter.grad = torch.full_like(parameter, size)
        module.configure_gradient_clipping(optimizer, None, None)
        optimizer.step()
        same = [torch.equal(p, before[name]) for name, p in module.network.named_parameters()]
        assert all(same) == is_skipped


def test_continuing_from_another_training(images: TrainingImages, folder: Path) -> None:
    network = start_network(config(), str(folder))
    theirs = load_file(folder / WEIGHTS_FILE)
    assert all(torch.equal(t, theirs[name]) for name, t in network.state_dict().items())
    assert all(p.requires_grad for p in network.parameters())
    with pytest.raises(ValueError, match=r"has zdim 2, expected 3: set image_size"):
        start_network(config(zdim=3), str(folder))
    with pytest.raises(FileNotFoundError, match="no encoder at"):
        start_network(config(), str(folder.parent / "nothing"))
