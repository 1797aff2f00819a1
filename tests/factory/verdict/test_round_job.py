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
    names = list(found["miou"])
    assert names[:2] == ["generator-mean", "generator-mean-light"]
    light = "-light" if means[1] > means[0] else ""
    assert names[2:] == [f"round-1{light}", f"round-2{light}"][: len(names) - 2]
    # Another round only after an improvement.
    assert len(names) == (4 if means[2] > max(means[:2]) else 3)
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
    result = factory(*command, "--rounds", 1, "--augmentation", "light", *settings())
    assert result.code == 0, result.err
    found = json.loads((out / "rounds.json").read_text())
    assert list(found["miou"]) == ["generator-mean-light", "round-1-synthetic-light"]
    assert (out / "model.safetensors").is_file()
