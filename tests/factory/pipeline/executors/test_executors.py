"""Choosing an executor, and starting Ray."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from factory.pipeline import executors
from factory.pipeline.executors import LocalExecutor, RayExecutor, make_executor
from factory.pipeline.executors.cluster import cluster as start_ray

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


@pytest.mark.parametrize(
    ("kind", "options", "threads"),
    [
        ("local", {}, 12),
        ("ray", {}, 6),
        ("ray", {"workers": "2-4"}, 3),
        ("ray", {"workers": 24}, 1),
        ("ray", {"cpus_per_worker": 5}, 5),
        ("ray", {"device": "cpu"}, 1),
        ("ray", {"gpus_per_worker": 0}, 1),
        ("ray", {"address": "auto"}, 1),  # whose machines are unknown
    ],
)
def test_with_gpus_the_cores_encode(
    monkeypatch: pytest.MonkeyPatch, kind: str, options: dict[str, Any], threads: int
) -> None:
    monkeypatch.setattr(executors.torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(executors, "available_cpus", lambda: 12)
    assert make_executor(kind, **options).cpus_per_worker == threads


@pytest.mark.parametrize("workers", ["0", "-2", "two", "2-", "8-2", "2-8-9", "1.5"])
def test_invalid_numbers_of_workers(workers: str) -> None:
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
    assert executor._share(resources, shards, "auto") == share


@pytest.mark.parametrize("workers", range(1, 20))
@pytest.mark.parametrize("gpus", [1, 2, 3, 8])
def test_shares_of_gpus_can_all_be_placed(workers: int, gpus: int) -> None:
    """Ray places a worker on one GPU: three workers on two GPUs take halves, not two thirds."""
    resources = {"CPU": 64.0, "GPU": float(gpus)}
    executor = RayExecutor(workers)
    least, most, share = executor._share(resources, 100, "auto")
    assert gpus * int(1 / share + 1e-6) >= workers
    assert executor._placed(least, most, share, resources) == workers


@pytest.mark.parametrize(
    ("executor", "line"),
    [
        (RayExecutor(4, gpus_per_worker=1), "found 2 GPUs, room for 2: give fewer workers"),
        (RayExecutor(4, gpus_per_worker=0.6), "found 2 GPUs, room for 2: give fewer workers"),
        (RayExecutor(1, gpus_per_worker=4), "found 2 GPUs, room for 0: give fewer workers"),
    ],
)
def test_too_few_gpus(executor: RayExecutor, line: str, caplog: pytest.LogCaptureFixture) -> None:
    resources = {"CPU": 64.0, "GPU": 2.0}
    share = executor._share(resources, 100, "auto")
    with pytest.raises(ValueError, match=line):
        executor._placed(*share, resources)
    grown = replace(executor, address="head:6379")
    assert grown._placed(*share, resources) == executor.workers
    assert "wait until machines join the cluster" in caplog.text


def test_workers_on_the_cpu_take_no_gpus() -> None:
    resources = {"CPU": 16.0, "GPU": 2.0}
    assert RayExecutor()._share(resources, 10, "cpu") == (10, 10, 0.0)
    assert RayExecutor(gpus_per_worker=0)._share(resources, 10, "cpu") == (10, 10, 0.0)
    assert RayExecutor(gpus_per_worker=0).device("auto") == "cpu"
    assert RayExecutor().device("auto") == "auto"
    assert LocalExecutor().device("cuda:1") == "cuda:1"


@pytest.mark.parametrize(
    ("gpus", "device", "line"),
    [
        (None, "cuda:1", "--device cuda:1: Ray assigns the GPUs: give --device cuda"),
        (0, "cuda", "--device cuda --gpus-per-worker 0: expected a share of a GPU"),
        (0.5, "cpu", "--device cpu --gpus-per-worker 0.5: leave one of them out"),
    ],
)
def test_devices_that_ray_excludes(gpus: float | None, device: str, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        RayExecutor(gpus_per_worker=gpus).device(device)


def test_shares_beyond_one_gpu_are_whole() -> None:
    with pytest.raises(ValueError, match=r"--gpus-per-worker 1\.5: expected a fraction up to 1"):
        RayExecutor(gpus_per_worker=1.5)


# --- starting Ray ----------------------------------------------------------------------------


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[Exception | None]:
    """Outcomes of the calls of `ray.init`, which starts nothing: an error to raise, or None."""
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
        ("local", "--address local: found no Ray cluster to join there: it was too slow"),
    ],
)
def test_ray_does_not_start(starts: list[Exception | None], address: str | None, line: str) -> None:
    starts += [Exception("it was\ntoo slow")] * 2
    with pytest.raises(OSError, match=line), start_ray(address, 1):
        raise AssertionError("it started")
