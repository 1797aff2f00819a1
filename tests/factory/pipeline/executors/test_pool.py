"""What a pool of workers does when some are lost or hang."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from factory.pipeline.executors import RayExecutor
from factory.pipeline.failures import ShardsFailed

SECONDS = 60  # to wait for another process


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    while True:
        time.sleep(3600)


def over(
    sample: int, act: Callable[[], None], fuse: Path | None = None
) -> Callable[[Sequence[int]], None]:
    """A `disturb` that acts on the worker of `sample`: every time, or only while `fuse` exists."""

    def disturb(indices: Sequence[int]) -> None:
        if sample in indices and (fuse is None or fuse.exists()):
            if fuse is not None:
                fuse.unlink()
            act()

    return disturb


@pytest.mark.slow
def test_a_lost_workers_shard_is_made_by_another(
    shippable: Any, tmp_path: Path, tree: Callable
) -> None:
    shippable.make(tmp_path / "undisturbed")
    fuse = tmp_path / "fuse"
    fuse.touch()
    shippable.models.disturb = over(10, die, fuse)
    shippable.make(tmp_path / "out", executor=RayExecutor(1))
    assert not fuse.exists()
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")


@pytest.mark.slow
def test_a_shard_that_kills_its_workers_is_reported(
    shippable: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from factory.pipeline.executors import pool

    monkeypatch.setattr(pool, "LOST_WORKERS", 2)
    shippable.models.disturb = over(10, die)
    shippable.models.broken = {1}  # which kills no worker
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
def test_one_worker_finishes_while_others_cannot_start(
    shippable: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when machines are reclaimed before they have loaded the models."""
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
def test_the_pool_grows_while_all_workers_are_busy(shippable: Any, tmp_path: Path) -> None:
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
    assert [path.read_text() for path in pids.iterdir()] == ["1 1", "1 1"]  # threads


# --- workers that hang -----------------------------------------------------------------------


@pytest.mark.slow
def test_a_hung_workers_shard_is_made_by_another(
    shippable: Any, tmp_path: Path, tree: Callable
) -> None:
    shippable.make(tmp_path / "undisturbed")
    fuse = tmp_path / "fuse"
    fuse.touch()
    shippable.models.disturb = over(10, hang, fuse)
    shippable.make(tmp_path / "out", executor=RayExecutor(1, shard_timeout_sec=5))
    assert not fuse.exists()
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")


@pytest.mark.slow
def test_the_default_limit_follows_the_slowest_shard(
    shippable: Any, tmp_path: Path, tree: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from factory.pipeline.executors import pool

    monkeypatch.setattr(pool, "SHORTEST_TIMEOUT_SEC", 5.0)
    shippable.make(tmp_path / "undisturbed")
    fuse = tmp_path / "fuse"
    fuse.touch()
    shippable.models.disturb = over(10, hang, fuse)  # in the second shard: the first has been timed
    shippable.make(tmp_path / "out", executor=RayExecutor(1))
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")


@pytest.mark.slow
def test_a_shard_that_hangs_each_worker_is_reported(
    shippable: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from factory.pipeline.executors import pool

    monkeypatch.setattr(pool, "LOST_WORKERS", 2)
    shippable.models.disturb = over(10, hang)
    with pytest.raises(ShardsFailed, match="3 of 4 shards are finished") as caught:
        shippable.make(tmp_path / "out", executor=RayExecutor(1, shard_timeout_sec=5))
    (failure,) = caught.value.failures
    assert failure.number == 1
    assert failure.reason.startswith("2 workers were lost over it, the last: not finished within 5")
