"""Recipes: presets, files, overrides, and errors that name the key."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from factory.dataset import default_palette
from factory.recipe import diff, find_weights, load_recipe, preset_names, resolve, weights_sha256


def write_weights(folder: Path, classes: tuple[str, ...] = ("sky", "tree")) -> None:
    """A generator and a labeler folder, as far as a recipe looks into them."""
    (folder / "generator").mkdir(parents=True)
    (folder / "generator" / "config.json").write_text("{}")
    (folder / "labeler").mkdir()
    (folder / "labeler" / "labeler.json").write_text(json.dumps({"classes": classes}))


def recipe_file(folder: Path, extra: str = "") -> str:
    """A recipe that names the weights in `folder`."""
    path = folder / "mine.yaml"
    path.write_text(
        f"name: mine\ngenerator: {{weights: {folder}/generator, steps: 7}}\n"
        f"labeler: {{weights: {folder}/labeler}}\n{extra}"
    )
    return str(path)


@pytest.fixture
def mine(tmp_path: Path) -> str:
    write_weights(tmp_path)
    return recipe_file(tmp_path)


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
        ("generator.steps=0", "'generator.steps' is 0: input should be greater"),
        ("generator.steps", "expected KEY=VALUE"),
        ("name.first=x", "'name' is a value, not a section"),
        ("generator.steps=[", "the value is not YAML"),
        ("classes=[a, a]", "expected two or more distinct names"),
        ("name=a/b", "'name' is 'a/b'"),
        ("palette=[[0, 0, 300]]", "three numbers from 0 to 255"),
    ],
)
def test_a_bad_override_is_named_in_one_line(mine: str, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load_recipe(mine, [override])
    assert "\n" not in str(caught.value)


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
    (tmp_path / "short.yaml").write_text("name: x\ngenerator: {}")
    with pytest.raises(ValueError, match=r"'generator.weights' is missing"):
        load_recipe(str(tmp_path / "short.yaml"))


def test_classes_and_palette_come_from_the_labeler(mine: str) -> None:
    resolved = resolve(load_recipe(mine))
    assert resolved.classes == ("sky", "tree")
    assert [list(colour) for colour in resolved.palette] == default_palette(2)
    assert Path(resolved.generator.weights).is_absolute()
    with pytest.raises(ValueError, match="was trained on"):
        resolve(load_recipe(mine, ["classes=[sky, sea]"]))
    with pytest.raises(ValueError, match="palette has 1 colours for 2 classes"):
        resolve(load_recipe(mine, ["palette=[[0, 0, 0]]"]))


def test_the_digest_ignores_where_weights_are_but_not_what(tmp_path: Path) -> None:
    for name in ("here", "there"):
        write_weights(tmp_path / name)
    here, there = (resolve(load_recipe(recipe_file(tmp_path / n))) for n in ("here", "there"))
    assert here.digest == there.digest
    (tmp_path / "there/labeler/README.md").write_text("notes are not weights")
    assert resolve(there.recipe).digest == here.digest
    (tmp_path / "there/labeler/labeler.safetensors").write_bytes(b"weights")
    other = resolve(there.recipe)
    assert other.digest != here.digest
    assert diff(here.canonical, other.canonical) == ["labeler.weights"]


def test_the_digest_covers_what_decides_the_bytes(mine: str) -> None:
    plain = resolve(load_recipe(mine))
    steps = resolve(load_recipe(mine, ["generator.steps=8", "dataset.drop_fraction=0.2"]))
    assert plain.digest != steps.digest
    assert diff(plain.canonical, steps.canonical) == ["generator.steps", "dataset.drop_fraction"]
    assert resolve(load_recipe(mine, ["segmenter.lr=0.5"])).digest == plain.digest


def test_weights_inside_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights_pkg/sub/gen").mkdir(parents=True)
    (tmp_path / "weights_pkg/__init__.py").touch()
    (tmp_path / "weights_pkg/sub/__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    found = find_weights("generator.weights", "package:weights_pkg.sub/gen")
    assert found == (tmp_path / "weights_pkg/sub/gen").resolve()
    with pytest.raises(FileNotFoundError, match=r"generator.weights: .*none does not exist"):
        find_weights("generator.weights", "package:weights_pkg.sub/none")
    with pytest.raises(ValueError, match="there is no package 'no_such_pkg'"):
        find_weights("generator.weights", "package:no_such_pkg/gen")


def test_missing_weights(mine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"generator.weights: .* does not exist"):
        resolve(load_recipe(mine, ["generator.weights=./nowhere"]))
    (tmp_path / "runs").mkdir()  # with such a folder "runs/gen" is a path, not a hub id
    with pytest.raises(FileNotFoundError, match="runs/gen does not exist"):
        resolve(load_recipe(mine, ["generator.weights=runs/gen"]))
    with pytest.raises(FileNotFoundError, match=r"holds no labeler.json"):
        resolve(load_recipe(mine, ["labeler.weights=runs"]))
    with pytest.raises(ValueError, match="train a labeler"):
        resolve(load_recipe(mine, ["labeler.weights=null"]))


def test_a_single_weight_file_is_hashed_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "net.pkl").write_bytes(b"abc")
    assert weights_sha256(tmp_path / "net.pkl").startswith("ba7816bf")
