"""The whole job with tiny stand-ins for the models: same bytes however it was run."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import DDPMPipeline
from PIL import Image

import generators
from factory.pipeline import commit, shard_writer
from factory.pipeline.estimate import estimate
from factory.pipeline.executors import Executor, LocalExecutor, RayExecutor
from factory.pipeline.job import Job
from factory.pipeline.progress import OnProgress, Progress, ignore
from factory.pipeline.run import run
from factory.recipe import ResolvedRecipe, load_recipe, resolve
from factory_core.dataset import open_dataset, read_samples
from generators.base import FeatureMaps, FeatureMapSpec, sample_seed
from generators.config import DDPMConfig, FeatureConfig
from generators.ddpm.model import build_unet
from generators.ddpm.training import noise_schedule
from labelers.config import LabelerConfig, ReferenceTraining
from labelers.labeler import GeneratorInfo
from labelers.training.fit import fit

SIZE = (16, 16)
N = 25  # shards of 8: the last holds a single candidate
MADE: list[int] = []  # what the stand-in generator was asked for, in this process


class TinyGenerator:
    """Blocks of seeded noise; the feature map is the image at half its size."""

    image_size = SIZE
    digest = "tiny"
    feature_spec = (FeatureMapSpec("half", 3, 8, 8),)
    feature_settings: ClassVar[dict[str, Any]] = {}

    def sample(self, indices: Sequence[int]) -> tuple[torch.Tensor, FeatureMaps]:
        MADE.extend(indices)
        noise = [
            np.random.default_rng(sample_seed(0, i)).integers(0, 256, (3, 4, 4)) for i in indices
        ]
        images = torch.from_numpy(np.stack(noise)).to(torch.uint8)
        images = images.repeat_interleave(4, 2).repeat_interleave(4, 3)
        return images, self.encode(images)

    def encode(self, images: torch.Tensor, indices: Sequence[int] | None = None) -> FeatureMaps:
        return FeatureMaps({"half": torch.nn.functional.avg_pool2d(images.float(), 2)})


@dataclass
class TinyPrediction:
    mask: torch.Tensor
    uncertainty: torch.Tensor


class TinyLabeler:
    """Bright or dark; more uncertain the greyer."""

    def check(self, generator: Any) -> None:
        if generator.digest != "tiny":
            raise ValueError("the labeler belongs to another generator")

    def predict(
        self, features: FeatureMaps, size: tuple[int, int], vote: Any, uncertainty: Any
    ) -> TinyPrediction:
        up = torch.nn.functional.interpolate(features["half"], size=size)
        mask = (up.mean(1) > 128).to(torch.uint8)
        return TinyPrediction(mask, 1 / (1 + up.std((1, 2, 3))))


def load_tiny(*_: Any) -> tuple[TinyGenerator, TinyLabeler]:
    return TinyGenerator(), TinyLabeler()


@pytest.fixture
def recipe(tmp_path: Path) -> ResolvedRecipe:
    """Shards of 8 candidates in batches of 3, 7 kept samples a final shard."""
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "labeler.json").write_text(json.dumps({"classes": ["dark", "bright"]}))
    (tmp_path / "tiny.yaml").write_text(
        f"name: tiny\ngenerator: {{weights: {weights}, batch_size: 3}}\n"
        f"labeler: {{weights: {weights}}}\ndataset: {{shard_size: 8, samples_per_shard: 7}}\n"
    )
    return resolve(load_recipe(str(tmp_path / "tiny.yaml")))


@pytest.fixture(autouse=True)
def _cheap_preview(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "factory.reports.preview.write_preview",
        lambda folder: folder.write("preview.png", b"png"),
    )


def changed(recipe: ResolvedRecipe, *overrides: str) -> ResolvedRecipe:
    """The same recipe with other settings."""
    path = Path(recipe.generator.weights).parent / "tiny.yaml"
    return resolve(load_recipe(str(path), list(overrides)))


def make(
    recipe: ResolvedRecipe,
    out: Path,
    n: int = N,
    executor: Executor | None = None,
    on_progress: OnProgress = ignore,
    load: Any = load_tiny,
    **how: Any,
) -> Any:
    return run(Job.sampling(recipe, n, out, load=load, **how), executor, on_progress)


def make_labelled(recipe: ResolvedRecipe, images: Path, out: Path) -> Any:
    return run(Job.labeling(recipe, images, out, load=load_tiny))


def tree_sha256(folder: Path) -> str:
    """sha256 over names and bytes of every file of a finished dataset."""
    total = sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        total.update(f"{path.relative_to(folder)} {sha256(path.read_bytes()).hexdigest()}".encode())
    return total.hexdigest()


@pytest.fixture
def reference(recipe: ResolvedRecipe, tmp_path: Path) -> str:
    """Hash of the undisturbed run."""
    make(recipe, tmp_path / "reference")
    MADE.clear()
    return tree_sha256(tmp_path / "reference")


def interrupt_after(shards: int, error: BaseException) -> Any:
    """A progress callback that raises once so many shards are done."""

    def callback(progress: Progress) -> None:
        if progress.shards_done == shards and progress.stage == "generate":
            raise error

    return callback


# --- what comes out --------------------------------------------------------------------------


def test_the_dataset_is_complete_and_consistent(recipe: ResolvedRecipe, tmp_path: Path) -> None:
    out = tmp_path / "out"
    events: list[Progress] = []
    manifest = make(recipe, out, on_progress=events.append)
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


def test_photographs_are_labelled_into_the_same_kind_of_dataset(
    recipe: ResolvedRecipe, tmp_path: Path
) -> None:
    images = tmp_path / "photos"
    images.mkdir()
    for i in range(11):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(pixels).save(images / f"photo {i:02d}.png")
    out = tmp_path / "out"
    manifest = make_labelled(recipe, images, out)
    assert manifest.totals.candidates == 11
    rows = pd.read_parquet(out / "samples.parquet")
    assert rows.source.tolist() == [f"photo {i:02d}.png" for i in range(11)]
    assert next(iter(read_samples(out))).image.shape == (3, *SIZE)
    (images / "photo 03.png").write_bytes((images / "photo 04.png").read_bytes())
    with pytest.raises(ValueError, match="made from different images"):
        make_labelled(recipe, images, out)


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


# --- the same bytes, however -----------------------------------------------------------------


def test_ray_gives_the_same_bytes(recipe: ResolvedRecipe, tmp_path: Path, reference: str) -> None:
    import ray.cloudpickle

    # Workers cannot import a test module: ship the stand-ins themselves.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):  # begun in this process, finished by two workers
        make(recipe, out, on_progress=interrupt_after(1, KeyboardInterrupt()))
    MADE.clear()
    make(recipe, out, executor=RayExecutor(workers=2))
    assert not MADE
    assert not ray.is_initialized()
    assert tree_sha256(out) == reference


def load_mismatched(*_: Any) -> tuple[TinyGenerator, TinyLabeler]:
    generator = TinyGenerator()
    generator.digest = "another"
    return generator, TinyLabeler()


@pytest.mark.parametrize("done", [1, 3])
def test_an_interrupted_job_goes_on_where_it_stopped(
    recipe: ResolvedRecipe, tmp_path: Path, reference: str, done: int
) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        make(recipe, out, on_progress=interrupt_after(done, KeyboardInterrupt()))
    assert not (out / "dataset.json").exists()
    MADE.clear()
    make(recipe, out)
    assert tree_sha256(out) == reference
    assert min(MADE) == done * 8  # nothing finished was made again


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("000001.tar", lambda content: content[:-100]),
        ("000001.parquet", lambda content: bytes(len(content))),
        ("000001_stats.json", lambda content: content[:20]),
        ("000001_stats.json", lambda content: b"[]"),
    ],
)
def test_a_damaged_shard_is_made_again(
    recipe: ResolvedRecipe, tmp_path: Path, reference: str, name: str, damage: Any
) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        make(recipe, out, on_progress=interrupt_after(2, KeyboardInterrupt()))
    path = out / "candidates" / name
    path.write_bytes(damage(path.read_bytes()))
    (out / "candidates/.tmp-000002.tar-0123").write_bytes(b"of a killed worker")
    MADE.clear()
    make(recipe, out, keep_candidates=True)
    assert min(MADE) == 8
    assert not list((out / "candidates").glob(".tmp-*"))
    shutil.rmtree(out / "candidates")
    assert tree_sha256(out) == reference


def test_an_interrupted_commit_is_written_anew(
    recipe: ResolvedRecipe, tmp_path: Path, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:

        def stop(*_: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr(commit, "write_samples", stop)
        with pytest.raises(KeyboardInterrupt):
            make(recipe, out)
    (out / "shards/tiny-000009.tar").write_bytes(b"stray")
    MADE.clear()
    make(recipe, out)
    assert not MADE
    assert tree_sha256(out) == reference


def test_a_finished_dataset_is_left_alone(
    recipe: ResolvedRecipe, tmp_path: Path, reference: str
) -> None:
    out = tmp_path / "reference"
    (out / "preview.png").unlink()
    (out / "candidates").mkdir()  # as if stopped right after dataset.json was written
    make(recipe, out)
    assert not MADE
    assert tree_sha256(out) == reference


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize("finished", [False, True])
def test_another_job_in_the_folder_is_refused(
    recipe: ResolvedRecipe, tmp_path: Path, finished: bool
) -> None:
    out = tmp_path / "out"
    if finished:
        make(recipe, out)
    else:
        with pytest.raises(KeyboardInterrupt):
            make(recipe, out, on_progress=interrupt_after(1, KeyboardInterrupt()))
    other = changed(recipe, "generator.steps=3", "dataset.drop_fraction=0.5")
    fields = r"generator\.steps, dataset\.drop_fraction differ"
    with pytest.raises(ValueError, match=fields):
        make(other, out)
    with pytest.raises(ValueError, match="started with --n 25, not 26"):
        make(recipe, out, n=26)


@pytest.mark.parametrize("n", [0, -1, 10**9 + 1])
def test_n_out_of_range(recipe: ResolvedRecipe, tmp_path: Path, n: int) -> None:
    with pytest.raises(ValueError, match=f"--n {n}: expected"):
        make(recipe, tmp_path / "out", n=n)
    assert not (tmp_path / "out").exists()


def test_an_output_folder_with_other_things(recipe: ResolvedRecipe, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="holds no dataset but"):
        make(recipe, tmp_path)
    with pytest.raises(NotADirectoryError, match="found a file, expected a folder"):
        make(recipe, tmp_path / "tiny.yaml")


def test_a_failure_before_the_first_shard_leaves_nothing(
    recipe: ResolvedRecipe, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="belongs to another generator"):
        make(recipe, out, load=load_mismatched)
    assert not out.exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_line_and_resumable(
    recipe: ResolvedRecipe, tmp_path: Path, reference: str, monkeypatch: Any, number: int
) -> None:
    out = tmp_path / "out"
    real = shard_writer.TarWriter.add

    def add(self: Any, members: Any) -> None:
        if len(MADE) > 10:
            raise OSError(number, os.strerror(number))
        real(self, members)

    with monkeypatch.context() as patch:
        patch.setattr(shard_writer.TarWriter, "add", add)
        with pytest.raises(OSError, match="1 of 4 shards are finished and kept: free some space"):
            make(recipe, out)
    assert not list(out.rglob(".tmp-*"))
    make(recipe, out)
    assert tree_sha256(out) == reference


def test_an_estimate(recipe: ResolvedRecipe, tmp_path: Path) -> None:
    found = estimate(
        Job.sampling(recipe, 10_000, tmp_path / "deep/out", load=load_tiny), LocalExecutor()
    )
    assert found.workers == 1
    assert found.samples_per_sec > 0
    assert found.total_sec >= 10_000 / found.samples_per_sec
    assert found.disk_peak_gib > found.disk_gib > 0
    assert not (tmp_path / "deep").exists()
