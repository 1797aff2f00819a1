"""Recipes with weights whose names alone are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest


def write_recipe(folder: Path, extra: str = "") -> str:
    """Write a recipe, and the weights it names as far as a recipe reads them; returns its path.

    The classes are sky and tree; `extra` is appended to the recipe.
    """
    (folder / "generator").mkdir(parents=True)
    (folder / "generator" / "config.json").write_text("{}")
    (folder / "labeler").mkdir()
    (folder / "labeler" / "labeler.json").write_text(json.dumps({"classes": ["sky", "tree"]}))
    path = folder / "mine.yaml"
    path.write_text(
        f"name: mine\ngenerator: {{weights: {folder}/generator, steps: 7}}\n"
        f"labeler: {{weights: {folder}/labeler}}\n{extra}"
    )
    return str(path)


@pytest.fixture
def make_recipe() -> Callable[..., str]:
    """`make_recipe(folder, extra)` writes a recipe with its weights."""
    return write_recipe


@pytest.fixture
def mine(tmp_path: Path) -> str:
    """A recipe in `tmp_path`."""
    return write_recipe(tmp_path)
