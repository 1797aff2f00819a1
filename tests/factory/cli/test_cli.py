"""A user's mistakes: one line, exit code 1, nothing left behind."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from factory.demo.render import render_folder
from factory_core import storage


@pytest.fixture
def annotated(tmp_path: Path) -> Path:
    render_folder(tmp_path / "annotated", range(3), size=32)
    return tmp_path / "annotated"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(result, *words: str) -> None:
    """One line on standard error with all of `words`, exit code 1, no folder `out`."""
    assert result.code == 1, result
    lines = result.err.strip().splitlines()
    assert len(lines) == 1, result.err
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]
    assert not Path("out").exists()


def test_a_folder_without_images(factory: Callable) -> None:
    Path("empty").mkdir()
    refused(factory("train-generator", "--images", "empty", "--out", "out"), "empty", "image")
    refused(factory("train-generator", "--images", "nowhere", "--out", "out"), "nowhere")


def label_with(factory: Callable, folder: Path) -> object:
    demo = "package:factory.demo/generator"
    return factory("train-labeler", "--generator", demo, "--labeled", folder, "--out", "out")


def test_a_mask_without_its_image(factory: Callable, annotated: Path) -> None:
    (annotated / "images" / "000001.png").unlink()
    refused(label_with(factory, annotated), "000001")


def test_a_class_id_beyond_the_list(factory: Callable, annotated: Path) -> None:
    Image.fromarray(np.full((32, 32), 9, np.uint8)).save(annotated / "masks" / "000001.png")
    refused(label_with(factory, annotated), "000001.png", "class id 9", "5 classes")


def test_an_unreadable_image(factory: Callable, annotated: Path) -> None:
    (annotated / "images" / "000001.png").write_bytes(b"not an image")
    refused(label_with(factory, annotated), "000001.png")


def test_an_unknown_recipe_key_names_the_nearest(factory: Callable) -> None:
    command = ("generate", "--n", 8, "--out", "out", "--set", "generator.stpes=5")
    refused(factory(*command), "generator.stpes", "did you mean 'generator.steps'")


def test_an_unknown_recipe_lists_the_presets(factory: Callable) -> None:
    refused(factory("generate", "--n", 8, "--out", "out", "--recipe", "dmeo"), "dmeo", "demo")


def test_no_samples(factory: Callable) -> None:
    refused(factory("generate", "--n", 0, "--out", "out", "--executor", "local"), "--n 0")


def test_missing_weights(factory: Callable) -> None:
    command = ("generate", "--n", 8, "--out", "out", "--executor", "local")
    refused(factory(*command, "--generator", "lost/generator"), "lost/generator")
    refused(factory(*command, "--labeler", "lost/labeler"), "lost/labeler")


def test_settings_of_the_wrong_kind(factory: Callable, annotated: Path) -> None:
    command = ("train-generator", "--images", annotated / "images", "--out", "out")
    refused(factory(*command, "--set", "channels=[8,12]"), "multiples of 8")
    refused(factory(*command, "--set", "chanels=[8]"), "chanels")
    refused(factory(*command, "--set", "lr"), "KEY=VALUE")
    refused(factory(*command, "--kind", "vae"), "vae", "ddpm")


def test_evaluate_needs_one_predictor_and_one_test_set(factory: Callable) -> None:
    refused(factory("evaluate", "--demo"), "--model", "--labeler")
    refused(factory("evaluate", "--model", "m"), "--labeled", "--demo")
    refused(factory("evaluate", "--model", "lost", "--demo"), "lost", "train-deeplab")


def test_a_folder_with_a_different_recipe(factory: Callable) -> None:
    command = ("generate", "--n", 2, "--out", "data", "--executor", "local")
    assert factory(*command, "--set", "generator.steps=2").code == 0
    before = {p: p.read_bytes() for p in Path("data").rglob("*") if p.is_file()}
    refused(factory(*command, "--set", "generator.steps=3"), "generator.steps")
    assert {p: p.read_bytes() for p in Path("data").rglob("*") if p.is_file()} == before


def test_a_full_disk(factory: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """/dev/full fails every write with the error of a full disk."""

    create = storage.MeasuredFile.__init__

    def create_on_full_disk(file: storage.MeasuredFile, path: Path) -> None:
        create(file, Path("/dev/full") if ".parquet" in path.name else path)

    monkeypatch.setattr(storage.MeasuredFile, "__init__", create_on_full_disk)
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    command = ("generate", "--n", 2, "--out", "out", "--executor", "local")
    refused(factory(*command, "--set", "generator.steps=2"), "disk full", "free some space")
