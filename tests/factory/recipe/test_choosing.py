"""The recipe that options select: which one wins, and what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from factory.recipe import choose_recipe, generator_recipe, load_recipe


@pytest.fixture
def labeler(mine: str) -> str:
    """The folder of a labeler that records its generator."""
    folder = Path(mine).parent / "labeler"
    notes = {"generator": {"config": {"weights": "there", "steps": 3}}, "classes": ["a", "b"]}
    (folder / "labeler.json").write_text(json.dumps(notes))
    return str(folder)


def test_a_recipe_wins_over_a_labeler_and_the_demo_comes_last(mine: str, labeler: str) -> None:
    assert choose_recipe(None, None, None, []) == load_recipe("demo")
    own = choose_recipe(None, None, labeler, ["generator.eta=0"])
    assert (own.labeler.weights, own.generator.weights, own.generator.steps) == (
        labeler,
        "there",
        3,
    )
    both = choose_recipe(mine, "here", labeler, ["generator.steps=9"])
    assert (both.labeler.weights, both.generator.weights) == (labeler, "here")
    assert (both.name, both.generator.steps) == ("mine", 9)


def test_a_generator_by_recipe_by_option_or_as_recorded(mine: str) -> None:
    recorded = {"kind": "ddpm", "weights": "there", "steps": 3}
    assert generator_recipe(mine, None, [], recorded).generator.steps == 7
    assert generator_recipe(None, None, [], recorded).generator.steps == 3
    moved = generator_recipe(None, "here", ["generator.eta=0"], recorded).generator
    assert (moved.weights, moved.steps) == ("here", 3)
    assert generator_recipe(None, "here", []).generator.weights == "here"
    with pytest.raises(ValueError, match="found no generator: give --generator DIR"):
        generator_recipe(None, None, [])
