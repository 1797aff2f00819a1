"""The search for blocks and timesteps, and the recipe that it writes."""

from __future__ import annotations

from pathlib import Path

from factory.analysis.choosing import Choice, Setting
from factory.analysis.judging import difference
from factory.recipe import load_recipe
from tests.factory.analysis.conftest import GRID, Analyse
from tests.factory.analysis.test_analyse import cell_times
from train_seg.evaluation.evaluate import Spread

QUICK = GRID | {"final.members": 1, "final.training.steps": 2, "candidates": 1, "most": 3}
DEFAULT = Setting((2,), (50,))
OTHER = Setting((1, 2), (0, 50))


def choice(chosen: list[float], default: list[float]) -> Choice:
    spreads = Spread.of(chosen), Spread.of(default)
    pairs = dict(enumerate(chosen)), dict(enumerate(default))
    return Choice(OTHER, DEFAULT, *spreads, difference(*pairs))


def test_the_recipe_trains_a_labeler(
    analyse: Analyse, factory, annotated: Path, tmp_path: Path
) -> None:
    assert analyse("blocks", **GRID).code == 0
    grid = cell_times(tmp_path / "out")
    result = analyse("", command="choose-features", **QUICK)
    assert result.code == 0, result.err
    assert "default" in result.out
    cells = cell_times(tmp_path / "out")
    assert {name: cells[name] for name in grid} == grid  # the grid of `blocks` is not repeated
    recipe = tmp_path / "out" / "recipe.yaml"
    features = load_recipe(str(recipe)).generator.features
    assert features.blocks
    assert features.timesteps
    again = analyse("", command="choose-features", **QUICK)
    assert again.out == result.out
    assert cell_times(tmp_path / "out") == cells
    trained = factory(
        *("train-labeler", "--recipe", recipe, "--labeled", annotated, "--fast"),
        *("--out", tmp_path / "labeler", "--set", "labeler.training.steps=2"),
        *("--set", "labeler.members=1"),
    )
    assert trained.code == 0, trained.err


def test_the_default_is_kept_unless_the_gain_is_clear() -> None:
    worse = choice([0.5, 0.7], [0.5, 0.6])
    assert worse.recommended == DEFAULT
    assert worse.sentence.startswith("The default is as good: keep blocks [2], timesteps [50]")
    better = choice([0.7, 0.81], [0.5, 0.6])
    assert better.recommended == OTHER
    assert "Take blocks [1, 2], timesteps [0, 50]" in better.sentence
    assert "a gain of +20.5 ± 0.7" in better.sentence


def test_additions_follow_the_ranking() -> None:
    maps = ["t50.b2", "t0.b1", "t900.b3"]
    assert Setting.of(maps[:1]).with_one_more(maps, 1) == [
        Setting((1, 2), (50,)),
        Setting((2,), (0, 50)),
    ]
    assert OTHER.maps == ["t0.b1", "t0.b2", "t50.b1", "t50.b2"]
    layers = Setting.of(["b8.conv1"])
    assert layers.with_one_more(["b4.conv1", "b8.conv1", "b8.conv0"], 1) == [
        Setting(layers=("b8.conv1", "b4.conv1"))
    ]
