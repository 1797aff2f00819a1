"""Training generators of each kind by the command, and using what it wrote."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import generators
from factory.demo.render import render_folder
from factory.recipe import load_recipe
from factory_core.dataset import open_dataset
from generators.base import Generator
from labelers.config import LabelerConfig
from labelers.labeler import GeneratorInfo
from labelers.training.fit import fit

TINY = ("--image-size", 16, "--steps", 2, "--batch-size", 4)
NETWORK = ("--set", "channel_base=128", "--set", "channel_max=8", "--set", "latent_dim=8")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    render_folder(tmp_path / "photos", range(6), size=32)


@pytest.mark.slow
def test_a_gan_from_photographs_to_a_dataset(factory: Callable) -> None:
    command = ("train-generator", "--kind", "stylegan2", "--images", "photos/images")
    trained = factory(*command, "--out", "gan", *TINY, *NETWORK)
    assert trained.code == 0, trained.err
    Path("gan.yaml").write_text(
        "name: gan\ngenerator: {kind: stylegan2, weights: gan, batch_size: 4}\n"
    )
    config = load_recipe("gan.yaml").generator
    generator = generators.load(config, "cpu")
    assert isinstance(generator, Generator)
    images, features = generator.sample(range(4))
    masks = (images.float().mean(dim=1) > images.float().mean()).to(torch.uint8)
    labeler = fit(
        features,
        masks,
        LabelerConfig(members=2, training={"kind": "fast", "steps": 5}),
        classes=["dark", "light"],
        generator=GeneratorInfo(digest=generator.digest, config=config.model_dump(mode="json")),
        data_digest="",
        palette=[[0, 0, 0], [255, 255, 255]],
    )
    labeler.save(Path("labeler"))
    making = ("generate", "--recipe", "gan.yaml", "--labeler", "labeler", "--executor", "local")
    made = factory(*making, "--n", 10, "--out", "data")
    assert made.code == 0, made.err
    assert open_dataset("data").manifest.totals.kept == 9


def test_an_unknown_kind(factory: Callable) -> None:
    refused = factory("train-generator", "--kind", "vae", "--images", "photos", "--out", "out")
    assert refused.code == 1
    assert refused.err == "error: --kind vae: expected ddpm or stylegan2\n"


def test_settings_of_another_kind_are_unknown(factory: Callable) -> None:
    command = ("train-generator", "--kind", "stylegan2", "--images", "photos", "--out", "out")
    refused = factory(*command, "--set", "min_snr_gamma=4")
    assert "unknown key 'min_snr_gamma'" in refused.err
    refused = factory(*command, "--image-size", 48)
    assert "'image_size' is 48: expected a power of two" in refused.err
