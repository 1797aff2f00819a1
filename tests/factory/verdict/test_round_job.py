"""`rounds` as a user runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.factory.verdict.test_comparison import cell_times, settings


@pytest.mark.slow
def test_rounds_end_with_the_best_model(
    factory: Callable, annotated: Path, photographs: Path, generator: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = (
        *("rounds", "--labeled", annotated, "--images", photographs, "--generator", generator),
        *("--out", out, "--rounds", 2, *settings()),
    )
    result = factory(*command)
    assert result.code == 0, result.err
    found = json.loads((out / "rounds.json").read_text())
    means = list(found["miou"].values())
    assert list(found["miou"])[:2] == ["generator-mean", "round-1"]
    assert len(means) == 3 or means[1] <= means[0]  # another round only after an improvement
    assert found["miou"][found["best"]] == max(means)
    model = (out / "model.safetensors").read_bytes()

    before = cell_times(out)
    assert factory(*command).code == 0
    assert cell_times(out) == before
    assert (out / "model.safetensors").read_bytes() == model
    predicted = factory(
        *("predict", "--model", out, "--images", photographs, "--out", tmp_path / "masks")
    )
    assert predicted.code == 0, predicted.err


@pytest.mark.slow
def test_without_photographs_rounds_learn_from_samples(
    factory: Callable, annotated: Path, generator: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ("rounds", "--labeled", annotated, "--generator", generator, "--out", out)
    refused = factory(*command, "--learn-from", "both")
    assert refused.code == 1
    assert "--learn-from both needs --images" in refused.err
    result = factory(*command, "--rounds", 1, *settings())
    assert result.code == 0, result.err
    found = json.loads((out / "rounds.json").read_text())
    assert list(found["miou"]) == ["generator-mean", "round-1-synthetic"]
    assert (out / "model.safetensors").is_file()
