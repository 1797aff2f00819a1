"""The cores of a machine, and of a container on it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from factory_core import machine


@pytest.mark.parametrize(
    ("content", "quota"), [("150000 100000", 2), ("50000 100000", 1), ("max 100000", None)]
)
def test_a_container_has_fewer_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, quota: int | None
) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(f"{content}\n")
    monkeypatch.setattr(machine, "CPU_QUOTA", file)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert machine.cpu_quota() == quota
    assert machine.available_cpus() == (quota or 8)


def test_without_control_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CPU_QUOTA", tmp_path / "none")
    assert machine.cpu_quota() is None


COMMAND = """
import os, sys
from pathlib import Path
from factory_core import machine
machine.CPU_QUOTA = Path(sys.argv[1])
import factory.cli
factory.cli.command_line = lambda: lambda: None
factory.cli.main()
import torch
print(os.environ["GOMP_SPINCOUNT"], torch.get_num_threads())
"""


@pytest.mark.parametrize(("given", "wanted"), [({}, "3000 1"), ({"GOMP_SPINCOUNT": "7"}, "7 1")])
def test_the_command_line_starts_no_more_threads_than_the_container_has_cores(
    tmp_path: Path, given: dict[str, str], wanted: str
) -> None:
    file = tmp_path / "cpu.max"
    file.write_text("100000 100000\n")
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, "-c", COMMAND, str(file)]
    done = subprocess.run(command, env=ours | given, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == wanted
