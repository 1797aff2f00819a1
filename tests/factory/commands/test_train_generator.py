"""Training generators of each kind by the command, and using what it wrote."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import generators
from factory.demo.render import render_folder
from factory.recipe import load_recipe
from factory_core.dataset import open_dataset
from generators.base import Generator
from generators.config import DDPMConfig
from labelers.config import LabelerConfig
from labelers.labeler import GeneratorInfo
from labelers.training.fit import fit

TINY = ("--image-size", 16, "--steps", 2, "--batch-size", 4)
NETWORK = ("--set", "channel_base=128", "--set", "channel_max=8", "--set", "latent_dim=8")
TRAIN = ("train-generator", "--images", "photos/images", *TINY, "--set", "channels=[8,16]")


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
    kinds = "ddpm, factorized, stylegan2, mae, vdvae or e4e"
    assert refused.err == f"error: --kind vae: expected {kinds}\n"


def test_settings_of_another_kind_are_unknown(factory: Callable) -> None:
    command = ("train-generator", "--kind", "stylegan2", "--images", "photos", "--out", "out")
    refused = factory(*command, "--set", "min_snr_gamma=4")
    assert "unknown key 'min_snr_gamma'" in refused.err
    refused = factory(*command, "--image-size", 48)
    assert "'image_size' is 48: expected a power of two" in refused.err


def test_an_encoder_needs_its_stylegan2(factory: Callable) -> None:
    command = ("train-generator", "--kind", "e4e", "--images", "photos/images", "--out", "out")
    refused = factory(*command, "--image-size", 16)
    assert refused.err == (
        "error: found no --init: --kind e4e trains the encoder of a StyleGAN2: give that with "
        "--init\n"
    )
    assert not Path("out").exists()


def test_a_wrong_start_leaves_nothing_behind(factory: Callable) -> None:
    assert factory(*TRAIN, "--out", "small").code == 0
    wider = factory(*TRAIN, "--out", "out", "--init", "small", "--set", "channels=[8,24]")
    distilled = ("--image-size", 32, "--distill", "small")
    sized = factory("train-generator", "--images", "photos/images", "--out", "out", *distilled)
    assert (wider.code, sized.code) == (1, 1)
    assert "has channels [8, 16]" in wider.err
    assert "makes images of 16 pixels, not 32: set image_size=16" in sized.err
    assert not Path("out").exists()


def test_a_diffusion_model_is_distilled(factory: Callable) -> None:
    trained = factory(*TRAIN, "--out", "teacher")
    assert trained.code == 0, trained.err
    command = ("train-generator", "--images", "photos/images", *TINY, "--distill", "teacher")
    made = factory(*command, "--out", "student")
    assert made.code == 0, made.err
    assert made.out.endswith("--set generator.sampler=ddim --set generator.steps=4\n")
    config = DDPMConfig(weights="student", sampler="ddim", steps=4, features={"blocks": [1]})
    assert generators.load(config, "cpu").sample_images([0]).shape == (1, 3, 16, 16)
    for options, found in ((("--init", "teacher"), "--init"), (("--kind", "mae"), "--kind mae")):
        refused = factory(*command, "--out", "out", *options)
        assert refused.err.startswith(f"error: found --distill and {found}: ")
        assert not Path("out").exists()


# --- the images ------------------------------------------------------------------------------


def cut_short(number: int) -> Path:
    """Breaks off photograph `number` half-way, as a download that was interrupted."""
    path = Path(f"photos/images/{number:06d}.jpg")
    Image.open(path.with_suffix(".png")).resize((96, 96)).save(path, quality=95)
    path.with_suffix(".png").unlink()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def test_damaged_images_are_found_before_the_first_step(factory: Callable) -> None:
    first, second = cut_short(1), cut_short(4)
    refused = factory(*TRAIN, "--out", "out")
    assert refused.code == 1
    assert refused.err.startswith("error: 2 of 6 images in photos/images cannot be read")
    assert "--set skip_damaged=true" in refused.err
    lines = refused.out.splitlines()
    assert len(lines) == 2
    assert all(str(path) in line for path, line in zip((first, second), lines, strict=True))
    assert not Path("out").exists()
    skipped = factory(*TRAIN, "--out", "out", "--set", "skip_damaged=true")
    assert skipped.code == 0, skipped.err
    assert "4 images from photos/images, resized to 16 x 16; 2 damaged left out" in skipped.out
    for path in (first, second):
        path.unlink()
    again = factory(*TRAIN, "--out", "out")  # the same images were used: there is nothing to do
    assert again.code == 0, again.err
    for path in Path("photos/images").iterdir():
        path.write_bytes(b"no image")
    assert "none of the 4 images" in factory(*TRAIN, "--out", "b", "--set", "skip_damaged=1").err


def test_other_images_are_refused_and_can_be_continued_on(factory: Callable) -> None:
    first = factory(*TRAIN, "--out", "first")
    assert first.code == 0, first.err
    swapped = Path("photos/images/000002.png")
    Image.new("RGB", (32, 32), (200, 30, 90)).save(swapped)
    refused = factory(*TRAIN, "--out", "first")
    assert refused.code == 1
    assert "other images (1 changed: 000002.png)" in refused.err
    assert "--init first and another --out" in refused.err
    continued = factory(*TRAIN, "--init", "first", "--out", "second")
    assert continued.code == 0, continued.err


@pytest.mark.slow
def test_an_interrupted_training_can_be_continued_on_other_images(
    factory: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from generators.ddpm import training

    with monkeypatch.context() as patch:

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(training.DDPMTraining, "write", full)
        stopped = factory(*TRAIN, "--out", "first")
    assert stopped.code == 1
    assert not Path("first/unet").exists()
    Path("photos/images/000000.png").unlink()
    assert "1 missing or damaged: 000000.png" in factory(*TRAIN, "--out", "first").err
    learned = torch.load("first/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    continued = factory(*TRAIN, "--init", "first", "--out", "second", "--set", "lr=1e-12")
    assert continued.code == 0, continued.err
    for name, tensor in load_file("second/unet/diffusion_pytorch_model.safetensors").items():
        assert torch.allclose(tensor, learned[f"ema.module.{name}"], atol=1e-6), name
    other = factory(*TRAIN[:-1], "channels=[8,8]", "--init", "first", "--out", "third")
    assert "has channels [8, 16]" in other.err


@pytest.mark.slow
def test_more_steps_than_at_first_name_the_way_out(factory: Callable) -> None:
    assert factory(*TRAIN, "--out", "first").code == 0
    refused = factory(*TRAIN, "--steps", 4, "--out", "first")
    assert "2 steps, not 4" in refused.err
    assert "--init first and another --out" in refused.err
    assert factory(*TRAIN, "--steps", 4, "--init", "first", "--out", "second").code == 0


@pytest.mark.slow
def test_grey_photographs_give_a_grey_generator(factory: Callable) -> None:
    for path in Path("photos/images").iterdir():
        Image.open(path).convert("L").save(path)
    trained = factory(*TRAIN, "--out", "out")
    assert trained.code == 0, trained.err
    assert "all of them are grey (R = G = B)" in trained.out
    sampled = factory("sample", "--generator", "out", "--n", 2, "--out", "samples")
    assert sampled.code == 0, sampled.err
    for path in Path("samples/images").iterdir():
        pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
        assert np.ptp(pixels, axis=2).max() == 0
    sheet = np.asarray(Image.open("out/samples/step_000002.png")).astype(int)
    assert np.ptp(sheet, axis=2).max() == 0
