"""The classes of training images, from folders and from a CSV, and generators that know them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import generators
from generators.config import DDPMConfig, FactorizedConfig
from generators.ddpm import training as plain
from generators.ddpm.config import DDPMTrainingConfig, FeatureConfig
from generators.factorized import training as factorized
from generators.factorized.config import FactorizedFeatures, FactorizedTrainingConfig
from generators.training.images import TrainingImages, read_training_images
from generators.training.labels import class_numbers, find_labelled

SIZES = {"image_size": 16, "channels": (8, 16), "steps": 2, "batch_size": 4, "checkpoint_every": 1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images of cats and one of a dog."""
    photos = tmp_path / "photos"
    for number, name in enumerate(("dog/a.png", "cat/a.png", "cat/b.png")):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 50 * number, np.uint8)).save(photos / name)
    return photos


def test_folders_are_classes(folder: Path) -> None:
    found = read_training_images(folder, 16, folder.parent, lambda *_: None, labels="folders")
    assert list(found.digests) == ["cat/a.png", "cat/b.png", "dog/a.png"]
    assert found.classes == ("cat", "dog")
    assert found.labels == [0, 0, 1]
    image, label = found[2]
    assert (image.shape, label) == ((3, 16, 16), 1)


def test_a_damaged_image_takes_its_class_along(folder: Path) -> None:
    (folder / "cat" / "a.png").write_bytes(b"no image")
    found = read_training_images(folder, 16, folder.parent, lambda *_: None, labels="folders")
    assert list(found.damaged) == ["cat/a.png"]
    assert found.labels == [0, 1]


@pytest.mark.parametrize("heading", ["", "file,class\n"])
def test_classes_from_a_csv(folder: Path, tmp_path: Path, heading: str) -> None:
    listing = tmp_path / "classes.csv"
    listing.write_text(f"{heading}b.png,young\na.png,old\n")
    found = find_labelled(folder / "cat", str(listing))
    assert (found.names, found.labels, found.classes) == (
        ["a.png", "b.png"],
        [0, 1],
        ("old", "young"),
    )
    listing.write_text(f"{heading}a.png,old\n")
    with pytest.raises(ValueError, match=r"gives 1 images of .* no class, such as b\.png"):
        find_labelled(folder / "cat", str(listing))
    listing.write_text("a.png,old\na.png,young\n")
    with pytest.raises(ValueError, match=r"line 2: a\.png has two classes"):
        find_labelled(folder / "cat", str(listing))
    listing.write_text("a.png\n")
    with pytest.raises(ValueError, match="line 1: expected a file name and a class"):
        find_labelled(folder / "cat", str(listing))


def test_mistakes_are_one_line(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="labels=nothing: expected `folders`, or an exist"):
        find_labelled(folder / "cat", "nothing")
    with pytest.raises(ValueError, match="has no subfolders, expected one per class"):
        find_labelled(folder / "cat", "folders")
    (folder / "dog" / "a.png").unlink()
    (folder / "dog").rmdir()
    with pytest.raises(ValueError, match="found one class, cat, expected two or more"):
        find_labelled(folder, "folders")
    with pytest.raises(ValueError, match=r"found cow for x\.png, expected one of cat, dog"):
        class_numbers(["x.png"], {"x.png": "cow"}, ["cat", "dog"])
    assert class_numbers(["x.png"], {"x.png": "dog"}, ["cat", "dog"]) == [1]


# --- training ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def images() -> TrainingImages:
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (6, 3, 16, 16), generator=rng).to(torch.uint8).numpy()
    digests = {str(i): str(i) for i in range(6)}
    return TrainingImages(pixels, digests, labels=[0, 1, 2, 0, 1, 2], classes=("a", "b", "c"))


def trained(kind: str, images: TrainingImages, out: Path, **options) -> None:
    if kind == "ddpm":
        plain.train(images, out, DDPMTrainingConfig(**SIZES), device="cpu", **options)
    else:
        factorized.train(images, out, FactorizedTrainingConfig(**SIZES), device="cpu", **options)


def loaded(kind: str, folder: Path, class_id: int | str):
    about = {"weights": str(folder), "steps": 2, "class_id": class_id, "precision": "float32"}
    if kind == "ddpm":
        config = DDPMConfig(**about, features=FeatureConfig(blocks=(1,), timesteps=(50,)))
        return generators.load(config, "cpu")
    return generators.load(
        FactorizedConfig(**about, features=FactorizedFeatures(record="regions")), "cpu"
    )


@pytest.mark.parametrize("kind", ["ddpm", "factorized"])
def test_a_class_conditional_generator(kind: str, images: TrainingImages, tmp_path: Path) -> None:
    trained(kind, images, tmp_path)
    assert json.loads((tmp_path / "classes.json").read_text()) == {"classes": ["a", "b", "c"]}
    assert json.loads((tmp_path / "training.json").read_text())["provenance"]["classes"] == [*"abc"]
    first, last = loaded(kind, tmp_path, 0), loaded(kind, tmp_path, 2)
    assert first.digest == last.digest
    assert not torch.equal(first.sample_images([0]), last.sample_images([0]))
    with pytest.raises(
        ValueError, match=r"class_id is 3, but the network of .* has classes 0 to 2"
    ):
        loaded(kind, tmp_path, 3)
    if kind == "factorized":
        photographs = torch.from_numpy(images.pixels[:2].copy())
        each = first.find_regions(photographs, [0, 2])
        assert torch.allclose(each[:1], first.find_regions(photographs)[:1], atol=1e-5)
        assert torch.allclose(each[1:], last.find_regions(photographs)[1:], atol=1e-5)


def test_the_loss_sees_the_classes(images: TrainingImages) -> None:
    settings = DDPMTrainingConfig(**SIZES)
    module = plain.DDPMTraining(settings, images, plain.start_network(settings, None, 3))
    before = module.unet.class_embedding.weight.detach().clone()
    x, t, labels = torch.randn(2, 3, 16, 16), torch.tensor([5, 500]), torch.tensor([0, 2])
    torch.nn.init.normal_(module.unet.conv_out.weight)
    module.pass_through(module.unet, x, t, labels).sum().backward()
    grad = module.unet.class_embedding.weight.grad
    assert grad is not None
    assert (grad.abs().sum(1) > 0).tolist() == [True, False, True]
    assert torch.equal(before, module.unet.class_embedding.weight)


@pytest.mark.parametrize("kind", ["ddpm", "factorized"])
def test_starting_from_generators_with_and_without_classes(
    kind: str, images: TrainingImages, tmp_path: Path, stop_after: Callable
) -> None:
    unconditional = TrainingImages(images.pixels, images.digests)
    predicts = "v_prediction" if kind == "ddpm" else "epsilon"  # the defaults of both kinds
    settings = DDPMTrainingConfig(**SIZES, prediction=predicts)  # type: ignore[arg-type]
    plain.train(unconditional, tmp_path / "plain", settings, device="cpu")
    trained(kind, images, tmp_path / "classes", init=str(tmp_path / "plain"))
    with pytest.raises(ValueError, match="set labels to the same"):
        trained(kind, unconditional, tmp_path / "none", init=str(tmp_path / "classes"))
    # An unfinished training may also be started from.
    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        trained(kind, images, broken, progress=[stop_after(2)])
    trained(kind, images, tmp_path / "again", init=str(broken))


def test_training_with_folders_of_classes(factory: Callable, folder: Path, tmp_path: Path) -> None:
    command = ("train-generator", "--images", folder, "--out", tmp_path / "generator")
    sizes = ("--steps", 1, "--image-size", 16, "--set", "channels=[8,16]")
    done = factory(*command, *sizes, "--set", "labels=folders")
    assert done.code == 0, done.err
    assert "2 classes: cat, dog" in done.out
