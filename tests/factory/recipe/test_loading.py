"""Recipes from presets, files, overrides and labelers, and errors that name the key."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from factory.recipe import load_recipe, preset_names, recipe_of_labeler
from factory.recipe.yaml_text import parse_yaml


def test_the_demo_is_a_preset() -> None:
    assert "demo" in preset_names()
    assert load_recipe().name == "demo"


def test_defaults_then_file_then_overrides(mine: str) -> None:
    plain = load_recipe(mine)
    assert (plain.generator.steps, plain.generator.eta, plain.dataset.drop_fraction) == (7, 0, 0.1)
    changes = ["generator.steps=9", "generator.features.blocks=[3, 4]", "dataset.drop_fraction=0"]
    changed = load_recipe(mine, changes)
    assert (changed.generator.steps, changed.dataset.drop_fraction) == (9, 0.0)
    assert changed.generator.features.blocks == (3, 4)
    assert changed.generator.features.noise == plain.generator.features.noise


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("generator.stpes=3", "'generator.stpes': did you mean 'generator.steps'"),
        ("generatr.steps=3", "'generatr': did you mean 'generator'"),
        ("dataset.shard-size=3", "'dataset.shard-size': did you mean 'dataset.shard_size'"),
        ("eta=3", "'eta': did you mean 'generator.eta'?"),
        ("dataset.zzz=3", "'dataset.zzz': expected one of dataset.drop_fraction, dataset.shard"),
        ("zzz=3", "'zzz': expected one of name, classes, palette, generator, labeler,"),
        ("generator.steps=0", "'generator.steps' is 0: input should be greater"),
        ("generator.steps", "expected KEY=VALUE"),
        ("name.first=x", "'name' is a value, not a section"),
        ("generator.steps=[", "the value is not YAML"),
        ("classes=[a, a]", "expected two or more distinct names"),
        ("name=a/b", "'name' is 'a/b'"),
        ("palette=[[0, 0, 300]]", "'palette.0.2' is 300: input should be less than or equal"),
        ("palette=[[0, 0]]", "'palette.0' is [0, 0]: expected a list of 3 values"),
    ],
)
def test_a_bad_override_is_named_in_one_line(mine: str, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load_recipe(mine, [override])
    assert "\n" not in str(caught.value)


def test_the_kind_of_a_generator_comes_from_its_weights(mine: str, tmp_path: Path) -> None:
    assert load_recipe(mine).generator.kind == "ddpm"
    gan = tmp_path / "gan"
    gan.mkdir()
    (gan / "generator.json").write_text("{}")
    (tmp_path / "own.yaml").write_text(
        f"name: own\ngenerator: {{weights: {gan}, truncation: 0.5}}\n"
    )
    own = str(tmp_path / "own.yaml")
    generator = load_recipe(own).generator
    assert (generator.kind, generator.truncation) == ("stylegan2", 0.5)
    missing = load_recipe(own, ["generator.weights=not/there.pkl"]).generator
    assert missing.kind == "stylegan2"  # so the error says that the file is missing
    for override, message in {
        "generator.steps=10": "'generator.steps' is not a setting of kind 'stylegan2': did you",
        "generator.sampler=ddim": "'generator.sampler' is not a setting of kind 'stylegan2': "
        "expected one of generator.kind, generator.weights, generator.truncation",
        "generator.features.timesteps=[50]": "of kind 'stylegan2': expected one of "
        "generator.features.layers, generator.features.constant",
        "generator.trunc=1": "unknown key 'generator.trunc': did you mean 'generator.truncation'?",
        "generator.kind=ddpm": f"'generator.kind' is 'ddpm', but {gan} holds a network of "
        "kind 'stylegan2'",
        "generator.kind=vae": "'generator.kind' is 'vae': expected 'ddpm', 'encoder', "
        "'factorized', 'stylegan2'",
    }.items():
        with pytest.raises(ValueError, match=re.escape(message)) as caught:
            load_recipe(own, [override])
        assert "\n" not in str(caught.value)


def test_presets_may_be_written_with_hyphens() -> None:
    assert load_recipe("horse-21") == load_recipe("horse_21")


def test_unknown_sources(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"unknown recipe 'dmeo': .*\bdemo\b"):
        load_recipe("dmeo")
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_recipe(str(tmp_path / "none.yaml"))
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ValueError, match="is not YAML"):
        load_recipe(str(tmp_path / "bad.yaml"))
    (tmp_path / "list.yaml").write_text("[1]")
    with pytest.raises(ValueError, match="expected keys and values"):
        load_recipe(str(tmp_path / "list.yaml"))
    (tmp_path / "binary.yaml").write_bytes(bytes(range(128, 256)))
    with pytest.raises(ValueError, match=r"binary\.yaml is not a text file"):
        load_recipe(str(tmp_path / "binary.yaml"))
    (tmp_path / "short.yaml").write_text("name: x\ngenerator: {}")
    with pytest.raises(ValueError, match=r"'generator.weights' is missing"):
        load_recipe(str(tmp_path / "short.yaml"))


def test_classes_with_their_colours(tmp_path: Path, make_recipe: Callable) -> None:
    mine = make_recipe(tmp_path, "classes: {sky: [1, 2, 3], tree: [4, 5, 6]}")
    recipe = load_recipe(mine)
    assert (recipe.classes, recipe.palette) == (("sky", "tree"), ((1, 2, 3), (4, 5, 6)))
    assert load_recipe(mine, ["classes.tree=[7, 8, 9]"]).palette == ((1, 2, 3), (7, 8, 9))
    assert load_recipe(mine, ["classes=[a, b]"]).palette is None
    for override, message in {
        "palette=[[0, 0, 0], [1, 1, 1]]": "found colours in both classes and palette",
        "classes.tree=[4, 5, 256]": "'palette.1.2' is 256",
        "classes.tree=green": "'palette.1' is 'green'",
    }.items():
        with pytest.raises(ValueError, match=re.escape(message)) as caught:
            load_recipe(mine, [override])
        assert "\n" not in str(caught.value)


def test_the_labelers_settings_are_inherited(mine: str) -> None:
    folder = Path(mine).parent / "labeler"
    noted = {"generator": {"config": {"weights": "there", "steps": 3}}, "classes": ["a", "b"]}
    config = {"vote": "soft", "uncertainty": "entropy", "precision": "float32", "members": 3}
    (folder / "labeler.json").write_text(json.dumps({**noted, "config": config}))
    recipe = recipe_of_labeler(str(folder), overrides=["generator.steps=4"])
    assert (recipe.labeler.vote, recipe.labeler.uncertainty) == ("soft", "entropy")
    assert recipe.labeler.precision == "float32"
    assert (recipe.generator.weights, recipe.generator.steps) == ("there", 4)
    (folder / "labeler.json").write_text(json.dumps({**noted, "config": {"vote": "log_soft"}}))
    recipe = recipe_of_labeler(str(folder))  # from before there was a choice
    assert (recipe.labeler.vote, recipe.labeler.uncertainty) == ("log_soft", "js")


def test_an_empty_section_is_one_without_settings(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("name: x\ngenerator:\nlabeler:\nclasses:\n")
    settings = ["generator.steps=2", "generator.weights=here", "generator.features=null"]
    recipe = load_recipe(str(tmp_path / "empty.yaml"), settings)
    assert (recipe.generator.steps, recipe.classes) == (2, None)
    with pytest.raises(ValueError, match=r"'generator.weights' is missing"):
        load_recipe(str(tmp_path / "empty.yaml"))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "generator:\n  steps: 4\n  seed: 1\n  steps: 50\n",
            "'steps' is given twice, in lines 2 and 4",
        ),
        (
            "generator: {steps: 4}\nname: x\ngenerator: {steps: 50}\n",
            "'generator' .* lines 1 and 3",
        ),
        ("generator: {steps: 4, 'steps': 50}\n", "'steps' is given twice, in lines 1 and 1"),
        (
            "classes:\n  sky: [1, 2, 3]\n  sky: [4, 5, 6]\n",
            "'sky' is given twice, in lines 2 and 3",
        ),
    ],
)
def test_a_repeated_key_is_refused_with_its_lines(tmp_path: Path, text: str, line: str) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=rf"recipe .*own\.yaml: {line}.*keep one"):
        load_recipe(str(file))


def test_equal_keys_in_different_places_and_merged_mappings_are_fine(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        "generator: &base {weights: here, seed: 3, steps: 2}\nlabeler: {seed: 3}\nname: x\n"
    )
    assert load_recipe(str(tmp_path / "own.yaml")).labeler.seed == 3
    merged = parse_yaml("a: &a {x: 1, y: 2}\nb: &b {z: 3}\nc:\n  <<: *a\n  <<: *b\n  x: 5\n")
    assert merged["c"] == {"x": 5, "y": 2, "z": 3}


def test_a_recipe_nested_too_deeply_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "deep.yaml").write_text("a: " + "[" * 5000)
    with pytest.raises(ValueError, match=r"deep\.yaml is not YAML: it is nested too deeply"):
        load_recipe(str(tmp_path / "deep.yaml"))
