"""`predict` and `evaluate` with a factorized generator and no labeler."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from factory.demo.render import CLASSES, render_folder
from factory.pipeline.region_finder import RegionFinder
from generators.factorized.config import FactorizedTrainingConfig
from generators.factorized.training import train
from generators.training.images import TrainingImages

SIZES = {"image_size": 16, "channels": (8, 16), "steps": 1, "batch_size": 2}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A factorized generator of 16 x 16, and two annotated folders."""
    folder = tmp_path_factory.mktemp("regions")
    rng = torch.Generator().manual_seed(0)
    images = TrainingImages.of(torch.randint(0, 256, (4, 3, 16, 16), generator=rng).byte())
    train(images, folder / "generator", FactorizedTrainingConfig(**SIZES), device="cpu")
    render_folder(folder / "test", range(4), size=24)
    render_folder(folder / "val", range(10, 13), size=24)
    return folder


@pytest.fixture(autouse=True)
def _here(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def test_photographs_become_regions(factory: Callable) -> None:
    command = ("predict", "--generator", "generator", "--images", "test/images")
    done = factory(*command, "--out", "plain")
    assert done.code == 0, done.err
    assert "region 2" in done.out
    masks = [np.asarray(Image.open(path)) for path in sorted(Path("plain/masks").iterdir())]
    assert [mask.shape for mask in masks] == [(24, 24)] * 4
    assert set(np.unique(masks)) <= {0, 1, 2}
    settings = ("--set", "generator.features.region_timestep=600")
    settings += ("--set", "generator.features.region_noises=2")
    assert factory(*command, "--out", "noisy", *settings).code == 0
    noisy = [np.asarray(Image.open(path)) for path in sorted(Path("noisy/masks").iterdir())]
    assert not np.array_equal(masks, noisy)


def test_images_of_the_generators_size_are_not_resized() -> None:
    finder = RegionFinder.load("generator", (), "cpu")
    images = torch.randint(0, 256, (3, 3, 16, 16)).byte()
    expected = finder.generator.find_regions(images).argmax(1)
    assert torch.equal(finder.predict(images).long(), expected)


def test_regions_are_scored(factory: Callable) -> None:
    command = ("evaluate", "--generator", "generator", "--labeled", "test")
    done = factory(*command, "--json", "scores.json")
    assert done.code == 0, done.err
    assert "on the same images; give --val DIR" in done.out
    found = json.loads(Path("scores.json").read_text())
    assert found["images"] == 4
    assert found["foreground"] == list(CLASSES[1:])
    assert all(found["oracle"][name] >= found["dataset"][name] for name in found["oracle"])
    assert len(found["class_of_region"]) == 3
    assert 0 <= found["miou"] <= 1
    named = ("--foreground", "cytoplasm", "--foreground", "nucleus", "--val", "val")
    chosen = factory(*command, *named, "--json", "chosen.json")
    assert chosen.code == 0, chosen.err
    found = json.loads(Path("chosen.json").read_text())
    assert found["foreground"] == ["cytoplasm", "nucleus"]
    assert found["grouping_chosen_on"] == "validation images"


def test_each_image_may_have_a_class(factory: Callable, home: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (4, 3, 16, 16), generator=rng).byte().numpy()
    digests = {str(number): str(number) for number in range(4)}
    images = TrainingImages(pixels, digests, labels=[0, 1, 0, 1], classes=("few", "many"))
    train(images, home / "classes", FactorizedTrainingConfig(**SIZES), device="cpu")
    listing = home / "classes.csv"
    listing.write_text("".join(f"{i:06d}.png,{'few' if i < 2 else 'many'}\n" for i in range(4)))
    command = ("evaluate", "--generator", "classes", "--labeled", "test")
    command += ("--set", "generator.class_id=0", "--image-classes", "classes.csv")
    done = factory(*command)
    assert done.code == 0, done.err
    finder = RegionFinder.load("classes", ["generator.class_id=0"], "cpu")
    assert finder.class_ids(listing, ["000003", "000001"]) == [1, 0]
    listing.write_text("000000.png,none\n")
    refused = factory(*command)
    assert "found none for 000000, expected one of few, many" in refused.err
    refused = factory(*command[:1], "--generator", "generator", *command[3:])
    assert len(refused.err.strip().splitlines()) == 1
    assert "has no classes" in refused.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--generator", "package:factory.demo/generator"], "of kind 'ddpm', which has no"),
        (["--generator", "none"], "error: --generator: none does not exist"),
        (["--generator", "generator", "--foreground", "cow"], "--foreground cow: expected one of"),
        (
            ["--generator", "generator", "--splits", "2"],
            "found --splits, which does not apply to regions",
        ),
        (["--model", "model", "--val", "val"], "found --val, --foreground or --image-classes"),
    ],
)
def test_mistakes_of_evaluate_are_one_line(
    factory: Callable, arguments: list[str], words: str
) -> None:
    refused = factory("evaluate", *arguments, "--labeled", "test")
    assert refused.code == 1
    assert words in refused.err
    assert len(refused.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "found both or neither of --model and --generator"),
        (["--generator", "package:factory.demo/generator"], "which has no regions"),
        (["--generator", "generator", "--tile", "16"], "found --tile with --generator"),
    ],
)
def test_mistakes_of_predict_are_one_line(
    factory: Callable, arguments: list[str], words: str
) -> None:
    refused = factory("predict", *arguments, "--images", "test/images", "--out", "nothing")
    assert refused.code == 1
    assert words in refused.err
    assert len(refused.err.strip().splitlines()) == 1
    assert not Path("nothing").exists()
