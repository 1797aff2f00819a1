"""Labelers on the features of encoders: alone, several, and paired with a generator."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from factory.demo.render import render_folder
from factory_core.dataset import read_manifest
from factory_core.storage import open_store
from labelers.labeler import Labeler

GOLDEN = Path(__file__).parents[3] / "golden" / "encoders"
MAE = ("--encoder", GOLDEN / "mae" / "checkpoint-399.pth", "--set", "generator.heads=4")
SWAV = ("--encoder", GOLDEN / "swav" / "checkpoint.pth.tar")
DEMO = "package:factory.demo/generator"
FEW = ("--fast", "--set", "labeler.training.steps=30", "--set", "labeler.members=2")


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "annotated"
    render_folder(folder, range(4), size=64)
    return folder


@pytest.fixture(scope="module")
def labeler(factory: Callable, annotated: Path) -> Path:
    """A labeler on the features of a MAE."""
    folder = annotated.parent / "labeler"
    result = factory("train-labeler", *MAE, "--labeled", annotated, "--out", folder, *FEW)
    assert result.code == 0, result.err
    assert "CC BY-NC 4.0" in result.out + result.err
    return folder


def test_the_labeler_names_its_encoder(labeler: Path) -> None:
    info = Labeler.load(labeler).info
    assert info.generator.config["kind"] == "encoder"
    assert [m.name for m in info.features] == ["blocks.3", "blocks.4", "blocks.5"]
    assert info.image_size == (64, 64)


def test_photographs_are_labelled(
    factory: Callable, labeler: Path, annotated: Path, tmp_path: Path
) -> None:
    command = ("label", "--labeler", labeler, "--images", annotated / "images")
    result = factory(*command, "--executor", "local", "--out", tmp_path / "out")
    assert result.code == 0, result.err
    manifest = read_manifest(open_store(str(tmp_path / "out")))
    assert manifest.recipe["generator"]["kind"] == "encoder"
    assert manifest.totals.candidates == 4
    scored = factory("evaluate", "--labeler", labeler, "--labeled", annotated)
    assert scored.code == 0, scored.err


def test_no_images_without_a_generator(factory: Callable, labeler: Path, tmp_path: Path) -> None:
    for command in (
        ("generate", "--labeler", labeler, "--n", 2, "--executor", "local"),
        ("sample", "--generator", MAE[1], *MAE[2:]),
    ):
        result = factory(*command, "--out", tmp_path / "out")
        assert result.code == 1
        assert "is an encoder, which makes no images" in result.err
        assert len(result.err.strip().splitlines()) == 1
        assert not (tmp_path / "out").exists()


def test_what_is_no_encoder(factory: Callable, annotated: Path, tmp_path: Path) -> None:
    (tmp_path / "page.pth").write_text("<!doctype html>")
    for file, message in (
        (tmp_path / "none.pth", f"error: --encoder: {tmp_path / 'none.pth'} does not exist"),
        (tmp_path / "page.pth", "this is a web page: download the file itself"),
        (MAE[1], "give a divisor of the width, such as --set generator.heads=4"),
    ):
        out = tmp_path / "out"
        result = factory("train-labeler", "--encoder", file, "--labeled", annotated, "--out", out)
        assert result.code == 1
        assert message in result.err
        assert len(result.err.strip().splitlines()) == 1
        assert not out.exists()


def test_a_generator_is_paired_with_the_labelers_encoder(
    factory: Callable, labeler: Path, tmp_path: Path
) -> None:
    command = ("generate", "--labeler", labeler, "--generator", DEMO, "--n", 3)
    quick = ("--set", "generator.steps=2", "--executor", "local")
    result = factory(*command, *quick, "--out", tmp_path / "paired")
    assert result.code == 0, result.err
    manifest = read_manifest(open_store(str(tmp_path / "paired")))
    assert manifest.recipe["generator"]["weights"] == DEMO
    [encoder] = manifest.recipe["generator"]["encoders"]
    assert encoder["heads"] == 4
    assert {*manifest.weights} == {
        "generator.weights",
        "generator.encoders.0.weights",
        "labeler.weights",
    }
    again = factory(*command, *quick, "--out", tmp_path / "paired")
    assert again.code == 0, again.err
    other = factory(
        *("generate", "--generator", DEMO, "--labeler", labeler, "--n", 3, *SWAV, *quick),
        *("--set", "generator.encoders=[{weights: " + str(SWAV[1]) + "}]"),
        *("--out", tmp_path / "other"),
    )
    assert other.code == 1
    assert "the labeler reads feature maps blocks.3" in other.err


def test_samples_are_described_by_an_encoder(factory: Callable, tmp_path: Path) -> None:
    """Annotated samples of a generator, features by another network."""
    samples, quick = tmp_path / "samples", ("--set", "generator.steps=2")
    made = factory("sample", "--generator", DEMO, "--n", 2, *quick, "--out", samples)
    assert made.code == 0, made.err
    (samples / "masks").mkdir()
    render_folder(tmp_path / "other", range(2), size=64)
    for number, mask in enumerate(sorted((tmp_path / "other/masks").iterdir())):
        mask.rename(samples / "masks" / f"{number:09d}.png")
    (tmp_path / "other/classes.json").rename(samples / "classes.json")
    out = tmp_path / "labeler"
    result = factory("train-labeler", *SWAV, "--labeled", samples, "--out", out, *FEW)
    assert result.code == 0, result.err
    config = Labeler.load(out).info.generator.config
    assert config["kind"] == "ddpm"
    assert config["encoders"][0]["weights"] == str(SWAV[1])


def test_several_encoders_in_folds(factory: Callable, annotated: Path, tmp_path: Path) -> None:
    result = factory(
        *("train-labeler", *SWAV, "--encoder", "pixels", "--set", "generator.image_size=64"),
        *("--labeled", annotated, "--folds", 2, "--test-images", 1, "--out", tmp_path / "out"),
        *FEW,
    )
    assert result.code == 0, result.err
    splits = json.loads((tmp_path / "out/folds.json").read_text())["splits"]
    assert len(splits) == 2
    names = [m.name for m in Labeler.load(tmp_path / "out/split_1").info.features]
    assert names[0] == "swav.layer1.0"
    assert names[-1] == "pixels.rgb"
