"""The progress of a job, read from its files alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from factory.commands.status import read_status
from factory.locking.lock import exclusive


def set_times(out: Path, spans: list[tuple[float, float]]) -> None:
    """Pretend that shard i was made during `spans[i]`: begin and end in seconds since 1970."""
    for number, (begin, end) in enumerate(spans):
        path = out / f"candidates/{number:06d}_stats.json"
        content = {**json.loads(path.read_bytes()), "elapsed_sec": end - begin}
        path.write_text(json.dumps(content))
        os.utime(path, (end, end))


def test_a_running_job(tiny: Any, tmp_path: Path) -> None:
    out, seen = tmp_path / "out", []
    tiny.make(out, on_progress=lambda progress: seen.append(read_status(out)))
    assert [s.samples_done for s in seen] == [0, 8, 16, 24, 25, 25]
    assert [s.shards_done for s in seen] == [0, 1, 2, 3, 4, 4]
    assert {(s.samples_total, s.shards_total) for s in seen} == {(25, 4)}
    assert {s.holder.pid for s in seen if s.holder} == {os.getpid()}
    assert seen[0].samples_per_sec is seen[0].eta_sec is seen[0].last_sec is None
    assert seen[2].eta_sec == pytest.approx(9 / seen[2].samples_per_sec)


@pytest.mark.parametrize(
    ("spans", "rate"),
    [
        ([(0, 10), (10, 20), (20, 30)], 24 / 30),  # one worker
        ([(0, 10), (0, 10), (5, 15)], 24 / 15),  # two workers
        ([(0, 10), (5000, 5010), (5010, 5020)], 24 / 30),  # a long pause between two runs
        ([(0, 1), (5, 6), (0.5, 7)], 24 / 7),  # a quick shard while a slow one is made
    ],
)
def test_the_rate_counts_busy_time(tiny: Any, tmp_path: Path, spans: Any, rate: float) -> None:
    tiny.begin(tmp_path / "out", 3)
    set_times(tmp_path / "out", spans)
    status = read_status(tmp_path / "out")
    assert status.samples_per_sec == pytest.approx(rate)
    assert status.eta_sec == pytest.approx(1 / rate)
    assert status.holder is None


def test_damaged_markers_give_no_rate(tiny: Any, tmp_path: Path) -> None:
    tiny.begin(tmp_path / "out", 1)
    (tmp_path / "out/candidates/000000_stats.json").write_bytes(b"{")
    assert read_status(tmp_path / "out").samples_per_sec is None


def test_the_command(factory: Callable, tiny: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    tiny.models.broken = {9}
    with pytest.raises(ValueError, match="failed twice"):
        tiny.make(out)
    shown = factory("status", out)
    assert shown.code == 0
    assert "3 of 4 shards, 17 of 25 samples (68%)" in shown.out
    assert "samples/s, about" in shown.out
    assert "not running: rerun the command" in shown.out
    assert "shard 1 (samples 8 to 15): sample 9 has uncertainty nan" in shown.out
    with exclusive(out):
        assert f"pid {os.getpid()}" in factory("status", out).out
    tiny.models.broken = set()
    tiny.make(out)
    finished = factory("status", out).out
    assert finished.startswith("finished: 25 candidates, 23 kept in 4 shards\n")
    assert "What dropping costs" in finished


@pytest.mark.parametrize("verb", ["status", "verify"])
def test_a_file_is_no_dataset(factory: Callable, tmp_path: Path, verb: str) -> None:
    (tmp_path / "file").touch()
    result = factory(verb, tmp_path / "file")
    assert result.code == 1
    assert result.err.endswith("file: found a file, expected the folder of a dataset\n")


def test_a_folder_without_a_job(factory: Callable, tmp_path: Path) -> None:
    result = factory("status", tmp_path)
    assert result.code == 1
    assert "expected the --out of `factory generate`" in result.err
    (tmp_path / "candidates").mkdir()
    (tmp_path / "candidates/job.json").write_text("{}")
    assert "job.json is damaged" in factory("status", tmp_path).err
