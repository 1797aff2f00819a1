"""`train-labeler` as a user runs it: resuming, refusals, files left behind, the dry run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from factory.annotation import encoding
from factory.commands.train_labeler.preparation import Preparation
from factory.demo.render import CLASSES, render_folder
from labelers.training.trainer import Trainer

DEMO = "package:factory.demo/generator"
SMALL = ("--set", "labeler.members=2", "--set", "labeler.hidden=[16, 8]")
FAST = ("--fast", "--set", "labeler.training.steps=60", *SMALL)


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "annotated"
    render_folder(folder, range(3), size=64)
    return folder


@pytest.fixture
def train(factory: Callable, annotated: Path, tmp_path: Path, monkeypatch) -> Callable:
    """`train("--fast", out="other")` in a new folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, out: str = "out"):
        command = ("train-labeler", "--generator", DEMO, "--labeled", annotated, "--device", "cpu")
        return factory(*command, "--out", out, *arguments)

    return run


def names(folder: str) -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


def weights(folder: str) -> bytes:
    return (Path(folder) / "labeler.safetensors").read_bytes()


def interrupt(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Stop the process, as Ctrl-C does, before training step `step`."""
    learn = Trainer._learn

    def until(self: Trainer, pixels: torch.Tensor) -> torch.Tensor:
        if self.step == step:
            raise KeyboardInterrupt
        return learn(self, pixels)

    monkeypatch.setattr(Trainer, "_learn", until)


def test_only_the_labeler_is_kept(train: Callable) -> None:
    result = train(*FAST)
    assert result.code == 0, result.err
    assert f"3 annotated images, 5 classes: {', '.join(CLASSES)}\n" in result.out
    assert "60 steps" in result.out
    assert names("out") == {"labeler.json", "labeler.safetensors"}
    about = json.loads(Path("out/labeler.json").read_text())
    assert about["config"]["training"]["kind"] == "fast"
    assert about["config"]["weights"] is None
    before = weights("out")
    assert "60 steps" in train(*FAST).out
    assert weights("out") == before


def test_kept_features_are_those_of_the_images(train: Callable) -> None:
    assert train(*FAST, "--set", "labeler.keep_features=true").code == 0
    assert names("out/features") == {
        "features.index",
        "16x16.features",
        "32x32.features",
        "64x64.features",
    }
    index = json.loads(Path("out/features/features.index").read_text())
    assert (index["images"], index["written"], index["dtype"]) == (3, 3, "float16")


def test_an_interrupted_run_resumes_and_ends_with_the_same_bytes(
    train: Callable, monkeypatch
) -> None:
    assert train(*FAST, out="whole").code == 0
    monkeypatch.setattr("labelers.training.trainer.CHECKPOINT_SEC", 0)
    with monkeypatch.context() as patch:
        interrupt(patch, step=55)
        stopped = train(*FAST)
    assert stopped.code == 130
    assert "rerun the command to resume" in stopped.err
    assert names("out") == {"features", "checkpoint.safetensors", "unfinished.json"}
    refused = train(*FAST, "--seed", 1)
    assert "other settings (labeler.seed)" in refused.err

    def features(*_, **__):
        raise AssertionError("the features are there")

    steps = []
    learn = Trainer._learn
    monkeypatch.setattr(Preparation, "features", features)
    monkeypatch.setattr(Trainer, "_learn", lambda s, p: (steps.append(s.step), learn(s, p))[1])
    assert train(*FAST).code == 0
    assert steps[0] == 50
    assert names("out") == {"labeler.json", "labeler.safetensors"}
    assert weights("out") == weights("whole")


def test_encoding_resumes_too(train: Callable, monkeypatch) -> None:
    monkeypatch.setattr(encoding, "ENCODE_BATCH", 1)
    features, made = Preparation.features, []

    def one(self: Preparation, rows: range, *more):
        if len(made) == 2:
            made.append("interrupted")
            raise KeyboardInterrupt
        made.append(rows)
        return features(self, rows, *more)

    monkeypatch.setattr(Preparation, "features", one)
    assert train(*FAST).code == 130
    assert train(*FAST).code == 0
    assert made == [range(1), range(1, 2), "interrupted", range(2, 3)]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (("--set", "labeler.training.steps=61"), "labeler.training.steps"),
        (("--set", "labeler.vote=soft"), "labeler.vote"),
        (("--set", "generator.features.noise_seed=1"), "generator.features.noise_seed"),
    ],
)
def test_a_finished_labeler_is_not_mistaken_for_another(train: Callable, change, field) -> None:
    assert train(*FAST).code == 0
    before = weights("out")
    result = train(*FAST, *change)
    assert result.code == 1
    assert f"other settings ({field})" in result.err
    assert weights("out") == before


def test_useless_annotations_are_refused_before_encoding(train: Callable, monkeypatch) -> None:
    def features(*_, **__):
        raise AssertionError("too late")

    monkeypatch.setattr(Preparation, "features", features)
    narrow = train(*FAST, "--set", "labeler.etf_weight=0.4", "--set", "labeler.hidden=[16, 4]")
    assert "found 4 units for 5 classes" in narrow.err
    none = train(*FAST, "--set", "labeler.min_class_pixels=5000")
    assert "classes under 5000 pixels" in none.err
    assert not Path("out").exists()


def test_a_disk_that_is_too_small_is_refused_before_encoding(train: Callable, monkeypatch) -> None:
    monkeypatch.setattr(
        "factory.commands.train_labeler.preparation.disk_free_bytes", lambda _: 1000
    )
    result = train(*FAST)
    assert result.code == 1
    assert re.search(r"need [\d.]+ MiB, found 0\.0 MiB free: free some space", result.err)


def test_a_folder_with_other_files_is_refused(train: Callable) -> None:
    Path("out").mkdir()
    Path("out/notes.txt").write_text("mine")
    assert "--out out holds no labeler but notes.txt" in train(*FAST).err
    assert names("out") == {"notes.txt"}


def test_dry_run_prints_memory_and_disk_and_writes_nothing(train: Callable) -> None:
    result = train(*FAST, "--dry-run")
    assert result.code == 0, result.err
    assert "2 members, 480 channels, 16 and 8 hidden units" in result.out
    assert "MiB of features (float16, deleted afterwards)" in result.out
    assert "MiB to train" in result.out
    assert not Path("out").exists()


@pytest.mark.parametrize("option", [("--test-images", 1), ("--json", "x.json")])
def test_options_for_folds_without_folds(train: Callable, option) -> None:
    assert "without --folds" in train(*FAST, *option).err
