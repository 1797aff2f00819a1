"""A user's mistake in a worker reaches the driver as one line; a bug is raised."""

from __future__ import annotations

import errno
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from factory.pipeline.executors import RayExecutor
from factory.pipeline.executors.actor import ShardActor, plain
from factory.pipeline.worker import WorkerSpec
from factory_core.storage import open_store


@pytest.mark.parametrize(
    "error",
    [
        ValueError("the labeler belongs to a different generator"),
        OSError(errno.ENOSPC, "No space left on device"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "weights"),
    ],
)
def test_a_worker_returns_a_mistake_as_a_value(
    tiny: Any, begun: Callable, tmp_path: Path, error: Exception
) -> None:
    def load(*_: Any) -> Any:
        raise error

    tiny.load = load
    found = ShardActor(WorkerSpec.of(begun(tmp_path / "out", 2)), 1, []).load()
    assert type(found) is type(error)
    assert str(found) == str(error)


def test_models_that_do_not_fit_are_a_mistake(tiny: Any, begun: Callable, tmp_path: Path) -> None:
    def load(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")

    tiny.load = load
    found = ShardActor(WorkerSpec.of(begun(tmp_path / "out", 2)), 1, []).load()
    assert isinstance(found, ValueError)
    assert "out of memory while the models were loaded (CUDA out of memory" in str(found)
    assert "--gpus-per-worker 1" in str(found)


def test_an_error_of_a_librarys_own_type_survives_pickling() -> None:
    class OwnError(ValueError):
        def __init__(self, first: str, second: str):
            super().__init__(f"{first} {second}")

    assert str(pickle.loads(pickle.dumps(plain(OwnError("not", "here"))))) == "not here"


@pytest.mark.slow
def test_a_folder_that_workers_do_not_share(
    shippable: Any, begun: Callable, tmp_path: Path
) -> None:
    job = begun(tmp_path / "out", 2)
    elsewhere = replace(WorkerSpec.of(job), out=open_store(tmp_path / "not shared"))
    with pytest.raises(OSError, match="give an --out that all machines share"):
        list(RayExecutor(1).run(elsewhere, job.shards))


@pytest.mark.slow
def test_a_bug_in_a_worker_is_not_hidden(shippable: Any, tmp_path: Path) -> None:
    def load(*_: Any) -> Any:
        raise KeyError("bug")

    shippable.load = load
    with pytest.raises(KeyError, match="bug"):
        shippable.make(tmp_path / "out", executor=RayExecutor(1))


@pytest.mark.slow
def test_more_gpus_than_there_are(begun: Callable, tmp_path: Path, cluster: Any) -> None:
    gpus = cluster.cluster_resources().get("GPU", 0) + 1
    job = begun(tmp_path / "out", 2)
    with pytest.raises(ValueError, match=f"--gpus-per-worker {gpus:g}: found .* room for 0"):
        list(RayExecutor(1, gpus_per_worker=gpus).run(WorkerSpec.of(job), job.shards))
