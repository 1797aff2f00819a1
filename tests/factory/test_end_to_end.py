"""The whole pipeline on a folder of images, each step by its command, at 16 x 16 pixels.

A fixture a step: each is taken once, and any test may run alone.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from factory.demo.render import CLASSES, render_folder
from factory_core.dataset import open_dataset, read_samples

FAST = ("--set", "labeler.members=2", "--set", "labeler.training.min_epochs=0")
TINY = ("--image-size", 16, "--set", "channels=[8,16]", "--steps", 3, "--batch-size", 4)
STEPS = ("--set", "generator.steps=3")


class Step(NamedTuple):
    """What a command wrote and printed."""

    out: Path
    printed: str


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with unlabelled, annotated and test images."""
    folder = tmp_path_factory.mktemp("own")
    for name, start in (("photos", 0), ("annotated", 20), ("test", 40)):
        render_folder(folder / name, range(start, start + 6), size=32)
    return folder


@pytest.fixture(scope="module")
def take(factory: Callable, home: Path) -> Callable[..., Step]:
    """`take("generate", "--n", 20, out="data")` -> the step, if it succeeded."""

    def run(*command: object, out: str) -> Step:
        result = factory(*command, "--out", home / out)
        assert result.code == 0, result.err
        return Step(home / out, result.out)

    return run


@pytest.fixture(scope="module")
def generator(take: Callable, home: Path) -> Step:
    return take("train-generator", "--images", home / "photos/images", *TINY, out="generator")


@pytest.fixture(scope="module")
def labeler(take: Callable, home: Path, generator: Step) -> Step:
    given = ("--generator", generator.out, "--labeled", home / "annotated")
    return take("train-labeler", *given, *FAST, out="labeler")


@pytest.fixture(scope="module")
def data(take: Callable, home: Path, labeler: Step) -> Step:
    given = ("--labeler", labeler.out, "--n", 20, "--executor", "local")
    return take("generate", *given, *STEPS, "--real", home / "photos/images", out="data")


@pytest.fixture(scope="module")
def labelled(take: Callable, home: Path, labeler: Step) -> Step:
    given = ("--labeler", labeler.out, "--images", home / "photos/images")
    return take("label", *given, "--executor", "local", out="labelled")


@pytest.fixture(scope="module")
def model(take: Callable, home: Path, data: Step, labelled: Step) -> Step:
    folders = (data.out, labelled.out, home / "annotated")
    given = [argument for folder in folders for argument in ("--data", folder)]
    settings = ("--encoder", "resnet18", "--steps", 2, "--set", "augment.horizontal_flip=true")
    return take("train-deeplab", *given, "--val", home / "test", *settings, out="model")


def test_train_generator(generator: Step) -> None:
    assert (generator.out / "unet/diffusion_pytorch_model.safetensors").is_file()
    assert Image.open(generator.out / "samples/step_000003.png").size > (64, 64)


def test_train_labeler(labeler: Step) -> None:
    assert "accuracy" in labeler.printed
    about = json.loads((labeler.out / "labeler.json").read_text())
    assert about["classes"] == list(CLASSES)


def test_generate(data: Step) -> None:
    assert "20 candidates, 2 most uncertain dropped, 18 kept" in data.printed
    assert "What dropping costs" in data.printed
    assert "Fréchet" in data.printed
    dataset = open_dataset(data.out)
    assert dataset.manifest.totals.kept == len(list(read_samples(data.out))) == 18
    assert Image.open(data.out / "preview.png").width > 300
    assert json.loads((data.out / "fidelity.json").read_text())


def test_generate_again_only_says_that_it_is_finished(
    data: Step, labeler: Step, take: Callable
) -> None:
    before = {p: p.read_bytes() for p in data.out.rglob("*") if p.is_file()}
    given = ("--labeler", labeler.out, "--n", 20, "--executor", "local")
    take("generate", *given, *STEPS, out="data")
    assert {p: p.read_bytes() for p in data.out.rglob("*") if p.is_file()} == before


def test_dry_run_writes_nothing(labeler: Step, take: Callable) -> None:
    given = ("--labeler", labeler.out, "--n", 500, "--executor", "local", "--dry-run")
    planned = take("generate", *given, *STEPS, out="planned")
    assert "samples/s" in planned.printed
    assert "MiB on disk" in planned.printed
    assert not planned.out.exists()


def test_label_real_photographs(labelled: Step, home: Path) -> None:
    samples = list(read_samples(labelled.out))
    assert len(samples) == 6
    photo = Image.open(home / "photos/images" / samples[0].meta["source"]).resize((16, 16))
    assert np.abs(samples[0].image.transpose(1, 2, 0) - np.asarray(photo, int)).mean() < 10


def test_train_deeplab_on_datasets_and_annotated_images_together(model: Step) -> None:
    assert "validation mIoU" in model.printed


@pytest.mark.parametrize("what", ["model", "labeler"])
def test_evaluate(
    what: str, request: pytest.FixtureRequest, home: Path, factory: Callable, tmp_path: Path
) -> None:
    step: Step = request.getfixturevalue(what)
    command = ("evaluate", f"--{what}", step.out, "--labeled", home / "test")
    result = factory(*command, "--json", tmp_path / "scores.json")
    assert result.code == 0, result.err
    assert "nucleus" in result.out
    assert "ignored pixels left out" in result.out
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["images"] == 6
    assert 0 <= scores["miou"] <= 1


def test_evaluate_on_the_demo(
    model: Step, factory: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("factory.commands.evaluate.DEMO_TEST_INDICES", range(1_000_000, 1_000_003))
    assert "3 unseen renderings" in factory("evaluate", "--model", model.out, "--demo").out


def test_report_of_the_dataset(data: Step, home: Path, factory: Callable) -> None:
    given = ("--real", home / "photos/images", "--labeled", home / "annotated")
    result = factory("report", data.out, *given)
    assert result.code == 0, result.err
    text = (data.out / "report.html").read_text()
    assert "Fréchet distance" in text
    assert "kernel distance (KID)" in text
    assert "annotated images" in text
    assert "nearest training image" in text
    assert "add <code>" not in text  # nothing else can be asked for


def test_report_of_photographs_has_no_training_images(labelled: Step, factory: Callable) -> None:
    assert factory("report", labelled.out).code == 0
    assert "Near-copies" not in (labelled.out / "report.html").read_text()
    refused = factory("report", labelled.out, "--real", labelled.out)
    assert "found --real for a dataset of photographs" in refused.err


def test_report_of_the_labeler(labeler: Step, home: Path, factory: Callable) -> None:
    file = labeler.out / "report.html"
    assert factory("report", labeler.out).code == 0
    assert "--labeled DIR" in file.read_text()
    result = factory("report", labeler.out, "--labeled", home / "test")
    assert result.code == 0, result.err
    text = file.read_text()
    assert "area under risk-coverage" in text
    assert "were trained on" not in text
    assert factory("report", labeler.out, "--labeled", home / "annotated").code == 0
    assert "These images were trained on" in file.read_text()


def test_predict(model: Step, home: Path, take: Callable) -> None:
    seen = take("predict", "--model", model.out, "--images", home / "test/images", out="seen")
    mask = Image.open(seen.out / "masks/000040.png")
    assert mask.size == (32, 32)
    assert np.asarray(mask).max() < len(CLASSES)
    assert Image.open(seen.out / "overlays/000040.png").mode == "RGB"
