"""Whole jobs with stand-ins for the models: the same bytes however they run."""

from __future__ import annotations

import errno
import os
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import DDPMPipeline
from PIL import Image

import generators
from factory.pipeline import commit, shard_writer
from factory.pipeline.estimate import estimate
from factory.pipeline.executors import LocalExecutor, RayExecutor
from factory.pipeline.job import Job
from factory.pipeline.progress import Progress
from factory.pipeline.run import run
from factory.recipe import load_recipe, resolve
from factory_core.dataset import open_dataset, read_samples
from generators.base import sample_seed
from generators.ddpm.config import DDPMConfig, FeatureConfig
from generators.ddpm.model import build_unet
from generators.ddpm.training import noise_schedule
from labelers.config import LabelerConfig, ReferenceTraining
from labelers.labeler import GeneratorInfo
from labelers.training.fit import fit
from tests.stand_ins import SIZE, Tiny

N = 25  # candidates; the last shard holds a single one


@pytest.fixture(autouse=True)
def _cheap_preview(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "factory.reports.preview.write_preview",
        lambda folder: folder.write("preview.png", b"png"),
    )


def tree_sha256(folder: Path) -> str:
    """sha256 over names and bytes of every file of a finished dataset."""
    total = sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        total.update(f"{path.relative_to(folder)} {sha256(path.read_bytes()).hexdigest()}".encode())
    return total.hexdigest()


@pytest.fixture
def reference(tiny: Tiny, tmp_path: Path) -> str:
    """Hash of the undisturbed run."""
    tiny.make(tmp_path / "reference")
    tiny.models.made.clear()
    return tree_sha256(tmp_path / "reference")


def interrupt_after(shards: int, error: BaseException) -> Any:
    """A progress callback that raises once this many shards are done."""

    def callback(progress: Progress) -> None:
        if progress.shards_done == shards and progress.stage == "generate":
            raise error

    return callback


# --- what comes out --------------------------------------------------------------------------


def test_the_dataset_is_complete_and_consistent(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "out"
    events: list[Progress] = []
    manifest = tiny.make(out, on_progress=events.append)
    assert open_dataset(out).manifest == manifest
    assert sorted(p.name for p in out.iterdir()) == [
        "dataset.json",
        "preview.png",
        "samples.parquet",
        "shards",
    ]
    assert [s.name for s in manifest.shards] == [f"tiny-{i:06d}.tar" for i in range(4)]
    assert [s.samples for s in manifest.shards] == [7, 7, 7, 2]
    assert (manifest.totals.candidates, manifest.totals.kept, manifest.totals.dropped) == (
        25,
        23,
        2,
    )
    assert manifest.image_size == SIZE

    rows = pd.read_parquet(out / "samples.parquet")
    assert len(rows) == N
    assert rows["index"].tolist() == list(range(N))
    assert set(rows[~rows.kept].reason) == {"uncertain"}
    assert rows[rows.kept].uncertainty.max() == pytest.approx(manifest.uncertainty_threshold)
    assert rows[~rows.kept].uncertainty.min() >= manifest.uncertainty_threshold
    samples = list(read_samples(out))
    assert [s.key for s in samples] == rows[rows.kept].key.tolist()
    pixels = sum(np.bincount(s.mask.ravel(), minlength=2) for s in samples)
    assert manifest.totals.class_pixels == np.asarray(pixels).tolist()
    meta = samples[0].meta
    assert meta["seed"] == sample_seed(0, meta["index"])
    assert sum(meta["class_pixels"]) == SIZE[0] * SIZE[1]

    assert [e.shards_done for e in events] == [0, 1, 2, 3, 4, 4]
    assert events[-1].stage == "commit"
    assert events[0].eta_sec is None
    assert events[2].mean_uncertainty is not None


def test_photographs_are_labelled_into_the_same_kind_of_dataset(tiny: Tiny, tmp_path: Path) -> None:
    images = tmp_path / "photos"
    images.mkdir()
    for i in range(11):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(pixels).save(images / f"photo {i:02d}.png")
    out = tmp_path / "out"
    manifest = tiny.label(images, out)
    assert manifest.totals.candidates == 11
    rows = pd.read_parquet(out / "samples.parquet")
    assert rows.source.tolist() == [f"photo {i:02d}.png" for i in range(11)]
    assert next(iter(read_samples(out))).image.shape == (3, *SIZE)
    (images / "photo 03.png").write_bytes((images / "photo 04.png").read_bytes())
    with pytest.raises(ValueError, match="made from different images"):
        tiny.label(images, out)


def test_the_real_models_work_together(tmp_path: Path) -> None:
    torch.manual_seed(0)
    unet = build_unet(16, (8, 16), resnets_per_level=1, attention_levels=1)
    folder = tmp_path / "generator"
    pipeline: Any = DDPMPipeline(unet, noise_schedule("v_prediction"))
    pipeline.save_pretrained(folder)
    features = FeatureConfig(blocks=(1, 2), timesteps=(50,))
    config = DDPMConfig(weights=str(folder), steps=2, features=features)
    generator = generators.load(config, "cpu")
    images, maps = generator.sample(range(2))
    masks = (images[:, 0] > images[:, 0].float().mean()).to(torch.uint8)
    info = GeneratorInfo(digest=generator.digest)
    training = ReferenceTraining(max_epochs=1)
    settings = LabelerConfig(members=2, training=training, min_class_pixels=0)
    labeler = fit(maps, masks, settings, classes=["dark", "bright"], generator=info, data_digest="")
    labeler.save(tmp_path / "labeler")
    (tmp_path / "real.yaml").write_text(
        f"name: real\ngenerator: {config.model_dump_json()}\n"
        f"labeler: {{weights: {tmp_path / 'labeler'}}}\n"
    )
    resolved = resolve(load_recipe(str(tmp_path / "real.yaml")))
    manifest = run(Job.sampling(resolved, 5, tmp_path / "out", device="cpu"))
    assert manifest.classes == ["dark", "bright"]
    samples = list(read_samples(tmp_path / "out"))
    assert len(samples) == 5
    np.testing.assert_array_equal(samples[0].image, generator.sample(range(5))[0][0].numpy())


# --- the same bytes, however it runs ---------------------------------------------------------


@pytest.mark.slow
def test_ray_gives_the_same_bytes(shippable: Tiny, tmp_path: Path, reference: str) -> None:
    import ray

    tiny = shippable
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):  # begun in this process, finished by two workers
        tiny.make(out, on_progress=interrupt_after(1, KeyboardInterrupt()))
    tiny.models.made.clear()
    tiny.make(out, executor=RayExecutor(workers=2))
    assert not tiny.models.made
    assert not ray.is_initialized()
    assert tree_sha256(out) == reference


@pytest.mark.parametrize("done", [1, 3])
def test_an_interrupted_job_resumes_where_it_stopped(
    tiny: Tiny, tmp_path: Path, reference: str, done: int
) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        tiny.make(out, on_progress=interrupt_after(done, KeyboardInterrupt()))
    assert not (out / "dataset.json").exists()
    tiny.models.made.clear()
    tiny.make(out)
    assert tree_sha256(out) == reference
    assert min(tiny.models.made) == done * 8  # finished shards were kept


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("000001.tar", lambda content: content[:-100]),
        ("000001.parquet", lambda content: bytes(len(content))),
        ("000001_stats.json", lambda content: content[:20]),
        ("000001_stats.json", lambda content: b"[]"),
    ],
)
def test_a_damaged_shard_is_regenerated(
    tiny: Tiny, tmp_path: Path, reference: str, name: str, damage: Any
) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        tiny.make(out, on_progress=interrupt_after(2, KeyboardInterrupt()))
    path = out / "candidates" / name
    path.write_bytes(damage(path.read_bytes()))
    (out / "candidates/.tmp-000002.tar-0123").write_bytes(b"of a killed worker")
    tiny.models.made.clear()
    tiny.make(out, keep_candidates=True)
    assert min(tiny.models.made) == 8
    assert not list((out / "candidates").glob(".tmp-*"))
    shutil.rmtree(out / "candidates")
    assert tree_sha256(out) == reference


def test_an_interrupted_commit_starts_over(
    tiny: Tiny, tmp_path: Path, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:

        def stop(*_: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr(commit, "write_samples", stop)
        with pytest.raises(KeyboardInterrupt):
            tiny.make(out)
    (out / "shards/tiny-000009.tar").write_bytes(b"stray")
    tiny.models.made.clear()
    tiny.make(out)
    assert not tiny.models.made
    assert tree_sha256(out) == reference


def test_a_finished_dataset_is_left_unchanged(tiny: Tiny, tmp_path: Path, reference: str) -> None:
    out = tmp_path / "reference"
    (out / "preview.png").unlink()
    (out / "candidates").mkdir()  # as if stopped right after dataset.json was written
    tiny.make(out)
    assert not tiny.models.made
    assert tree_sha256(out) == reference


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize("finished", [False, True])
def test_another_job_in_the_folder_is_refused(tiny: Tiny, tmp_path: Path, finished: bool) -> None:
    out = tmp_path / "out"
    if finished:
        tiny.make(out)
    else:
        with pytest.raises(KeyboardInterrupt):
            tiny.make(out, on_progress=interrupt_after(1, KeyboardInterrupt()))
    other = ("generator.steps=3", "dataset.drop_fraction=0.5")
    fields = r"generator\.steps, dataset\.drop_fraction differ"
    with pytest.raises(ValueError, match=fields):
        tiny.make(out, overrides=other)
    with pytest.raises(ValueError, match="started with --n 25, not 26"):
        tiny.make(out, n=26)


@pytest.mark.parametrize("n", [0, -1, 10**9 + 1])
def test_n_out_of_range(tiny: Tiny, tmp_path: Path, n: int) -> None:
    with pytest.raises(ValueError, match=f"--n {n}: expected"):
        tiny.make(tmp_path / "out", n=n)
    assert not (tmp_path / "out").exists()


def test_an_output_folder_with_other_files(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="holds no dataset but"):
        tiny.make(tmp_path)
    with pytest.raises(NotADirectoryError, match="found a file, expected a folder"):
        tiny.make(tmp_path / "tiny.yaml")


def test_a_failure_before_the_first_shard_leaves_nothing(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "out"
    tiny.models.digest = "another"
    with pytest.raises(ValueError, match="belongs to a different generator"):
        tiny.make(out)
    assert not out.exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_line_and_resumable(
    tiny: Tiny, tmp_path: Path, reference: str, monkeypatch: Any, number: int
) -> None:
    out = tmp_path / "out"
    real = shard_writer.TarWriter.add

    def add(self: Any, members: Any) -> None:
        if len(tiny.models.made) > 10:
            raise OSError(number, os.strerror(number))
        real(self, members)

    with monkeypatch.context() as patch:
        patch.setattr(shard_writer.TarWriter, "add", add)
        with pytest.raises(OSError, match="1 of 4 shards are finished and kept: free some space"):
            tiny.make(out)
    assert not list(out.rglob(".tmp-*"))
    tiny.make(out)
    assert tree_sha256(out) == reference


def test_an_estimate(tiny: Tiny, tmp_path: Path) -> None:
    found = estimate(tiny.job(tmp_path / "deep/out", 10_000), LocalExecutor())
    assert found.workers == 1
    assert found.samples_per_sec > 0
    assert found.total_sec >= 10_000 / found.samples_per_sec
    assert found.disk_peak_gib > found.disk_gib > 0
    assert not (tmp_path / "deep").exists()
