"""The script for a GPU runs, at tiny sizes on a CPU, and keeps what it has found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import on_gpu
from benchmarks.on_gpu_parts import PARTS, Part

EXPECTED = {
    "same_images": {"demo", "demo-stylegan2"},
    "same_bytes": {"sha256"},
    "sampling": {"copy_gb_per_sec", "batch 8"},
    "profile": {"wall_sec", "busy_sec", "idle", "goal_reached"},
    "stylegan2": {"bare_images_per_sec", "end_to_end_images_per_sec"},
    "labeler": {"float32", "bfloat16"},
    "training": {"ddpm", "ddpm, waiting", "deeplab", "deeplab, waiting"},
    "commands": {"last", "failed"},
}


def test_all_parts_are_tested() -> None:
    assert set(EXPECTED) == set(PARTS)


@pytest.mark.slow
@pytest.mark.parametrize("part", EXPECTED)
def test_a_part_runs(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_gpu, "PARTS", {part: Part(PARTS[part].run, 3600)})
    file = tmp_path / "out.json"
    code = on_gpu.main(["--tiny", "--device", "cpu", "--minutes", "60", "--json", str(file)])
    found = json.loads(file.read_text())
    assert code == 0, found
    assert set(found["parts"][part]) == EXPECTED[part] | {"sec"}
    assert found["device"] == "cpu"


def test_a_part_that_is_stopped_or_has_no_time_is_an_error(tmp_path: Path) -> None:
    assert on_gpu.run_part("commands", "cpu", True, 0.1)["error"] == "stopped after 0 s"
    file = tmp_path / "out.json"
    assert on_gpu.main(["--minutes", "0", "--device", "cpu", "--json", str(file)]) == 1
    parts = json.loads(file.read_text())["parts"]
    assert {part["error"] for part in parts.values()} == {"no time was left"}
