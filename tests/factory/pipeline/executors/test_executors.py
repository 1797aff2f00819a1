"""Choosing an executor, and what a pool of workers does when some are lost.

Whole jobs are in test_generate and, on several nodes, in test_cluster.
"""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from factory.pipeline.executors import LocalExecutor, RayExecutor, make_executor
from factory.pipeline.executors.actor import ShardActor, plain
from factory.pipeline.executors.cluster import cluster as start_ray
from factory.pipeline.executors.shipping import Weights, find_copy, keep_copy, put, weights_of
from factory.pipeline.failures import ShardsFailed
from factory.pipeline.job import Job
from factory.pipeline.ownership import begin
from factory.pipeline.shard import ShardStats
from factory.pipeline.worker import WorkerSpec
from factory.recipe.weights import weight_files, weights_sha256
from factory_core.storage import open_store

SECONDS = 600  # to wait, instead of for ever


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A Ray cluster of two cores on this machine, which executors join."""
    with start_ray(None, 2):
        import ray

        yield ray


@pytest.fixture
def shippable(shippable: Any, cluster: Any) -> Any:
    """Jobs that run on `cluster`."""
    return shippable


def begun(tiny: Any, out: Path, n: int) -> Job:
    """A job of which nothing is made yet."""
    job = tiny.job(out, n)
    begin(job)
    return job


# --- choosing --------------------------------------------------------------------------------


def test_make_executor() -> None:
    assert make_executor("local", cpus_per_worker=2) == LocalExecutor(2)
    assert make_executor("local", workers="1") == LocalExecutor()
    assert make_executor("ray", workers=3) == RayExecutor(3)
    assert make_executor("ray", workers="3") == RayExecutor(3)
    assert make_executor("ray", workers="2-8") == RayExecutor(2, max_workers=8)
    with pytest.raises(ValueError, match="expected ray or local"):
        make_executor("slurm")
    for workers in (2, "1-2"):
        with pytest.raises(ValueError, match="the local executor has one"):
            make_executor("local", workers=workers)
    assert make_executor("ray", shard_timeout_sec=9.0) == RayExecutor(shard_timeout_sec=9.0)
    with pytest.raises(ValueError, match="--shard-timeout 9: the local executor cannot replace"):
        make_executor("local", shard_timeout_sec=9.0)


@pytest.mark.parametrize("workers", ["0", "-2", "two", "2-", "8-2", "2-8-9", "1.5"])
def test_workers_that_are_no_number(workers: str) -> None:
    with pytest.raises(ValueError, match=f"--workers {workers}: expected .* such as 2-8"):
        make_executor("ray", workers=workers)


@pytest.mark.parametrize(
    ("executor", "resources", "shards", "share"),
    [
        (RayExecutor(), {"CPU": 2.0}, 10, (2, 2, 0.0)),
        (RayExecutor(), {"CPU": 2.0}, 1, (1, 1, 0.0)),
        (RayExecutor(cpus_per_worker=4), {"CPU": 16.0}, 10, (4, 4, 0.0)),
        (RayExecutor(), {"CPU": 16.0, "GPU": 1.0}, 10, (1, 1, 1.0)),
        (RayExecutor(workers=4), {"CPU": 16.0, "GPU": 2.0}, 10, (4, 4, 0.5)),
        (RayExecutor(4, gpus_per_worker=0.25), {"CPU": 16.0, "GPU": 2.0}, 10, (4, 4, 0.25)),
        (RayExecutor(2, max_workers=8), {"CPU": 2.0}, 10, (2, 8, 0.0)),
        (RayExecutor(2, max_workers=8), {"CPU": 2.0, "GPU": 2.0}, 4, (2, 4, 0.5)),
    ],
)
def test_how_many_workers(
    executor: RayExecutor,
    resources: dict[str, float],
    shards: int,
    share: tuple[int, int, float],
) -> None:
    assert executor._share(resources, shards) == share


# --- starting Ray ----------------------------------------------------------------------------


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[Exception | None]:
    """What `ray.init` raises, in turn, instead of starting anything."""
    import ray

    outcomes: list[Exception | None] = []

    def init(**_: Any) -> None:
        if (error := outcomes.pop(0)) is not None:
            raise error

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    return outcomes


def test_ray_may_take_two_attempts_to_start(starts: list[Exception | None]) -> None:
    starts += [Exception("timed out"), None]
    with start_ray(None, 1):
        assert not starts


@pytest.mark.parametrize(
    ("address", "line"),
    [
        (None, r"Ray did not start on this machine \(it was too slow\): .* --executor local"),
        ("ray:1", "--address ray:1: found no Ray cluster to join there: it was too slow"),
    ],
)
def test_where_ray_does_not_start(
    starts: list[Exception | None], address: str | None, line: str
) -> None:
    starts += [Exception("it was\ntoo slow")] * 2
    with pytest.raises(OSError, match=line), start_ray(address, 1):
        raise AssertionError("it did")


# --- mistakes and bugs -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        ValueError("the labeler belongs to another generator"),
        OSError(errno.ENOSPC, "No space left on device"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "weights"),
    ],
)
def test_a_mistake_is_a_value_in_a_worker(tiny: Any, tmp_path: Path, error: Exception) -> None:
    def load(*_: Any) -> Any:
        raise error

    tiny.load = load
    found = ShardActor(WorkerSpec.of(begun(tiny, tmp_path / "out", 2)), 1, []).load()
    assert type(found) is type(error)
    assert str(found) == str(error)


def test_a_mistake_of_a_librarys_own_type_survives_pickling() -> None:
    class OwnError(ValueError):
        def __init__(self, first: str, second: str):
            super().__init__(f"{first} {second}")

    assert str(pickle.loads(pickle.dumps(plain(OwnError("not", "here"))))) == "not here"


@pytest.mark.slow
def test_a_folder_that_workers_do_not_share(shippable: Any, tmp_path: Path) -> None:
    job = begun(shippable, tmp_path / "out", 2)
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
def test_more_gpus_than_there_are(tiny: Any, tmp_path: Path, cluster: Any) -> None:
    gpus = cluster.cluster_resources().get("GPU", 0) + 1
    job = begun(tiny, tmp_path / "out", 2)
    with pytest.raises(ValueError, match=f"--gpus-per-worker {gpus:g}: this machine has"):
        list(RayExecutor(1, gpus_per_worker=gpus).run(WorkerSpec.of(job), job.shards))


# --- workers that are lost -------------------------------------------------------------------


def die_over(sample: int, fuse: Path | None = None) -> Callable[[Sequence[int]], None]:
    """What kills the worker that is to make `sample`: each time, or as long as `fuse` is there."""

    def disturb(indices: Sequence[int]) -> None:
        if sample in indices and (fuse is None or fuse.exists()):
            if fuse is not None:
                fuse.unlink()
            os.kill(os.getpid(), signal.SIGKILL)

    return disturb


@pytest.mark.slow
def test_a_lost_workers_shard_is_made_by_another(
    shippable: Any, tmp_path: Path, tree: Callable
) -> None:
    shippable.make(tmp_path / "undisturbed")
    fuse = tmp_path / "fuse"
    fuse.touch()
    shippable.models.disturb = die_over(10, fuse)
    shippable.make(tmp_path / "out", executor=RayExecutor(1))
    assert not fuse.exists()
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")


@pytest.mark.slow
def test_a_shard_that_kills_its_workers_is_reported(
    shippable: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from factory.pipeline.executors import pool

    monkeypatch.setattr(pool, "LOST_WORKERS", 2)
    shippable.models.disturb = die_over(10)
    shippable.models.broken = {1}  # which kills nobody
    with pytest.raises(ShardsFailed, match="sample 1 has uncertainty nan") as caught:
        shippable.make(tmp_path / "out", 24, executor=RayExecutor(1))
    assert [failure.number for failure in caught.value.failures] == [0, 1]
    assert caught.value.failures[1].reason.startswith(
        "2 workers were lost over it, the last: The actor"
    )
    assert (tmp_path / "out/candidates/000002_stats.json").exists()


@pytest.mark.slow
def test_workers_that_cannot_start_end_the_job(
    shippable: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from factory.pipeline.executors import pool

    def load(*_: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    shippable.load = load
    monkeypatch.setattr(pool, "LOST_WORKERS", 2)
    with pytest.raises(ValueError, match="2 workers died as they started, the last: The actor"):
        shippable.make(tmp_path / "out", executor=RayExecutor(1))


@pytest.mark.slow
def test_workers_that_cannot_start_beside_one_that_works(
    shippable: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when machines are taken away again before the models are loaded."""
    from factory.pipeline.executors import pool

    pids = tmp_path / "pids"
    pids.mkdir()

    def load(*_: Any) -> Any:
        (pids / str(os.getpid())).touch()
        if len(list(pids.iterdir())) > 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return shippable.models, shippable.models

    def disturb(_: Sequence[int]) -> None:
        until = time.monotonic() + SECONDS
        while len(list(pids.iterdir())) < 4:
            assert time.monotonic() < until, "no others were started"
            time.sleep(0.02)

    shippable.load, shippable.models.disturb = load, disturb
    monkeypatch.setattr(pool, "LOST_WORKERS", 2)
    assert shippable.make(tmp_path / "out", executor=RayExecutor(1, max_workers=2)).totals.kept


@pytest.mark.slow
def test_the_pool_grows_as_long_as_all_are_at_work(shippable: Any, tmp_path: Path) -> None:
    """The first shard is not finished before a second worker has begun one."""
    import torch

    pids = tmp_path / "pids"
    pids.mkdir()

    def disturb(_: Sequence[int]) -> None:
        threads = f"{torch.get_num_threads()} {os.environ['OMP_NUM_THREADS']}"
        (pids / str(os.getpid())).write_text(threads)
        until = time.monotonic() + SECONDS
        while len(list(pids.iterdir())) < 2:
            assert time.monotonic() < until, "still the only worker"
            time.sleep(0.02)

    shippable.models.disturb = disturb
    shippable.make(tmp_path / "out", executor=RayExecutor(1, max_workers=2))
    assert [path.read_text() for path in pids.iterdir()] == ["1 1", "1 1"]  # its cores, no more


# --- workers that hang -----------------------------------------------------------------------


def hang_over(sample: int, fuse: Path | None = None) -> Callable[[Sequence[int]], None]:
    """What makes the worker of `sample` sleep forever: each time, or while `fuse` exists."""

    def disturb(indices: Sequence[int]) -> None:
        if sample in indices and (fuse is None or fuse.exists()):
            if fuse is not None:
                fuse.unlink()
            while True:
                time.sleep(3600)

    return disturb


@pytest.mark.slow
def test_a_hung_workers_shard_is_made_by_another(
    shippable: Any, tmp_path: Path, tree: Callable
) -> None:
    shippable.make(tmp_path / "undisturbed")
    fuse = tmp_path / "fuse"
    fuse.touch()
    shippable.models.disturb = hang_over(10, fuse)
    shippable.make(tmp_path / "out", executor=RayExecutor(1, shard_timeout_sec=10))
    assert not fuse.exists()
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")


@pytest.mark.slow
def test_the_default_limit_follows_the_slowest_shard(
    shippable: Any, tmp_path: Path, tree: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from factory.pipeline.executors import pool

    monkeypatch.setattr(pool, "SHORTEST_TIMEOUT_SEC", 10.0)
    shippable.make(tmp_path / "undisturbed")
    fuse = tmp_path / "fuse"
    fuse.touch()
    shippable.models.disturb = hang_over(10, fuse)  # of the second shard: one has been timed
    shippable.make(tmp_path / "out", executor=RayExecutor(1))
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")


@pytest.mark.slow
def test_a_shard_that_hangs_each_worker_is_reported(
    shippable: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from factory.pipeline.executors import pool

    monkeypatch.setattr(pool, "LOST_WORKERS", 2)
    shippable.models.disturb = hang_over(10)
    with pytest.raises(ShardsFailed, match="3 of 4 shards are finished") as caught:
        shippable.make(tmp_path / "out", executor=RayExecutor(1, shard_timeout_sec=5))
    (failure,) = caught.value.failures
    assert failure.number == 1
    assert failure.reason.startswith("2 workers were lost over it, the last: not finished within 5")


# --- weights ---------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Weights:
    """A folder of weights that this machine has, and a cache of its own for copies."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "generator"
    (folder / "unet").mkdir(parents=True)
    (folder / "unet/weights.safetensors").write_bytes(b"w" * 1000)
    (folder / "config.json").write_text("{}")
    return Weights("generator", folder, weights_sha256(folder))


def contents(weights: Weights) -> dict[str, np.ndarray]:
    files = weight_files(weights.path)
    return {str(f.relative_to(weights.path)): np.fromfile(f, np.uint8) for f in files}


def test_weights_are_used_where_they_are(weights: Weights) -> None:
    assert find_copy(weights) == weights.path
    (weights.path / "config.json").write_text("another")
    assert find_copy(weights) is None


def test_a_copy_of_weights_is_kept_and_found(weights: Weights) -> None:
    files = contents(weights)
    shutil.rmtree(weights.path)
    assert find_copy(weights) is None
    copy = keep_copy(weights, files)
    assert find_copy(weights) == copy
    assert keep_copy(weights, files) == copy  # by another worker, at the same time
    (copy / "config.json").write_text("damaged")
    assert find_copy(weights) is None
    assert keep_copy(weights, files) == find_copy(weights)
    assert len(list(copy.parent.parent.iterdir())) == 1  # nothing else is left


def test_weights_of_a_single_file(weights: Weights) -> None:
    file = weights.path / "unet/weights.safetensors"
    single = Weights("labeler", file, weights_sha256(file))
    files = contents(single)
    file.unlink()
    assert keep_copy(single, files).read_bytes() == b"w" * 1000


def test_weights_that_changed_meanwhile(weights: Weights) -> None:
    files = contents(weights) | {"config.json": np.zeros(3, np.uint8)}
    with pytest.raises(ValueError, match="was changed while the job ran"):
        keep_copy(weights, files)
    assert not list((Path(os.environ["XDG_CACHE_HOME"]) / "dataset-factory/weights").iterdir())


@pytest.mark.slow
def test_workers_without_the_weights_are_sent_them(
    shippable: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    from factory.pipeline.executors.pool import Pool

    job = begun(shippable, tmp_path / "out", 16)
    spec = WorkerSpec.of(job)
    found = weights_of(spec)
    there = [replace(w, path=Path("/another machine") / w.path.name) for w in found]
    shipped = []

    def ship() -> Any:
        shipped.append(put(found))
        return shipped[-1]

    def load(generator: Any, labeler: Any, _: str) -> Any:
        for config in (generator, labeler):
            assert Path(config.weights).is_relative_to(tmp_path / "cache")
            assert (Path(config.weights) / "labeler.json").exists()
        return shippable.load()

    cache = {"env_vars": {"XDG_CACHE_HOME": str(tmp_path / "cache")}}
    actor = ray.remote(ShardActor).options(num_cpus=1, runtime_env=cache)
    start = partial(actor.remote, replace(spec, load=load), 1, there)
    outcomes = list(Pool(start, ship, job.shards, least=1, most=1).run())
    assert all(isinstance(outcome, ShardStats) for outcome in outcomes)
    assert len(outcomes) == 2
    assert len(shipped) == 1
