"""`train-labeler --kind network` and `both`, and what takes such a labeler."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from factory.demo.render import render_folder
from factory_core.dataset import read_samples
from generators.ddpm.model import DDPMGenerator
from labelers.labeler import Labeler
from labelers.network.trainer import NetworkTrainer

DEMO = "package:factory.demo/generator"
SMALL = ("--set", "labeler.network={members: 1, steps: 12}")
NETWORK = ("--kind", "network", *SMALL)
BOTH = ("--kind", "both", "--fast", *SMALL, "--set", "labeler.training.steps=20")


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "annotated"
    render_folder(folder, range(3), size=64)
    return folder


@pytest.fixture
def train(factory: Callable, annotated: Path, tmp_path: Path, monkeypatch) -> Callable:
    """`train("--kind", "network", out="other")` in a new folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, out: str = "out", labeled: Path = annotated, generator=DEMO):
        command = ("train-labeler", "--generator", generator, "--labeled", labeled)
        return factory(*command, "--out", out, "--device", "cpu", *arguments)

    return run


@pytest.fixture(scope="module")
def trained(factory: Callable, annotated: Path, tmp_path_factory) -> Path:
    """A labeler of kind `network`."""
    folder = tmp_path_factory.mktemp("trained") / "labeler"
    command = ("train-labeler", "--generator", DEMO, "--labeled", annotated, "--out", folder)
    result = factory(*command, *NETWORK)
    assert result.code == 0, result.err
    assert "12 steps)" in result.out
    return folder


def names(folder: str | Path) -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


def no_features(monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(*_):
        raise AssertionError("features of the generator")

    monkeypatch.setattr(DDPMGenerator, "_encode", encode)


def test_only_the_labeler_is_kept(trained: Path) -> None:
    assert names(trained) == {"labeler.json", "labeler.safetensors"}
    about = json.loads((trained / "labeler.json").read_text())
    assert about["config"]["kind"] == "network"
    assert about["features"] == []


def test_labelling_takes_no_features(
    factory: Callable, trained: Path, annotated: Path, tmp_path: Path, monkeypatch
) -> None:
    """Samples and photographs are labelled as `predict` labels what is stored."""
    no_features(monkeypatch)
    monkeypatch.chdir(tmp_path)
    labeler = Labeler.load(trained)
    where = ("--labeler", trained, "--executor", "local")
    settings = ("--set", "labeler.precision=float32", "--set", "generator.steps=2")
    for command in (("generate", "--n", 5), ("label", "--images", annotated / "images")):
        out = tmp_path / command[0]
        result = factory(*command, *where, *settings, "--out", out)
        assert result.code == 0, result.err
        assert json.loads((out / "dataset.json").read_text())["recipe"]["labeler"]["kind"] == (
            "network"
        )
        for sample in read_samples(out):
            found = labeler.predict(torch.from_numpy(sample.image)[None])
            assert np.array_equal(sample.mask, found.mask[0].numpy())
    result = factory("evaluate", "--labeler", trained, "--labeled", annotated, "--json", "s.json")
    assert result.code == 0, result.err
    assert json.loads(Path("s.json").read_text())
    dry = factory("generate", "--n", 5, *where, *settings, "--out", "dry", "--dry-run")
    assert "kind: network" in dry.out


@pytest.mark.slow
def test_both(train: Callable, factory: Callable) -> None:
    result = train(*BOTH)
    assert result.code == 0, result.err
    assert "20 steps; networks: training accuracy" in result.out
    assert names("out") == {"labeler.json", "labeler.safetensors"}
    made = factory(
        *("generate", "--n", 2, "--labeler", "out", "--executor", "local", "--out", "data"),
        *("--set", "generator.steps=2"),
    )
    assert made.code == 0, made.err


def test_another_kind_in_the_same_folder(train: Callable, trained: Path) -> None:
    shutil.copytree(trained, "out")
    result = train("--kind", "both", *SMALL)
    assert "other settings (" in result.err
    assert "labeler.kind" in result.err


@pytest.mark.slow
def test_folds(train: Callable) -> None:
    result = train(*BOTH, "--folds", 2, "--test-images", 1)
    assert result.code == 0, result.err
    assert names("out/split_2") == {"labeler.json", "labeler.safetensors"}
    alone = train(*NETWORK, "--folds", 2, "--test-images", 1, out="alone")
    assert alone.code == 0, alone.err
    assert names("alone") == {"folds.json", "split_1", "split_2"}
    scores = Labeler.load("alone/split_1").info.scores
    found = json.loads(Path("alone/folds.json").read_text())["splits"][0]
    assert scores["test_miou"] == found["miou"] > 0


def test_an_interrupted_run_resumes_and_ends_with_the_same_bytes(
    train: Callable, trained: Path, monkeypatch
) -> None:
    monkeypatch.setattr("labelers.network.trainer.CHECKPOINT_SEC", 0)
    learn, steps = NetworkTrainer.learn, []

    def until(self: NetworkTrainer) -> None:
        if self.step == 11 and len(steps) == 11:
            raise KeyboardInterrupt
        steps.append(self.step)
        learn(self)

    monkeypatch.setattr(NetworkTrainer, "learn", until)
    assert train(*NETWORK).code == 130
    assert names("out") == {"networks.checkpoint.safetensors", "unfinished.json"}
    assert train(*NETWORK).code == 0
    assert steps == [*range(11), 10, 11]
    assert names("out") == {"labeler.json", "labeler.safetensors"}
    weights = [Path(f, "labeler.safetensors").read_bytes() for f in ("out", trained)]
    assert weights[0] == weights[1]


def test_samples_of_the_generator(train: Callable, factory: Callable, annotated: Path) -> None:
    """They are checked by their pixels alone; nothing is sampled again."""
    how = ("--generator", DEMO, "--set", "generator.steps=2", "--out", "samples")
    assert factory("sample", "--n", 2, *how).code == 0
    shutil.copytree(annotated / "masks", "samples/masks")
    shutil.copy(annotated / "classes.json", "samples")
    for i, mask in enumerate(sorted(Path("samples/masks").iterdir())):
        mask.rename(mask.with_name(f"{i:09d}.png"))
    Path("samples/masks/000000002.png").unlink()
    result = factory("train-labeler", "--labeled", "samples", "--out", "out", *NETWORK)
    assert result.code == 0, result.err
    first, second = (Path(f"samples/images/{i:09d}.png") for i in range(2))
    image = Image.open(second)
    image.load()
    shutil.copy(first, second)
    refused = factory("train-labeler", "--labeled", "samples", "--out", "other", *NETWORK)
    assert "000000001.png is sample 0, not 1" in refused.err


def test_a_generator_without_a_network_to_fine_tune(train: Callable) -> None:
    result = train(*NETWORK, generator="package:factory.demo/stylegan2/generator")
    assert result.code == 1
    assert "without a U-Net to fine-tune, expected a diffusion model: give --kind" in result.err
    assert result.err.count("\n") == 1
    assert not Path("out").exists()


def test_the_dry_run_times_steps_and_writes_nothing(train: Callable) -> None:
    alone = train(*NETWORK, "--dry-run")
    assert "1 network of 2.7 M weights, 12 steps each: about" in alone.out
    assert "of features" not in alone.out
    both = train(*BOTH, "--dry-run")
    assert "MiB of features (float16, deleted afterwards)" in both.out
    assert "1 network of 2.7 M weights" in both.out
    assert not Path("out").exists()


def test_wrong_kinds(train: Callable) -> None:
    assert "'labeler.kind' is 'net'" in train("--kind", "net").err
    assert "--fast with --kind network" in train("--fast", *NETWORK).err
