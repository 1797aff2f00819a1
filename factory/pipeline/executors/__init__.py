"""Run a worker over shards: in this process, or on Ray actors. Both give the same bytes."""

from __future__ import annotations

import torch

from factory.pipeline.executors.base import Executor, Results, attempt
from factory.pipeline.executors.local import LocalExecutor
from factory.pipeline.executors.on_ray import RayExecutor
from factory_core.machine import available_cpus

__all__ = ["Executor", "LocalExecutor", "RayExecutor", "Results", "attempt", "make_executor"]


def make_executor(
    kind: str,
    *,
    workers: str | int | None = None,
    cpus_per_worker: int | None = None,
    gpus_per_worker: float | None = None,
    address: str | None = None,
    shard_timeout_sec: float | None = None,
    device: str = "auto",
) -> Executor:
    """The executor `kind`: `ray`, or `local` (which has exactly one worker).

    `workers` is a number or `MIN-MAX`; the rest is as in `RayExecutor`. By default, a worker has
    one thread, or with a GPU of this machine its share of the cores: images come fast from a GPU,
    and are encoded on the CPU. Raises ValueError for options that exclude each other.
    """
    least, most = (None, None) if workers is None else _bounds(str(workers))
    if cpus_per_worker is None:
        uses_gpu = device != "cpu" and gpus_per_worker != 0 and address is None
        crew = 1 if kind == "local" else most or least
        cpus_per_worker = _threads(crew) if uses_gpu else 1
    if kind == "ray":
        return RayExecutor(
            least, cpus_per_worker, gpus_per_worker, address, most, shard_timeout_sec
        )
    if kind != "local":
        raise ValueError(f"--executor {kind}: expected ray or local")
    if (least, most) not in ((None, None), (1, None)):
        raise ValueError(f"--workers {workers}: the local executor has one; use --executor ray")
    if shard_timeout_sec is not None:
        raise ValueError(
            f"--shard-timeout {shard_timeout_sec:g}: the local executor cannot replace a worker;"
            " use --executor ray"
        )
    return LocalExecutor(cpus_per_worker)


def _threads(workers: int | None) -> int:
    """Cores of each of `workers` (None: one per GPU) on the GPUs of this machine, 1 without any."""
    gpus = torch.cuda.device_count()
    return max(1, available_cpus() // (workers or gpus)) if gpus else 1


def _bounds(text: str) -> tuple[int, int | None]:
    """`2` is (2, None), a pool of fixed size; `2-8` is (2, 8)."""
    least, separator, most = text.partition("-")
    try:
        bounds = int(least), int(most) if separator else None
    except ValueError:
        bounds = 0, None
    if bounds[0] < 1 or (bounds[1] is not None and bounds[1] < bounds[0]):
        raise ValueError(f"--workers {text}: expected a number such as 4, or bounds such as 2-8")
    return bounds
