"""The tiny inputs of the tests of `compare`, and `analyse` on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.factory.verdict.conftest import annotated, generator, photographs

__all__ = ["annotated", "generator", "photographs"]

QUICK = {"labeler.members": 1, "labeler.training.steps": 3, "labeler.training.batch_pixels": 64}
GRID = {"blocks": "[0,1,3]", "timesteps": "[0,500]"}  # of four blocks

Analyse = Callable[..., Any]


@pytest.fixture
def analyse(factory: Callable, annotated: Path, generator: Path, tmp_path: Path) -> Analyse:
    """`analyse("labels", *options, sizes="[2,1]")` with output in `tmp_path`/out."""

    def run(name: str, *options: object, command: str = "analyse", **settings: object) -> Any:
        verb = (command, name) if command == "analyse" else (command,)
        given = ["--generator", generator, "--labeled", annotated, "--out", tmp_path / "out"]
        sets = [p for k, v in (QUICK | settings).items() for p in ("--set", f"{k}={v}")]
        return factory(*verb, *given, "--splits", 2, *sets, *options)

    return run
