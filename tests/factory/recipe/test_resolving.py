"""Weights, classes and palettes of resolved recipes, their digests, and how two differ."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from factory.recipe import diff, load_recipe, recipe_of_labeler, resolve
from factory_core.dataset import canonical_json, default_palette


def test_classes_and_palette_come_from_the_labeler(mine: str) -> None:
    resolved = resolve(load_recipe(mine))
    assert resolved.classes == ("sky", "tree")
    assert [list(colour) for colour in resolved.palette] == default_palette(2)
    assert Path(resolved.generator.weights).is_absolute()
    with pytest.raises(ValueError, match="was trained on"):
        resolve(load_recipe(mine, ["classes=[sky, sea]"]))
    with pytest.raises(ValueError, match="the recipe's palette has 1 colours for 2 classes"):
        resolve(load_recipe(mine, ["palette=[[0, 0, 0]]"]))


def test_the_digest_depends_on_the_content_of_weights_not_their_path(
    tmp_path: Path, make_recipe: Callable
) -> None:
    here, there = (resolve(load_recipe(make_recipe(tmp_path / n))) for n in ("here", "there"))
    assert here.digest == there.digest
    (tmp_path / "there/labeler/README.md").write_text("notes are not weights")
    assert resolve(there.recipe).digest == here.digest
    (tmp_path / "there/labeler/labeler.safetensors").write_bytes(b"weights")
    other = resolve(there.recipe)
    assert other.digest != here.digest
    assert diff(here.canonical, other.canonical) == ["labeler.weights"]


def test_the_digest_covers_everything_that_determines_the_bytes(mine: str) -> None:
    plain = resolve(load_recipe(mine))
    steps = resolve(load_recipe(mine, ["generator.steps=8", "dataset.drop_fraction=0.2"]))
    assert plain.digest != steps.digest
    assert diff(plain.canonical, steps.canonical) == ["generator.steps", "dataset.drop_fraction"]
    assert resolve(load_recipe(mine, ["segmenter.lr=0.5"])).digest == plain.digest
    labels = ["labeler.vote=soft", "labeler.uncertainty=entropy", "labeler.precision=bfloat16"]
    changed = resolve(load_recipe(mine, [*labels, "dataset.uncertainty_maps=true"]))
    expected = [label.split("=")[0] for label in labels]
    assert diff(plain.canonical, changed.canonical) == [*expected, "dataset.uncertainty_maps"]
    trained = resolve(load_recipe(mine, ["labeler.members=3", "labeler.seed=1"]))
    assert trained.digest == plain.digest  # the weights contain how a labeler was trained


def test_keys_unknown_to_an_older_program_do_not_count(mine: str) -> None:
    new = resolve(load_recipe(mine)).canonical
    old = {**new, "labeler": {"weights": new["labeler"]["weights"], "vote": "soft"}}
    assert diff(old, new) == diff(new, old) == ["labeler.vote"]


def test_missing_weights(mine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"generator.weights: .* does not exist"):
        resolve(load_recipe(mine, ["generator.weights=./nowhere"]))
    (tmp_path / "runs").mkdir()  # with this folder, "runs/gen" is a path, not a hub id
    with pytest.raises(FileNotFoundError, match="runs/gen does not exist"):
        resolve(load_recipe(mine, ["generator.weights=runs/gen"]))
    with pytest.raises(FileNotFoundError, match=r"holds no labeler.json"):
        resolve(load_recipe(mine, ["labeler.weights=runs"]))
    with pytest.raises(ValueError, match="train a labeler"):
        resolve(load_recipe(mine, ["labeler.weights=null"]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"classes": ["a", "b"], "generator": null}', "'generator'"),
        ('{"classes": ["a", "b"], "generator": {"config": null}}', r"'generator\.config'"),
        ('{"classes": ["a", "b"], "palette": [[0, 0], [1, 1]]}', r"'palette\.0\.2'"),
        ('{"classes": []}', "'classes'"),
        ("{", "'content'"),
    ],
)
def test_a_damaged_labeler_json_is_named(mine: str, content: str, message: str) -> None:
    folder = Path(mine).parent / "labeler"
    (folder / "labeler.json").write_text(content)
    for read in (lambda: resolve(load_recipe(mine)), lambda: recipe_of_labeler(str(folder))):
        with pytest.raises(ValueError, match=rf"labeler\.json is damaged \({message}") as caught:
            read()
        assert "\n" not in str(caught.value)


def test_the_kind_comes_from_the_labeler(mine: str) -> None:
    file = Path(mine).parent / "labeler" / "labeler.json"
    assert resolve(load_recipe(mine)).recipe.labeler.kind == "ensemble"
    file.write_text('{"classes": ["sky", "tree"], "config": {"kind": "network"}}')
    found = resolve(load_recipe(mine))
    assert found.recipe.labeler.kind == found.labeler.kind == "network"
    assert resolve(load_recipe(mine, ["labeler.kind=network"])).digest == found.digest
    with pytest.raises(ValueError, match=r"kind is 'both', but .* of kind 'network': leave") as no:
        resolve(load_recipe(mine, ["labeler.kind=both"]))
    assert "\n" not in str(no.value)


def test_a_labelers_palette_of_the_wrong_length(mine: str) -> None:
    file = Path(mine).parent / "labeler" / "labeler.json"
    file.write_text('{"classes": ["sky", "tree"], "palette": [[0, 0, 0]]}')
    with pytest.raises(ValueError, match=r"labeler\.json: palette has 1 colours for 2 classes"):
        resolve(load_recipe(mine))
    with pytest.raises(ValueError, match="lacks the settings of its generator"):
        recipe_of_labeler(str(file.parent))


def test_a_setting_that_came_later_appears_only_if_it_is_used(mine: str) -> None:
    """A new setting belongs to LATER_KEYS: dataset.json and digests of old recipes must not change.

    The sha256 are those of the first version.
    """
    demo = resolve(load_recipe("demo"))
    assert demo.digest == "822bf1ce83c809a7ec30e19b764431b4a52ac0d891fc1dcadb32215f4b6a8e56"
    written = sha256(canonical_json(demo.recipe.to_json())).hexdigest()
    assert written == "352a80220c0c99d9628810111d8b1586585366f6cb12149eda0304663b64bde8"
    plain = load_recipe(mine).to_json()
    assert "selection" not in plain
    changes = ("selection.policy=none", "dataset.probabilities=true", "segmenter.soft_labels=true")
    for change in changes:
        key = change.split("=")[0]
        section, name = key.split(".")
        changed = load_recipe(mine, [change])
        assert name in changed.to_json()[section]
        assert type(changed).model_validate(changed.to_json()) == changed
        differing = diff(resolve(load_recipe(mine)).canonical, resolve(changed).canonical)
        assert differing == ([] if section == "segmenter" else [key])
