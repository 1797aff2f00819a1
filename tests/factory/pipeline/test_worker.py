"""A worker: writing while sampling, failures in either, and one precision per dataset."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from factory.pipeline import shard_writer
from factory.pipeline.executors import Executor, Results
from factory.pipeline.job import Job
from factory.pipeline.models import LoadModels, load_models, precision_of
from factory.pipeline.run import run
from factory.pipeline.shard import Shard, ShardStats
from factory.pipeline.shard_writer import Encoding
from factory.pipeline.worker import ShardWorker, WorkerSpec
from factory.recipe import ResolvedRecipe, load_recipe, resolve
from factory_core.dataset import open_dataset, read_tar, sample_key
from factory_core.device import torch_threads
from factory_core.storage import open_store
from generators.ddpm.config import DDPMConfig
from labelers.config import LabelerConfig
from tests.stand_ins import TinyModels, flat

BATCH = 3
SECONDS = 600  # the longest wait for another thread
PALETTE = ((0, 0, 0), (255, 0, 0))


def given(models: TinyModels) -> LoadModels:
    """A loader that always returns these models."""
    return lambda *_: (models, models)


def at_batch(act: Callable[[int], None]) -> Callable[[Sequence[int]], None]:
    """A `disturb` that calls `act` with the number of the batch."""
    return lambda indices: act(indices[0] // BATCH)


def make_worker(folder: Path, models: TinyModels, maps: bool = False) -> ShardWorker:
    (folder / "candidates").mkdir()
    config = DDPMConfig(weights="x", batch_size=BATCH)
    encoding = Encoding(PALETTE, uncertainty_maps=maps)
    spec = WorkerSpec(open_store(folder), config, LabelerConfig(), encoding, load=given(models))
    return ShardWorker(spec)


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "candidates").iterdir())


# --- writing while sampling ------------------------------------------------------------------


def test_a_batch_is_written_while_the_next_is_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = [threading.Event() for _ in range(3)]
    in_time: list[bool] = []
    encode = shard_writer.encode_sample

    def waiting(key: str, *rest: Any) -> Any:
        if int(key) % BATCH == 0 and int(key) < 2 * BATCH:  # the first of each but the last
            in_time.append(sampling[int(key) // BATCH + 1].wait(SECONDS))
        return encode(key, *rest)

    monkeypatch.setattr(shard_writer, "encode_sample", waiting)
    made = make_worker(
        tmp_path, TinyModels(disturb=at_batch(lambda number: sampling[number].set()))
    )
    stats = made(Shard(0, 0, 8))
    assert in_time == [True, True]
    assert stats.tar.samples == 8
    keys = [key for key, _ in read_tar(tmp_path / "candidates" / "000000.tar")]
    assert keys == [sample_key(i) for i in range(8)]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("unreadable")])
def test_a_failure_in_sampling_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def fail(number: int) -> None:
        if number == 2:
            raise error

    threads = threading.active_count()
    with pytest.raises(type(error)) as caught:
        make_worker(tmp_path, TinyModels(disturb=at_batch(fail)))(Shard(0, 0, 8))
    assert error in (caught.value, caught.value.__cause__)
    assert left_in(tmp_path) == []
    assert threading.active_count() == threads


@pytest.mark.parametrize("key", [0, 7])
def test_a_failure_in_writing_is_raised_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: int
) -> None:
    encode = shard_writer.encode_sample

    def fail(name: str, *rest: Any) -> Any:
        if int(name) == key:
            raise OSError("broken disk")
        return encode(name, *rest)

    monkeypatch.setattr(shard_writer, "encode_sample", fail)
    models = TinyModels()
    with pytest.raises(OSError, match="broken disk"):
        make_worker(tmp_path, models)(Shard(0, 0, 8))
    assert len(models.made) == (6 if key == 0 else 8)  # at most one batch ahead
    assert left_in(tmp_path) == []


def test_the_marker_counts_levels(tmp_path: Path) -> None:
    stats = make_worker(tmp_path, TinyModels(draw=flat), maps=True)(Shard(0, 0, 8))
    levels = np.rint(np.arange(8) / np.log(2)).astype(int)
    expected = np.bincount(np.repeat(levels, 16 * 16), minlength=256)
    assert stats.uncertainty_histogram == expected.tolist()
    assert ShardStats.from_json(stats.to_json()) == stats


# --- one precision per dataset ---------------------------------------------------------------


@pytest.fixture
def recipe(tmp_path: Path) -> ResolvedRecipe:
    """Shards of 4 candidates."""
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "labeler.json").write_text('{"classes": ["dark", "bright"]}')
    (tmp_path / "tiny.yaml").write_text(
        f"name: tiny\ngenerator: {{weights: {tmp_path}/weights}}\n"
        f"labeler: {{weights: {tmp_path}/weights}}\ndataset: {{shard_size: 4}}\n"
    )
    return resolve(load_recipe(str(tmp_path / "tiny.yaml")))


def make(
    recipe: ResolvedRecipe,
    n: int,
    out: Path,
    models: TinyModels,
    executor: Executor | None = None,
) -> None:
    run(Job.sampling(recipe, n, out, load=given(models)), executor)


def test_a_job_is_not_continued_in_another_precision(
    recipe: ResolvedRecipe, tmp_path: Path
) -> None:
    def stop(indices: Sequence[int]) -> None:
        if 4 in indices:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        make(recipe, 12, out, TinyModels(disturb=stop))
    before = left_in(out)
    message = (
        r"started with generator\.precision=float32 labeler\.precision=float32, but auto means "
        r"generator\.precision=bfloat16 .* here: resume where it was started"
    )
    with pytest.raises(ValueError, match=message) as caught:
        make(recipe, 12, out, TinyModels(dtype=torch.bfloat16))
    assert "\n" not in str(caught.value)
    assert left_in(out) == before
    make(recipe, 12, out, TinyModels())
    precision = "generator.precision=float32 labeler.precision=float32"
    assert open_dataset(out).manifest.precision == precision


def test_the_real_models_report_their_precision() -> None:
    settings = ["generator.precision=bfloat16", "labeler.precision=bfloat16"]
    demo = resolve(load_recipe("demo", settings))
    models = load_models(demo.generator, demo.labeler, "cpu")
    assert precision_of(models) == " ".join(settings)


@dataclass(frozen=True)
class TwoMachines:
    """Runs shards in turn on two workers to which `auto` means different precisions."""

    cpus_per_worker: int = 1
    start_sec: float = 0.0

    def device(self, requested: str) -> str:
        return requested

    def expected_workers(self, shards: int, device: str) -> int:
        return 2

    def run(self, spec: WorkerSpec, shards: Sequence[Shard]) -> Results:
        loads = [given(TinyModels(dtype=dtype)) for dtype in (torch.float32, torch.bfloat16)]
        workers = [ShardWorker(replace(spec, load=load)) for load in loads]
        for shard in shards:
            yield workers[shard.number % 2](shard)


def test_workers_that_differ_in_precision_are_refused(
    recipe: ResolvedRecipe, tmp_path: Path
) -> None:
    for _ in range(2):  # again with the shards left by the first
        with pytest.raises(ValueError, match=r"=bfloat16 and .*=float32: set one of them"):
            make(recipe, 40, tmp_path / "out", TinyModels(), TwoMachines())
    assert len(left_in(tmp_path / "out")) == 2 * 3 + 1


def test_samples_are_encoded_by_all_threads_of_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first two samples are encoded at the same time; the bytes are those of one thread."""
    encode, meeting = shard_writer.encode_sample, threading.Barrier(2)

    def together(key: str, *rest: Any) -> Any:
        if int(key) < 2:
            meeting.wait(SECONDS)
        return encode(key, *rest)

    tars = []
    for count, encoder in ((1, encode), (2, together)):
        monkeypatch.setattr(shard_writer, "encode_sample", encoder)
        folder = tmp_path / str(count)
        folder.mkdir()
        with torch_threads(count):
            make_worker(folder, TinyModels())(Shard(0, 0, 8))
        tars.append((folder / "candidates" / "000000.tar").read_bytes())
    assert tars[0] == tars[1]
