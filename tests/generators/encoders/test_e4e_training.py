"""Training the encoder of a tiny StyleGAN2, resuming it exactly, and using it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import generators
from generators.encoders import e4e_training as training
from generators.encoders.config import EncoderConfig
from generators.encoders.e4e_config import E4ETrainingConfig
from generators.encoders.e4e_training import E4ETraining, start_network
from generators.encoders.kinds import INFO_FILE
from generators.encoders.storage import WEIGHTS_FILE
from generators.kind import kind_of
from generators.stylegan2 import storage
from generators.stylegan2.config import NetworkConfig
from generators.stylegan2.network import StyleGAN2
from generators.training.images import TrainingImages

SHAPE = NetworkConfig(
    resolution=16, z_dim=16, w_dim=16, mapping_layers=2, channel_base=128, channel_max=8
)


def config(**settings: Any) -> E4ETrainingConfig:
    tiny = {
        "image_size": 16,
        "steps": 6,
        "batch_size": 2,
        "warmup_steps": 2,
        "checkpoint_every": 3,
        "preview_every": 6,
        "flips": True,
        "quarter_turns": True,
        "precision": "float32",
    }
    return E4ETrainingConfig(**(tiny | settings))


def gan_in(folder: Path, **changes: Any) -> str:
    torch.manual_seed(0)
    storage.save(StyleGAN2(SHAPE.model_copy(update=changes)), folder)
    return str(folder)


@pytest.fixture(scope="module")
def gan(tmp_path_factory: pytest.TempPathFactory) -> str:
    return gan_in(tmp_path_factory.mktemp("gan"))


@pytest.fixture(scope="module")
def images() -> TrainingImages:
    rng = torch.Generator().manual_seed(0)
    return TrainingImages.of(torch.randint(0, 256, (10, 3, 16, 16), generator=rng).to(torch.uint8))


@pytest.fixture(scope="module")
def folder(images: TrainingImages, gan: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("e4e")
    training.train(images, out, config(), init=gan, device="cpu")
    return out


def test_the_folder_is_an_encoder(folder: Path, images: TrainingImages) -> None:
    assert kind_of(folder) == "encoder"
    encoder = generators.load_encoder(EncoderConfig(weights=str(folder)), "cpu")
    assert encoder.image_size == (16, 16)
    names = ["body.2", "body.6", "body.20", "body.23", "p2", "p1"]
    assert [m.name for m in encoder.feature_spec] == names
    assert encoder.encode(images[0][None])["p1"].shape == (1, 16, 4, 4)
    assert (folder / "samples" / "step_000006.png").is_file()


def test_its_stylegan2_makes_the_features_of_inversion(folder: Path, gan: str) -> None:
    settings = EncoderConfig(weights=str(folder), activations="generator")
    encoder = generators.load_encoder(settings, "cpu")
    assert [m.name for m in encoder.feature_spec][-1] == "b16.conv1"
    theirs, ours = storage.load(Path(gan)), start_network(config(), str(folder)).stylegan2
    state = theirs.state_dict()
    assert all(torch.equal(t, state[n]) for n, t in ours.state_dict().items())


def test_resumes_exactly(
    folder: Path, images: TrainingImages, gan: str, tmp_path: Path, stop_after: Callable
) -> None:
    with pytest.raises(KeyboardInterrupt):
        training.train(images, tmp_path, config(), init=gan, device="cpu", progress=[stop_after(4)])
    assert not (tmp_path / WEIGHTS_FILE).exists()
    training.train(images, tmp_path, config(), init=gan, device="cpu")
    whole, resumed = (load_file(place / WEIGHTS_FILE) for place in (folder, tmp_path))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_it_learns_the_codes_of_samples(images: TrainingImages, gan: str) -> None:
    settings = config(style_mixing=0, layers_weight=0)
    module = E4ETraining(settings, images, start_network(settings, gan))
    net = module.network
    seen, ws = module._samples(8, torch.Generator().manual_seed(1))
    assert seen.dtype == torch.uint8
    assert torch.equal(ws[:, 0], ws[:, -1])
    optimizer, errors = torch.optim.Adam(net.encoder.parameters(), lr=3e-3), []
    for _ in range(80):
        errors.append((net.ws(seen) - ws).square().mean() / module.spread**2)
        optimizer.zero_grad()
        errors[-1].backward()
        optimizer.step()
    assert errors[-1] < 0.5 * errors[0]


def test_only_the_encoder_is_trained(images: TrainingImages, gan: str) -> None:
    network = start_network(config(), gan)
    trained = {name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {"encoder"}
    average = network.stylegan2.mapping.w_avg
    assert all(torch.equal(row, average) for row in network.latent_avg)


def test_starts_from_a_trained_one(folder: Path) -> None:
    started = start_network(config(seed=5), str(folder))
    theirs = load_file(folder / WEIGHTS_FILE)
    state = started.encoder.state_dict()
    assert all(torch.equal(t, theirs[f"encoder.{name}"]) for name, t in state.items())
    assert started.encoder.training


def test_needs_a_fitting_stylegan2(gan: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"images of 16 pixels, not 32: set image_size=16"):
        start_network(config(image_size=32), gan)
    with pytest.raises(ValueError, match="has 3 classes"):
        start_network(config(), gan_in(tmp_path / "classes", c_dim=3))
    with pytest.raises(ValueError, match="have 8 numbers"):
        start_network(config(), gan_in(tmp_path / "narrow", w_dim=8))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({**SHAPE.model_dump(), "resolution": 17}, "shape of its StyleGAN2: 'resolution'"),
        ({**SHAPE.model_dump(), "w_dim": 17}, "expected"),
        ("StyleGAN2", "shape of its StyleGAN2"),
    ],
)
def test_a_damaged_description(folder: Path, tmp_path: Path, shape: Any, message: str) -> None:
    (tmp_path / WEIGHTS_FILE).write_bytes((folder / WEIGHTS_FILE).read_bytes())
    info = json.loads((folder / INFO_FILE).read_text())
    info["settings"]["stylegan2"] = shape
    (tmp_path / INFO_FILE).write_text(json.dumps(info))
    with pytest.raises(ValueError, match=message):
        generators.load_encoder(EncoderConfig(weights=str(tmp_path)), "cpu")
