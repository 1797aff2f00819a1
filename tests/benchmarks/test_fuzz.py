"""Damaged files of every kind end in one line; `python -m benchmarks.fuzz` tries thousands."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.fuzz import Watch, call, fault, fuzz
from benchmarks.fuzz_targets import Target, make_targets

EACH = 6


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> list[Target]:
    return make_targets(tmp_path_factory.mktemp("fuzz") / "valid")


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


@pytest.mark.slow
def test_damaged_files_are_read_or_refused_in_one_line(
    targets: list[Target], watch: Watch, tmp_path: Path
) -> None:
    failed = {t.name: f for t in targets if (f := fuzz(t, EACH, tmp_path, watch).failures)}
    assert failed == {}


@pytest.mark.slow
def test_undamaged_files_are_read(targets: list[Target], tmp_path: Path) -> None:
    for number, target in enumerate(t for t in targets if not t.name.startswith("checkpoint")):
        out = tmp_path / f"out_{number}"
        target.place((target.folder / target.file).read_bytes(), tmp_path / f"in_{number}")
        out.mkdir()
        code, stderr = call(target.command(tmp_path / f"in_{number}", out))
        assert (target.name, code, stderr) == (target.name, 0, "")


def test_what_counts_as_a_fault(tmp_path: Path) -> None:
    watch = Watch()
    assert fault(0, "", tmp_path, watch) is None
    assert fault(1, "error: x is y\n", tmp_path, watch) is None
    assert "exit code -1" in str(fault(-1, "Traceback ...", tmp_path, watch))
    assert "2 lines" in str(fault(1, "error: a\nerror: b\n", tmp_path, watch))
    assert "0 lines" in str(fault(1, "", tmp_path, watch))
    (tmp_path / ".tmp-x").touch()
    assert "half-written" in str(fault(0, "", tmp_path, watch))


def test_a_started_program_is_seen() -> None:
    import os

    watch = Watch()
    os.system("true")
    assert watch.seen == []
    watch.on = True
    os.system("true")
    watch.on = False
    assert watch.seen[0].startswith("os.system")
