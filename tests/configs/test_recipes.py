"""The recipes of published datasets: their content, and each run start to finish at 32 x 32."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from factory.recipe import load_recipe, preset_names
from factory.recipe.weights import PUBLISHED
from factory.reports import preview
from factory_core.annotated.annotations import read_annotations
from factory_core.dataset import IGNORE, open_dataset

PAPER = {
    "bedroom_28": "lsun_bedroom.pt",
    "ffhq_34": "ffhq.pt",
    "cat_15": "lsun_cat.pt",
    "horse_21": "lsun_horse.pt",
    "celeba_19": "ffhq.pt",
    "ade_bedroom_30": "lsun_bedroom.pt",
}
# The network of `conftest.checkpoint`; two sampling steps; a few optimiser steps.
SMALL = ("generator.image_size=32", "generator.channels_per_head=32", "generator.steps=2")
SHORT = ("labeler.members=1", "labeler.training.max_epochs=1")
every_recipe = pytest.mark.parametrize("name", PAPER)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(preview, "TILE", 32)  # drawing takes longer than making the samples


def test_every_preset_is_tested() -> None:
    assert set(preset_names()) == {"demo", "demo_stylegan2", *PAPER}


@every_recipe
def test_classes_and_colours(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.classes is not None
    assert recipe.palette is not None
    assert len(recipe.classes) == int(name.rpartition("_")[2])
    assert len(set(recipe.palette)) == len(recipe.palette) == len(recipe.classes)
    assert (255, 255, 255) not in recipe.palette  # that is the colour of ignored pixels
    if "background" in recipe.classes:
        assert (recipe.classes[0], recipe.palette[0]) == ("background", (0, 0, 0))


@every_recipe
def test_the_settings_are_the_papers(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.generator.weights == PAPER[name]
    features = recipe.generator.features
    assert (features.blocks, features.timesteps) == ((5, 6, 7, 8, 12), (50, 150, 250))
    assert features.noise == "shared"
    labeler = recipe.labeler
    assert (labeler.members, labeler.vote, labeler.training.kind) == (10, "majority", "reference")
    assert recipe.classes is not None
    wide = name in ("ffhq_34", "ade_bedroom_30")
    assert labeler.hidden_for(len(recipe.classes)) == ((256, 128) if wide else (128, 32))
    net = recipe.segmenter
    assert (net.architecture, net.encoder, net.encoder_weights) == ("DeepLabV3", "resnet101", None)
    assert (net.optimizer, net.lr, net.batch_size, net.epochs) == ("adam", 1e-3, 8, 20)
    assert recipe.dataset.drop_fraction == 0.1


def test_bedroom_28_ignores_0_and_counts_from_1(tmp_path: Path) -> None:
    """In the published masks, 0 is an ignored background and the classes are 1 to 28."""
    classes = load_recipe("bedroom_28").classes
    assert classes is not None
    folder = tmp_path / "bedroom_28" / "real" / "train"
    folder.mkdir(parents=True)
    (folder.parent / "classes.json").write_text('{"reduce_zero_label": true}')
    ids = np.arange(32 * 32).reshape(32, 32).astype(np.uint8) % 29
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(folder / "0.png")
    np.save(folder / "0.npy", ids)
    found = read_annotations(folder, (32, 32), classes)
    assert (found.classes[0], found.classes[27]) == ("bed", "table staff")
    wanted = torch.from_numpy(np.where(ids == 0, IGNORE, ids - 1).astype(np.uint8))
    assert torch.equal(found.masks[0], wanted)


def test_cat_15_has_the_order_of_the_paper() -> None:
    classes = load_recipe("cat_15").classes
    assert classes is not None
    assert classes[10:13] == ("tongue", "tail", "nose")


@every_recipe
def test_without_the_checkpoint(name: str, tmp_path: Path, factory: Callable) -> None:
    file = PAPER[name]
    wanted = rf"found no {file} in {re.escape(str(tmp_path))}: download it .*{PUBLISHED[file]}"
    result = factory("train-labeler", "--recipe", name, "--labeled", "x", "--out", "labeler")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert re.search(wanted, result.err)
    result = factory("generate", "--recipe", name, "--n", 4, "--out", "data")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "train a labeler with `factory train-labeler`" in result.err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@every_recipe
def test_the_recipe_runs_from_start_to_finish(
    name: str, checkpoint: Path, annotate: Callable, factory: Callable, tmp_path: Path
) -> None:
    recipe = load_recipe(name)
    assert recipe.classes is not None
    labeled = annotate(name, recipe.classes)
    (tmp_path / recipe.generator.weights).symlink_to(checkpoint)

    def run(command: str, *settings: str) -> str:
        result = factory(*command.split(), *(f"--set={setting}" for setting in settings))
        assert result.code == 0, result.err
        return result.out

    run(f"train-labeler --recipe {name} --labeled {labeled} --out labeler", *SMALL, *SHORT)
    generate = f"generate --recipe {name} --labeler labeler --n 4 --out data --executor local"
    assert "4 kept" in run(generate, *SMALL)
    assert open_dataset("data").manifest.classes == list(recipe.classes)
    deeplab = f"train-deeplab --data data --val {labeled} --out model --encoder resnet18 --steps 1"
    run(deeplab, "encoder_depth=3")
    for what in ("--model model", "--labeler labeler"):
        printed = run(f"evaluate {what} --labeled {labeled}")
        assert "3 images" in printed
        assert all(label in printed for label in recipe.classes)


@every_recipe
def test_every_class_is_found_in_its_datasets_layout(name: str, annotate: Callable) -> None:
    classes = load_recipe(name).classes
    assert classes is not None
    found = read_annotations(annotate(name, classes), (32, 32), classes)
    assert len(found.stems) == 3
    assert set(found.masks.unique().tolist()) - {255} == set(range(len(classes)))
