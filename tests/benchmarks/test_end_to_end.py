"""A whole job is timed by stage, and does what `generate` does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import end_to_end


@pytest.mark.slow
def test_stages_of_a_small_job(tmp_path: Path) -> None:
    found = []
    for attempt in range(2):
        file = tmp_path / f"{attempt}.json"
        small = ["--size", "16", "--channel-base", "128", "--n", "10", "--device", "cpu"]
        end_to_end.main([*small, "--json", str(file)])
        found.append(json.loads(file.read_text()))
    assert found[0]["sha256"] == found[1]["sha256"]
    seconds = found[0]["seconds"]
    stages = {"imports", "load the models", "sample", "label", "encode and write"}
    assert set(seconds) == stages | {"select, pack, sha256", "preview", "all"}
    assert all(0 <= value <= seconds["all"] for value in seconds.values())
