"""`train-labeler --kind regions`: from a factorized generator to a labelled dataset."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from factory.demo.render import CLASSES, render_folder
from factory_core.dataset import read_manifest, read_samples
from generators.factorized.config import FactorizedTrainingConfig
from generators.factorized.training import train
from generators.training.images import TrainingImages


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("factorized")
    rng = torch.Generator().manual_seed(0)
    images = TrainingImages.of(torch.randint(0, 256, (4, 3, 16, 16), generator=rng).byte())
    sizes = {"image_size": 16, "channels": (8, 16), "steps": 2, "batch_size": 2}
    train(images, out, FactorizedTrainingConfig(**sizes), device="cpu")
    return out


def test_annotated_images_name_the_regions(
    factory: Callable, generator: Path, tmp_path: Path
) -> None:
    labeled, labeler, data = (tmp_path / name for name in ("annotated", "labeler", "data"))
    render_folder(labeled, range(3))
    command = ("train-labeler", "--kind", "regions", "--generator", generator, "--out", labeler)
    done = factory(*command, "--labeled", labeled)
    assert done.code == 0, done.err
    assert "of the pixels agree" in done.out
    info = json.loads((labeler / "labeler.json").read_text())
    assert len(set(info["regions"])) == 3
    assert set(info["regions"]) <= set(range(len(CLASSES)))
    making = ("generate", "--labeler", labeler, "--n", 10, "--out", data, "--executor", "local")
    made = factory(*making, "--set", "generator.steps=2")
    assert made.code == 0, made.err
    assert read_manifest(data).totals.kept == 9
    for sample in read_samples(data):
        assert set(sample.mask.flatten().tolist()) <= set(info["regions"])
    scored = factory("evaluate", "--labeler", labeler, "--labeled", labeled)
    assert scored.code == 0, scored.err
    assert factory(*command, "--labeled", labeled).code == 0  # finished: nothing to do


def test_without_annotated_images(factory: Callable, generator: Path, tmp_path: Path) -> None:
    labeler, photographs = tmp_path / "labeler", tmp_path / "photographs"
    command = ("train-labeler", "--kind", "regions", "--generator", generator, "--out", labeler)
    done = factory(*command)
    assert done.code == 0, done.err
    assert done.out.strip().endswith("(3 regions without names)")
    assert not (labeler / "unfinished.json").exists()
    render_folder(tmp_path / "rendered", range(2))
    (tmp_path / "rendered" / "images").rename(photographs)
    using = ("label", "--images", photographs, "--labeler", labeler, "--out", tmp_path / "data")
    made = factory(*using, "--executor", "local")
    assert made.code == 0, made.err
    assert read_manifest(tmp_path / "data").classes == ["region 0", "region 1", "region 2"]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            ["--kind", "regions", "--generator", "package:factory.demo/generator"],
            "a generator of kind 'ddpm'",
        ),
        (["--kind", "regions", "--generator", "none"], "error: --generator: none does not exist"),
        (["--generator", "package:factory.demo/generator"], "found no --labeled: give the folder"),
        (["--kind", "regions", "--fast"], "found --fast with --kind regions"),
    ],
)
def test_mistakes_are_one_line(
    factory: Callable, tmp_path: Path, options: list[str], line: str
) -> None:
    out = tmp_path / "labeler"
    refused = factory("train-labeler", "--out", out, *options)
    assert refused.code == 1
    assert line in refused.err
    assert len(refused.err.strip().splitlines()) == 1
    assert not out.exists()
