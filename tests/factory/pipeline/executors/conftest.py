"""A Ray cluster, and jobs that run on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from factory.pipeline.executors.cluster import cluster as start_ray
from factory.pipeline.job import Job
from factory.pipeline.ownership import begin


@pytest.fixture(scope="package")
def cluster() -> Iterator[Any]:
    """A Ray cluster of two cores on this machine, which executors join."""
    with start_ray(None, 2):
        import ray

        yield ray


@pytest.fixture
def shippable(shippable: Any, cluster: Any) -> Any:
    """Jobs that run on `cluster`."""
    return shippable


@pytest.fixture
def begun(tiny: Any) -> Callable[..., Job]:
    """`begun(out, n)` -> a job that has begun, but made nothing yet."""

    def make(out: Path, n: int) -> Job:
        job = tiny.job(out, n)
        begin(job)
        return job

    return make
