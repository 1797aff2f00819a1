"""A job on devices that fail, that are full, or that differ."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from factory.pipeline.display import run_shown
from factory.pipeline.estimate import estimate
from factory.pipeline.executors import LocalExecutor, RayExecutor
from factory.pipeline.failures import HOPELESS
from factory.pipeline.run import run
from factory_core.dataset import open_dataset
from factory_core.device import DeviceFailed, OutOfMemory

BROKEN = "CUDA error: an illegal memory access was encountered"


def break_first(folder: Path) -> Callable[[Sequence[int]], None]:
    """A `disturb` that breaks the device of the first process to call it, as CUDA would: for good.

    `folder` gets a file per process. Others wait for the first, so that it takes part.
    """

    def disturb(_: Sequence[int]) -> None:
        with contextlib.suppress(FileExistsError):
            (folder / "first").symlink_to(str(os.getpid()))
        (folder / f"worker-{os.getpid()}").touch()
        if os.readlink(folder / "first") == str(os.getpid()):
            raise torch.AcceleratorError(BROKEN)

    return disturb


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_whose_device_fails_is_replaced(
    shippable: Any, tmp_path: Path, tree: Callable, workers: int
) -> None:
    shippable.make(tmp_path / "undisturbed", 8 * 12)
    used = tmp_path / "used"
    used.mkdir()
    shippable.models.disturb = break_first(used)
    shippable.make(tmp_path / "out", 8 * 12, executor=RayExecutor(workers))
    assert len(list(used.glob("worker-*"))) >= 2
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")


def fail(_: Sequence[int]) -> None:
    raise torch.AcceleratorError(BROKEN)


@pytest.mark.slow
def test_a_job_whose_every_device_fails_ends(
    shippable: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from factory.pipeline.executors import pool

    monkeypatch.setattr(pool, "LOST_WORKERS", 2)
    shippable.models.disturb = fail
    with pytest.raises(ValueError, match="2 workers lost their device, the last: the device fail"):
        shippable.make(tmp_path / "out", 8 * 12, executor=RayExecutor(1))


def test_a_broken_device_ends_a_job_in_this_process_and_a_rerun_resumes(
    tiny: Any, tmp_path: Path, tree: Callable
) -> None:
    """Further shards would fail too, through no fault of theirs."""
    tiny.make(tmp_path / "undisturbed", 8 * 2 * HOPELESS)
    out = tmp_path / "out"
    tiny.models.disturb = lambda indices: fail(indices) if 8 in indices else None
    with pytest.raises(DeviceFailed, match=r"illegal memory access .*rerun the command"):
        tiny.make(out, 8 * 2 * HOPELESS)
    tiny.models.disturb = lambda indices: None
    assert [path.name for path in (out / "candidates").glob("*_*.json")] == ["000000_stats.json"]
    tiny.make(out, 8 * 2 * HOPELESS)
    assert tree(out) == tree(tmp_path / "undisturbed")


class Full:
    """Has no memory for the first `times` batches."""

    def __init__(self, times: int):
        self.times = times

    def __call__(self, indices: Sequence[int]) -> None:
        if self.times:
            self.times -= 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def test_memory_that_was_full_for_a_moment(tiny: Any, tmp_path: Path, tree: Callable) -> None:
    tiny.make(tmp_path / "undisturbed")
    tiny.models.disturb = Full(1)
    tiny.make(tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")


def test_a_batch_that_does_not_fit_ends_the_job_with_the_number_to_set(
    tiny: Any, tmp_path: Path
) -> None:
    tiny.models.disturb = Full(99)
    line = r"^out of memory with generator\.batch_size=3 \(CUDA .*\): set generator\.batch_size=1$"
    with pytest.raises(OutOfMemory, match=line):
        tiny.make(tmp_path / "out")
    with pytest.raises(OutOfMemory, match=line):
        estimate(tiny.job(tmp_path / "out"), LocalExecutor())
    assert not (tmp_path / "out/candidates/000000_failed.json").exists()


def test_a_dry_run_times_a_batch_of_the_job(tiny: Any, tmp_path: Path) -> None:
    """Four samples may take as long as the sixteen that they are filled up to."""
    batch = "generator.batch_size=16"
    estimate(tiny.job(tmp_path / "out", 100, [batch, "dataset.shard_size=64"]), LocalExecutor())
    assert tiny.models.made == [0, *range(16)]
    tiny.models.made.clear()
    tiny.models.pass_size = 1  # one by one: a few are enough
    estimate(tiny.job(tmp_path / "out", 100, [batch, "dataset.shard_size=64"]), LocalExecutor())
    assert tiny.models.made == [0, *range(4)]


def test_a_job_says_on_what_it_was_computed(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(record=True, width=200)
    run_shown(tiny.job(tmp_path / "cpu"), LocalExecutor(), console)
    assert "computed on cpu\n" in console.export_text()
    assert "devices" not in (tmp_path / "cpu/dataset.json").read_text()


def test_the_threads_of_workers_are_recorded_and_needed_for_a_repair(
    tiny: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(tiny.job(out), LocalExecutor(2))
    assert open_dataset(out).manifest.threads == [2]
    shard = next((out / "shards").iterdir())
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(
        ValueError, match="1 would round differently, so repair it with --cpus-per-worker 2"
    ):
        run(tiny.job(out), LocalExecutor())
    assert shard.read_bytes() == whole[:-1]
    run(tiny.job(out), LocalExecutor(2))
    assert shard.read_bytes() == whole


def test_different_kinds_of_gpu_are_recorded(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from factory.pipeline import worker

    tiny.begin(tmp_path / "out", 1)
    monkeypatch.setattr(worker, "device_kind", lambda _: "NVIDIA L4")
    tiny.begin(tmp_path / "out", 3)
    monkeypatch.setattr(worker, "device_kind", lambda _: "NVIDIA A100")
    console = Console(record=True, width=200)
    run_shown(tiny.job(tmp_path / "out"), LocalExecutor(), console)
    assert open_dataset(tmp_path / "out").manifest.devices == ["NVIDIA A100", "NVIDIA L4"]
    text = console.export_text()
    assert "computed on NVIDIA A100, NVIDIA L4, cpu\nnote: different kinds of device" in text
