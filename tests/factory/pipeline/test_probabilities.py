"""Class probabilities from the demo's models to the trainer: written, read back, learned from."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import webdataset as wds
from datasets import load_dataset
from PIL import Image

from factory.pipeline.estimate import estimate
from factory.pipeline.executors import LocalExecutor
from factory.pipeline.job import Job
from factory.pipeline.models import load_models
from factory.pipeline.progress import OnProgress, Progress, ignore
from factory.pipeline.run import run
from factory.pipeline.verify import verify
from factory.recipe import ResolvedRecipe, load_recipe, resolve
from factory_core.dataset import Manifest, open_dataset, probability_levels, read_samples
from train_seg.config import AugmentConfig
from train_seg.data.augment import Augment
from train_seg.data.training_data import open_training_data

N, CLASSES, SIZE = 10, 5, 64
FAST = ("generator.steps=1", "generator.batch_size=3", "generator.precision=float32")
PACKING = ("dataset.shard_size=4", "dataset.samples_per_shard=5")
ASKED = "dataset.probabilities=true"


@pytest.fixture(scope="module")
def recipe() -> ResolvedRecipe:
    return resolve(load_recipe("demo", [*FAST, *PACKING, ASKED]))


def make(
    recipe: ResolvedRecipe, out: Path, on_progress: OnProgress = ignore, **how: Any
) -> Manifest:
    return run(Job.sampling(recipe, N, out, device="cpu", **how), None, on_progress)


@pytest.fixture(scope="module")
def made(recipe: ResolvedRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with probabilities."""
    folder = tmp_path_factory.mktemp("probabilities") / "data"
    make(recipe, folder)
    return folder


def shards(folder: Path) -> list[str]:
    return [str(folder / "shards" / shard.name) for shard in open_dataset(folder).manifest.shards]


def documented(picture: Any) -> np.ndarray:
    """The three lines of docs/dataset-format.md."""
    rest = np.asarray(picture).reshape(CLASSES - 1, SIZE, SIZE)
    first = 255 - rest.sum(axis=0, keepdims=True)
    return np.concatenate([first, rest]) / 255


def test_every_reader_finds_them_in_every_sample(made: Path) -> None:
    samples = {s.key: s for s in read_samples(made)}
    names = []
    for path in shards(made):
        with tarfile.open(path) as tar:
            names += tar.getnames()
    extensions = ("json", "png", "prob.png", "seg.png")
    assert names == [f"{key}.{extension}" for key in samples for extension in extensions]
    for raw in wds.WebDataset(shards(made), shardshuffle=False):
        p = documented(Image.open(io.BytesIO(raw["prob.png"])))
        np.testing.assert_allclose(p, samples[raw["__key__"]].probabilities, atol=1e-7)
        np.testing.assert_allclose(p.sum(0), 1)
    rows = load_dataset("webdataset", data_files=shards(made), split="train")
    for row in rows:
        p = documented(row["prob.png"])
        np.testing.assert_allclose(p, samples[row["__key__"]].probabilities, atol=1e-7)


def test_they_are_the_labelers_and_change_nothing_else(
    recipe: ResolvedRecipe, made: Path, tmp_path: Path
) -> None:
    manifest = make(resolve(load_recipe("demo", [*FAST, *PACKING])), tmp_path)
    assert not manifest.probabilities
    text = json.loads((tmp_path / "dataset.json").read_text())
    assert "probabilities" not in {*text, *text["recipe"]["dataset"]}
    assert open_dataset(made).manifest.probabilities
    generator, labeler = load_models(recipe.generator, recipe.labeler, "cpu")
    with torch.inference_mode():
        batch = [*range(3)]
        images, features = generator.sample(batch)
        found = labeler.predict(
            images, features, (SIZE, SIZE), "majority", "js", True
        ).probabilities
    assert found.shape == (3, CLASSES, SIZE, SIZE)
    levels = dict(zip(batch, probability_levels(found.numpy()), strict=True))
    agreeing = 0.0
    for without, sample in zip(read_samples(tmp_path), read_samples(made), strict=True):
        assert without.probabilities is None
        assert sample.probabilities is not None
        assert without.meta == sample.meta
        np.testing.assert_array_equal(without.image, sample.image)
        np.testing.assert_array_equal(without.mask, sample.mask)
        agreeing += (sample.probabilities.argmax(0) == sample.mask).mean()
        if sample.meta["index"] in levels:
            expected = levels.pop(sample.meta["index"])
            np.testing.assert_array_equal(np.rint(sample.probabilities * 255), expected)
    assert len(levels) <= 1  # one of the ten is dropped
    assert agreeing > 0.9 * 9
    rows, others = (pd.read_parquet(f / "samples.parquet") for f in (tmp_path, made))
    pd.testing.assert_frame_equal(rows, others)
    with pytest.raises(ValueError, match=r"different recipe \(dataset\.probabilities differ\)"):
        make(recipe, tmp_path)


def tree_sha256(folder: Path) -> dict[str, str]:
    return {p.name: sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


def test_resumed_and_repaired_jobs_give_the_same_bytes(
    recipe: ResolvedRecipe, made: Path, tmp_path: Path
) -> None:
    def stop(progress: Progress) -> None:
        if progress.shards_done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(recipe, tmp_path, stop)
    make(recipe, tmp_path)
    assert tree_sha256(tmp_path) == tree_sha256(made)
    (tmp_path / "shards/demo-000001.tar").write_bytes(b"damaged")
    (tmp_path / "dataset.json").unlink()
    assert [problem.file for problem in verify(tmp_path)] == [
        "dataset.json",
        "shards/demo-000001.tar",
    ]
    make(recipe, tmp_path)
    assert tree_sha256(tmp_path) == tree_sha256(made)
    assert verify(tmp_path) == []


def test_the_estimate_of_disk_counts_them(recipe: ResolvedRecipe, tmp_path: Path) -> None:
    plain = resolve(load_recipe("demo", [*FAST, *PACKING]))
    with_, without = (
        estimate(Job.sampling(r, N, tmp_path / "out", device="cpu"), LocalExecutor()).disk_gib
        for r in (recipe, plain)
    )
    assert with_ > 1.1 * without


def test_one_class_has_no_probabilities(tiny: Any) -> None:
    (tiny.folder / "weights/labeler.json").write_text('{"classes": ["all"]}')
    with pytest.raises(ValueError, match=r"needs two or more classes, .*weights has 1: leave that"):
        tiny.recipe(ASKED)


# --- training --------------------------------------------------------------------------------


def test_the_trainer_reads_the_same_levels(made: Path) -> None:
    expected = {s.image.tobytes(): s.probabilities for s in read_samples(made)}
    data = open_training_data([made], lambda size: Augment(AugmentConfig(), size), soft_labels=True)
    for image, levels in data.source.epoch(0):
        assert levels.dtype == torch.uint8
        p = expected.pop(image.numpy().tobytes())
        assert p is not None
        np.testing.assert_allclose(levels.numpy() / 255, p, atol=1e-7)
    assert not expected


def test_on_the_command_line(factory: Callable, tmp_path: Path) -> None:
    settings = [part for item in (*FAST, ASKED) for part in ("--set", item)]
    command = ("generate", "--n", 4, "--executor", "local", "--device", "cpu", *settings)
    assert factory(*command, "--out", tmp_path / "data").code == 0
    train = ("train-deeplab", "--encoder", "resnet18", "--steps", 1, "--device", "cpu", "--set")
    soft = ("encoder_depth=3", "--set", "soft_labels=true", "--data", tmp_path / "data")
    result = factory(*train, *soft, "--out", tmp_path / "model")
    assert result.code == 0, result.err
    shutil.rmtree(tmp_path / "data")
    hard = ("--n", 4, "--executor", "local", "--set", FAST[0], "--out", tmp_path / "data")
    assert factory("generate", *hard).code == 0
    result = factory(*train, *soft, "--out", tmp_path / "other")
    assert result.code == 1
    assert result.err.endswith(
        "data has no class probabilities, which soft_labels needs: regenerate it with --set "
        "dataset.probabilities=true, or leave that setting out\n"
    )
