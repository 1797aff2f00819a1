"""Generators trained on grey images sample grey images."""

from pathlib import Path

import pytest
import torch

import generators
from generators.colours import COLOURS_FILE
from generators.ddpm.config import DDPMConfig, DDPMTrainingConfig
from generators.ddpm.training import train as train_ddpm
from generators.stylegan2.config import StyleGAN2Config, StyleGAN2TrainingConfig
from generators.stylegan2.training import train as train_stylegan2
from generators.training.images import TrainingImages

COMMON = {"image_size": 16, "steps": 2, "batch_size": 4, "precision": "float32"}


def train_and_config(kind: str, images: TrainingImages, out: Path) -> object:
    if kind == "ddpm":
        settings = DDPMTrainingConfig(**COMMON, channels=(8, 16))
        train_ddpm(images, out, settings, device="cpu")
        return DDPMConfig(weights=str(out), steps=2)
    gan = StyleGAN2TrainingConfig(**COMMON, channel_base=128, channel_max=8, latent_dim=8)
    train_stylegan2(images, out, gan, device="cpu")
    return StyleGAN2Config(weights=str(out))


@pytest.mark.parametrize("kind", ["ddpm", "stylegan2"])
def test_samples_are_grey_if_all_training_images_were(kind: str, tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    grey = torch.randint(0, 256, (6, 1, 16, 16), generator=rng).to(torch.uint8)
    out = tmp_path / "grey"
    config = train_and_config(kind, TrainingImages.of(grey.repeat(1, 3, 1, 1)), out)
    generator = generators.load(config, "cpu")  # type: ignore[arg-type]
    sampled = generator.sample([0, 1])[0].int()
    assert torch.equal(sampled[:, 0], sampled[:, 1])
    assert torch.equal(sampled[:, 0], sampled[:, 2])
    # Without its file it is another generator, which tints its samples.
    (out / COLOURS_FILE).unlink()
    tinted = generators.load(config, "cpu")  # type: ignore[arg-type]
    assert tinted.digest != generator.digest
    coloured = tinted.sample([0, 1])[0].int()
    assert int((coloured[:, 0] - coloured[:, 1]).abs().max()) > 1
    kept = ((coloured > 0) & (coloured < 255)).all(dim=1)  # nothing was clipped
    difference = sampled[:, 0] - coloured.float().mean(dim=1)
    assert float(difference[kept].abs().max()) <= 1
    (out / COLOURS_FILE).write_text('{"gray": true}')
    with pytest.raises(ValueError, match=r"colours\.json is damaged"):
        generators.load(config, "cpu")  # type: ignore[arg-type]


def test_colour_images_leave_no_mark(tmp_path: Path) -> None:
    (tmp_path / COLOURS_FILE).write_text('{"grey": true}')  # of an earlier training
    images = torch.randint(0, 256, (4, 3, 16, 16), generator=torch.Generator()).to(torch.uint8)
    train_and_config("ddpm", TrainingImages.of(images), tmp_path)
    assert not (tmp_path / COLOURS_FILE).exists()
