"""The whole way on a folder of images, each step by its command, at 16 x 16 pixels."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from factory.demo.render import CLASSES, render_folder
from factory_core.dataset import open_dataset, read_samples

FAST = ("--set", "labeler.members=2", "--set", "labeler.training.min_epochs=0")
TINY = ("--image-size", 16, "--set", "channels=[8,16]", "--steps", 3, "--batch-size", 4)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with unlabelled, annotated and test images."""
    folder = tmp_path_factory.mktemp("own")
    for name, start in (("photos", 0), ("annotated", 20), ("test", 40)):
        render_folder(folder / name, range(start, start + 6), size=32)
    return folder


@pytest.fixture(autouse=True)
def _here(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)


def succeed(result) -> str:
    assert result.code == 0, result.err
    return result.out


def test_train_generator(factory: Callable) -> None:
    succeed(factory("train-generator", "--images", "photos/images", "--out", "generator", *TINY))
    assert Path("generator/unet/diffusion_pytorch_model.safetensors").is_file()
    assert Image.open("generator/samples/step_000003.png").size > (64, 64)


def test_train_labeler(factory: Callable) -> None:
    command = ("train-labeler", "--generator", "generator", "--labeled", "annotated")
    assert "accuracy" in succeed(factory(*command, "--out", "labeler", *FAST))
    about = json.loads(Path("labeler/labeler.json").read_text())
    assert about["classes"] == list(CLASSES)


def test_generate(factory: Callable) -> None:
    command = ("generate", "--labeler", "labeler", "--n", 20, "--executor", "local")
    settings = ("--set", "generator.steps=3", "--real", "photos/images")
    printed = succeed(factory(*command, "--out", "data", *settings))
    assert "20 candidates, 2 most uncertain dropped, 18 kept" in printed
    assert "Fréchet" in printed
    dataset = open_dataset("data")
    assert dataset.manifest.totals.kept == len(list(read_samples("data"))) == 18
    assert Image.open("data/preview.png").width > 300
    assert json.loads(Path("data/fidelity.json").read_text())


def test_generate_again_only_says_that_it_is_finished(factory: Callable) -> None:
    before = {p: p.read_bytes() for p in Path("data").rglob("*") if p.is_file()}
    command = ("generate", "--labeler", "labeler", "--n", 20, "--executor", "local")
    succeed(factory(*command, "--out", "data", "--set", "generator.steps=3"))
    assert {p: p.read_bytes() for p in Path("data").rglob("*") if p.is_file()} == before


def test_dry_run_writes_nothing(factory: Callable) -> None:
    command = ("generate", "--labeler", "labeler", "--n", 500, "--executor", "local", "--dry-run")
    printed = succeed(factory(*command, "--out", "planned", "--set", "generator.steps=3"))
    assert "samples/s" in printed
    assert "GiB on disk" in printed
    assert not Path("planned").exists()


def test_label_real_photographs(factory: Callable) -> None:
    command = ("label", "--labeler", "labeler", "--images", "photos/images")
    succeed(factory(*command, "--out", "labelled", "--executor", "local"))
    samples = list(read_samples("labelled"))
    assert len(samples) == 6
    photo = Image.open(f"photos/images/{samples[0].meta['source']}").resize((16, 16))
    assert np.abs(samples[0].image.transpose(1, 2, 0) - np.asarray(photo, int)).mean() < 10


def test_train_deeplab_on_datasets_and_annotated_images_together(factory: Callable) -> None:
    data = ("--data", "data", "--data", "labelled", "--data", "annotated", "--val", "test")
    settings = ("--encoder", "resnet18", "--steps", 2, "--set", "augment.horizontal_flip=true")
    printed = succeed(factory("train-deeplab", *data, "--out", "model", *settings))
    assert "validation mIoU" in printed


@pytest.mark.parametrize("what", [("--model", "model"), ("--labeler", "labeler")])
def test_evaluate(factory: Callable, what: tuple[str, str]) -> None:
    command = ("evaluate", *what, "--labeled", "test", "--json", "scores.json")
    printed = succeed(factory(*command))
    assert "nucleus" in printed
    assert "ignored pixels left out" in printed
    scores = json.loads(Path("scores.json").read_text())
    assert scores["images"] == 6
    assert 0 <= scores["miou"] <= 1


def test_evaluate_on_the_demo(factory: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("factory.commands.evaluate.DEMO_TEST_INDICES", range(1_000_000, 1_000_003))
    assert "3 unseen renderings" in succeed(factory("evaluate", "--model", "model", "--demo"))


def test_predict(factory: Callable) -> None:
    succeed(factory("predict", "--model", "model", "--images", "test/images", "--out", "seen"))
    mask = Image.open("seen/masks/000040.png")
    assert mask.size == (32, 32)
    assert np.asarray(mask).max() < len(CLASSES)
    assert Image.open("seen/overlays/000040.png").mode == "RGB"
