"""Threads make a job faster, and never change what it writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from factory_core.dataset import open_dataset


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["demo", "demo-stylegan2"])
def test_the_bytes_are_those_of_one_thread(factory: Callable, tmp_path: Path, recipe: str) -> None:
    found = []
    for threads in (1, 3):
        out = tmp_path / str(threads)
        job = ("generate", "--recipe", recipe, "--n", 20, "--executor", "local", "--out", out)
        result = factory(*job, "--cpus-per-worker", threads)
        assert result.code == 0, result.err
        found.append([shard.sha256 for shard in open_dataset(out).manifest.shards])
    assert found[0] == found[1]
