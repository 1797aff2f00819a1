"""Choosing an executor, and how errors cross from Ray's workers (runs: see test_generate)."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from factory import executors
from factory.executors import LocalExecutor, RayExecutor, make_executor
from factory.failures import ShardFailure
from factory.worker import Shard, ShardStats, WorkerSpec, shard_to_json
from generators.config import DDPMConfig
from labelers.config import LabelerConfig


def failing_spec(out: Path, error: Exception) -> WorkerSpec:
    """A worker whose models cannot be loaded."""

    def load(*_: Any) -> Any:
        raise error

    (out / "candidates").mkdir()
    return WorkerSpec(out, DDPMConfig(weights="x"), LabelerConfig(), ((0, 0, 0),), load=load)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("the labeler belongs to another generator"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
)
def test_a_users_mistake_comes_back_from_a_ray_worker(tmp_path: Path, error: Exception) -> None:
    worker = executors._RayWorker(failing_spec(tmp_path, error), threads=1)
    row = worker({"shard": shard_to_json(Shard(0, 0, 2))})
    with pytest.raises(type(error)) as caught:
        executors._unpack(row)
    assert caught.value.args == error.args


def test_a_bug_in_a_ray_worker_is_not_hidden(tmp_path: Path) -> None:
    worker = executors._RayWorker(failing_spec(tmp_path, KeyError("bug")), threads=1)
    with pytest.raises(KeyError):
        worker({"shard": shard_to_json(Shard(0, 0, 2, ("a.png", "b.png")))})


def test_a_failing_shard_comes_back_from_a_ray_worker(tiny: Any, tmp_path: Path) -> None:
    tiny.models.broken = {1}
    (tmp_path / "candidates").mkdir()
    recipe = tiny.recipe()
    spec = WorkerSpec(
        tmp_path, recipe.generator, recipe.labeler, ((0, 0, 0), (255, 255, 255)), load=tiny.load
    )
    worker = executors._RayWorker(spec, threads=1)
    failure = executors._unpack(worker({"shard": shard_to_json(Shard(0, 0, 2))}))
    assert isinstance(failure, ShardFailure)
    assert str(failure) == "shard 0 (samples 0 to 1): sample 1 has uncertainty nan, not a number"
    assert tiny.models.made == [0, 1, 0, 1]  # tried twice
    stats = executors._unpack(worker({"shard": shard_to_json(Shard(1, 2, 4))}))
    assert isinstance(stats, ShardStats)
    assert stats.samples == 2


def test_make_executor() -> None:
    assert make_executor("local", cpus_per_worker=2) == LocalExecutor(2)
    assert make_executor("ray", workers=3) == RayExecutor(3)
    with pytest.raises(ValueError, match="expected ray or local"):
        make_executor("slurm")
    with pytest.raises(ValueError, match="the local executor has one"):
        make_executor("local", workers=2)


@pytest.mark.parametrize(
    ("executor", "resources", "shards", "share"),
    [
        (RayExecutor(), {"CPU": 2.0}, 10, (2, 0.0)),
        (RayExecutor(), {"CPU": 2.0}, 1, (1, 0.0)),
        (RayExecutor(cpus_per_worker=4), {"CPU": 16.0}, 10, (4, 0.0)),
        (RayExecutor(), {"CPU": 16.0, "GPU": 1.0}, 10, (1, 1.0)),
        (RayExecutor(workers=4), {"CPU": 16.0, "GPU": 2.0}, 10, (4, 0.5)),
        (RayExecutor(workers=4, gpus_per_worker=0.25), {"CPU": 16.0, "GPU": 2.0}, 10, (4, 0.25)),
    ],
)
def test_how_many_workers(
    executor: RayExecutor, resources: dict[str, float], shards: int, share: tuple[int, float]
) -> None:
    assert executor._share(resources, shards) == share
