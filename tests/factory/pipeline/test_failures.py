"""A shard that fails is retried, then reported while the others continue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from factory.pipeline.display import run_shown
from factory.pipeline.executors import LocalExecutor
from factory.pipeline.failures import HOPELESS, ShardFailure, ShardsFailed, read_failures, record
from factory.pipeline.job import Job
from factory.pipeline.progress import Progress
from factory.pipeline.run import run
from factory_core.storage import open_store


class Fail:
    """Raises `error` the first `times` times that sample `index` is requested."""

    def __init__(self, index: int, error: Exception, times: int = 99):
        self.index, self.error, self.times = index, error, times

    def __call__(self, indices: Sequence[int]) -> None:
        if self.index in indices and self.times:
            self.times -= 1
            raise self.error


def test_a_second_try_succeeds(tiny: Any, tree: Callable, tmp_path: Path) -> None:
    tiny.make(tmp_path / "undisturbed")
    tiny.models.disturb = Fail(10, RuntimeError("CUDA error"), times=1)
    tiny.make(tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")


def test_others_are_made_and_a_rerun_completes(tiny: Any, tree: Callable, tmp_path: Path) -> None:
    tiny.make(tmp_path / "undisturbed")
    tiny.models.disturb = Fail(10, RuntimeError("out of\nmemory"))
    out, events = tmp_path / "out", list[Progress]()
    with pytest.raises(ShardsFailed, match="3 of 4 shards are finished and kept") as caught:
        tiny.make(out, on_progress=events.append)
    (failure,) = caught.value.failures
    assert str(failure) == "shard 1 (samples 8 to 15): RuntimeError: out of memory"
    assert "\n" not in str(caught.value)
    assert events[-1].shards_failed == 1
    assert read_failures(open_store(out / "candidates")) == [failure]
    assert "disturb" in failure.traceback  # where it happened, for whoever fixes it
    tiny.models.disturb, tiny.models.made = lambda indices: None, []
    tiny.make(out)
    assert min(tiny.models.made) == 8
    assert max(tiny.models.made) == 15
    assert tree(out) == tree(tmp_path / "undisturbed")


def test_every_failure_is_listed(tiny: Any, tmp_path: Path) -> None:
    tiny.models.broken = {3, 24}
    with pytest.raises(ShardsFailed, match=r"and 1 other\); 2 of 4") as caught:
        tiny.make(tmp_path / "out")
    assert [f.number for f in caught.value.failures] == [0, 3]
    assert "sample 24 has uncertainty nan" in caught.value.failures[1].reason


def test_unreadable_photographs(tiny: Any, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(20):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(photos / f"{i:02d}.jpg")
    good = (photos / "09.jpg").read_bytes()
    out = tmp_path / "out"
    job = Job.labeling(tiny.recipe(), photos, out, load=tiny.load)
    (photos / "09.jpg").write_bytes(good[:-100])  # after all have been decoded
    with pytest.raises(ShardsFailed, match=r"09\.jpg.*; 2 of 3 shards.* another --out if photo"):
        run(job)
    with pytest.raises(ValueError, match=r"1 of the 20 images .*\(09\.jpg\)"):
        tiny.label(photos, out)
    (photos / "08.jpg").rename(photos / "09.jpg")
    with pytest.raises(ValueError, match="different images"):
        tiny.label(photos, out)


def test_a_job_with_only_failures_is_given_up(tiny: Any, tmp_path: Path) -> None:
    def fail(indices: Sequence[int]) -> None:
        tiny.models.made.extend(indices)
        raise RuntimeError("no such device")

    tiny.models.disturb = fail
    out = tmp_path / "out"
    with pytest.raises(ShardsFailed, match=r"no such device.*and 4 others"):
        tiny.make(out, n=8 * 50)
    assert max(tiny.models.made) < 8 * HOPELESS
    assert len(read_failures(open_store(out / "candidates"))) == HOPELESS


@pytest.mark.parametrize("error", [TypeError("a bug"), AssertionError("another")])
def test_a_bug_stops_the_job(tiny: Any, tmp_path: Path, error: Exception) -> None:
    tiny.models.disturb = Fail(10, error)
    with pytest.raises(type(error)):
        tiny.make(tmp_path / "out")
    assert max(tiny.models.made) < 10


def test_a_damaged_record_is_skipped(tmp_path: Path) -> None:
    failure = ShardFailure(3, 24, 32, "why", "where")
    store = open_store(tmp_path)
    record(store, failure)
    (tmp_path / "000004_failed.json").write_bytes(b"{")
    (tmp_path / "000005_failed.json").write_bytes(b"[]")
    assert read_failures(store) == [failure]


def test_the_user_sees_every_failure(tiny: Any, tmp_path: Path) -> None:
    tiny.models.broken = {3, 24}
    out, console = tmp_path / "out", Console(record=True, width=200)
    with pytest.raises(ShardsFailed, match=r"and 1 other"):
        run_shown(tiny.job(out), LocalExecutor(), console)
    lines = console.export_text().splitlines()
    assert [line[:27] for line in lines if line.startswith("shard ")] == [
        "shard 0 (samples 0 to 7): s",
        "shard 3 (samples 24 to 24):",
    ]
