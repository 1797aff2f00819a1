"""Uncertainty maps from the demo's models to the trainer: written, read back, used in training."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import webdataset as wds
from PIL import Image

from factory.pipeline.job import Job
from factory.pipeline.progress import OnProgress, Progress, ignore
from factory.pipeline.run import run
from factory.recipe import ResolvedRecipe, load_recipe, resolve
from factory_core.dataset import (
    IGNORE,
    Manifest,
    Sample,
    level_at_quantile,
    open_dataset,
    read_samples,
    read_tar,
)
from train_seg.config import AugmentConfig
from train_seg.data.augment import Augment
from train_seg.data.training_data import open_training_data

N, CLASSES, SIZE = 10, 5, 64
FAST = ("generator.steps=1", "generator.batch_size=3", "generator.precision=float32")
PACKING = ("dataset.shard_size=4", "dataset.samples_per_shard=5")
MAPS = "dataset.uncertainty_maps=true"


@pytest.fixture(scope="module")
def recipe() -> ResolvedRecipe:
    return resolve(load_recipe("demo", [*FAST, *PACKING, MAPS]))


def make(
    recipe: ResolvedRecipe, out: Path, on_progress: OnProgress = ignore, **how: Any
) -> Manifest:
    return run(Job.sampling(recipe, N, out, device="cpu", **how), None, on_progress)


@pytest.fixture(scope="module")
def made(recipe: ResolvedRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with maps, its candidates kept."""
    folder = tmp_path_factory.mktemp("maps") / "data"
    make(recipe, folder, keep_candidates=True)
    return folder


def levels_of(encoded: bytes) -> np.ndarray:
    """Grey levels, uint8 `[H, W]`."""
    return np.asarray(Image.open(io.BytesIO(encoded)))


def sample_levels(sample: Sample) -> np.ndarray:
    assert sample.uncertainty is not None
    return np.rint(sample.uncertainty * (255 / np.log(CLASSES))).astype(np.uint8)


def test_every_sample_has_the_same_members_for_tarfile_and_webdataset(made: Path) -> None:
    samples = {s.key: s for s in read_samples(made)}
    shards = open_dataset(made).manifest.shards
    paths = [made / "shards" / shard.name for shard in shards]
    names = []
    for path in paths:
        with tarfile.open(path) as tar:
            names += tar.getnames()
    extensions = ("json", "png", "seg.png", "unc.png")
    assert names == [f"{key}.{extension}" for key in samples for extension in extensions]
    for raw in wds.WebDataset([str(p) for p in paths], shardshuffle=False):
        sample = samples.pop(raw["__key__"])
        np.testing.assert_array_equal(levels_of(raw["unc.png"]), sample_levels(sample))
    assert not samples


def test_a_map_agrees_with_the_uncertainty_of_its_image(made: Path) -> None:
    step = np.log(CLASSES) / 255
    for sample in read_samples(made):
        assert sample.uncertainty is not None
        assert sample.uncertainty.dtype == np.float32
        worst = np.sort(sample.uncertainty, axis=None)[-(SIZE * SIZE // 10) :]
        assert worst.mean() == pytest.approx(sample.meta["uncertainty"], abs=step / 2)
        assert worst.max() > 10 * step  # not blank


def test_the_histogram_counts_the_pixels_of_all_candidates(made: Path) -> None:
    counts = np.zeros(256, int)
    for tar in sorted((made / "candidates").glob("*.tar")):
        for _, members in read_tar(tar):
            counts += np.bincount(levels_of(members[3][1]).ravel(), minlength=256)
    assert open_dataset(made).manifest.uncertainty_histogram == counts.tolist()
    assert counts.sum() == N * SIZE * SIZE


def tree_sha256(folder: Path) -> dict[str, str]:
    files = (p for p in folder.rglob("*") if p.is_file() and p.parent.name != "candidates")
    return {p.name: sha256(p.read_bytes()).hexdigest() for p in files}


def test_a_resumed_job_gives_the_same_bytes(
    recipe: ResolvedRecipe, made: Path, tmp_path: Path
) -> None:
    def stop(progress: Progress) -> None:
        if progress.shards_done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(recipe, tmp_path, stop)
    make(recipe, tmp_path)
    assert tree_sha256(tmp_path) == tree_sha256(made)


def test_maps_change_neither_images_nor_masks(made: Path, tmp_path: Path) -> None:
    plain = resolve(load_recipe("demo", [*FAST, *PACKING]))
    manifest = make(plain, tmp_path)
    assert manifest.uncertainty_histogram is None
    for without, sample in zip(read_samples(tmp_path), read_samples(made), strict=True):
        assert without.uncertainty is None
        assert without.meta == sample.meta
        np.testing.assert_array_equal(without.image, sample.image)
        np.testing.assert_array_equal(without.mask, sample.mask)
    rows, others = (pd.read_parquet(f / "samples.parquet") for f in (tmp_path, made))
    pd.testing.assert_frame_equal(rows, others)
    with pytest.raises(ValueError, match=r"different recipe \(dataset\.uncertainty_maps differ\)"):
        make(plain, made)


def test_the_trainer_ignores_exactly_what_is_above_the_quantile(made: Path) -> None:
    histogram = open_dataset(made).manifest.uncertainty_histogram
    assert histogram is not None
    limit = level_at_quantile(histogram, 0.9)
    expected = {
        s.image.tobytes(): np.where(sample_levels(s) > limit, IGNORE, s.mask)
        for s in read_samples(made)
    }
    data = open_training_data([made], lambda size: Augment(AugmentConfig(), size), ignore_above=0.9)
    seen = 0
    for image, mask in data.source.epoch(0):
        np.testing.assert_array_equal(mask.numpy(), expected.pop(image.numpy().tobytes()))
        seen += int((mask == IGNORE).sum())
    assert not expected
    assert 0 < seen <= 0.1 * N * SIZE * SIZE


def test_uncertainty_maps_on_the_command_line(factory: Callable, tmp_path: Path) -> None:
    settings = [part for item in (*FAST, MAPS) for part in ("--set", item)]
    command = ("generate", "--n", 4, "--executor", "local", "--device", "cpu", *settings)
    assert factory(*command, "--out", tmp_path / "data").code == 0
    assert json.loads((tmp_path / "data/dataset.json").read_text())["uncertainty_histogram"]
    assert Image.open(tmp_path / "data/preview.png").width > 300
    train = ("train-deeplab", "--encoder", "resnet18", "--steps", 1, "--device", "cpu")
    ignore = ("--set", "encoder_depth=3", "--set", "ignore_above_quantile=0.95")
    result = factory(*train, *ignore, "--data", tmp_path / "data", "--out", tmp_path / "model")
    assert result.code == 0, result.err
